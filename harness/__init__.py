"""harness: which alignment method is better, at the same budget, from the same starting model, by how much, how surely?

This module is the facade. Plugins import from here and from nowhere else in the package; what is listed in `__all__` is a
promise, versioned by `API_VERSION`. Nothing here imports torch.

`compare` and `Board`, for scripts, and the kit that analyses are written with are imported when they are first used.
"""

# First of all, since the imports below take a while: Ctrl-C in the command line's first second is one line, too.
import sys

from harness.interrupts import end_on_interrupt, runs_as_command

if runs_as_command(sys.argv, sys.orig_argv):
    end_on_interrupt()

from importlib import import_module
from typing import TYPE_CHECKING, Any

from harness.api.hookspecs import API_VERSION, hookimpl
from harness.api.interfaces import (
    Analysis,
    Backend,
    BuildTask,
    Chunks,
    Component,
    DataBuilder,
    EvaluationTask,
    Evaluator,
    Generate,
    Importer,
    Objective,
    Paper,
    Policy,
    Source,
    Trainer,
    TrainingTask,
    TrainingUse,
)
from harness.api.methods import Method, Round
from harness.api.registry import source_named
from harness.api.spaces import SearchSpace
from harness.api.texts import decode, fold, fold_spacing, parse_json, read_json_rows, read_lines, read_text
from harness.api.types import (
    DELIMITERS,
    UNREAD_METRICS,
    Cost,
    Dataset,
    Divided,
    Example,
    Group,
    GroupLogps,
    Imported,
    JudgeAnswer,
    Judgment,
    Logps,
    Loss,
    Message,
    Metric,
    Mismatched,
    Prompt,
    Questions,
    ReadResponse,
    Response,
    Sampling,
    Score,
    View,
    divide,
    unread_shares,
)
from harness.errors import (
    ConfigError,
    DataError,
    HarnessError,
    PluginError,
    Problem,
    StageError,
    StoreError,
    UnavailableError,
)
from harness.models.client import DeclinedError, ModelClient, RefusedError, TransientError
from harness.models.generate import generate, prompt_batches
from harness.models.hub import hub_commit, hub_snapshot
from harness.models.replies import ReplyChoice
from harness.models.retry import RetryPolicy
from harness.models.reward import JudgeReward, PolicyReward, Reward, Rewarded, RewardModel, TrainingReward
from harness.models.sentence import SentenceEmbedder
from harness.models.serve import supervised_command, vllm_command
from harness.models.tokenization import ChatTemplate
from harness.models.verifier import Verdict, Verifier
from harness.training.settings import TrainingSettings
from harness.version import __version__

if TYPE_CHECKING:
    from harness.analysis.context import AnalysisContext, ComparisonResults
    from harness.analysis.contrasts import contrast, resampled
    from harness.analysis.figure import Axes, Figure, Line, Panel
    from harness.analysis.report import Cell, CheckedClaim, Report
    from harness.api.limits import read_parquet_rows
    from harness.board.board import Board
    from harness.board.statistics import Interval, Values, interval, logistic, pseudo_values
    from harness.library import Choice, compare
    from harness.store.atomic import write_atomically

__all__ = [
    "API_VERSION",
    "DELIMITERS",
    "UNREAD_METRICS",
    "Analysis",
    "AnalysisContext",
    "Axes",
    "Backend",
    "Board",
    "BuildTask",
    "Cell",
    "ChatTemplate",
    "CheckedClaim",
    "Choice",
    "Chunks",
    "ComparisonResults",
    "Component",
    "ConfigError",
    "Cost",
    "DataBuilder",
    "DataError",
    "Dataset",
    "DeclinedError",
    "Divided",
    "EvaluationTask",
    "Evaluator",
    "Example",
    "Figure",
    "Generate",
    "Group",
    "GroupLogps",
    "HarnessError",
    "Imported",
    "Importer",
    "Interval",
    "JudgeAnswer",
    "JudgeReward",
    "Judgment",
    "Line",
    "Logps",
    "Loss",
    "Message",
    "Method",
    "Metric",
    "Mismatched",
    "ModelClient",
    "Objective",
    "Panel",
    "Paper",
    "PluginError",
    "Policy",
    "PolicyReward",
    "Problem",
    "Prompt",
    "Questions",
    "ReadResponse",
    "RefusedError",
    "ReplyChoice",
    "Report",
    "Response",
    "RetryPolicy",
    "Reward",
    "RewardModel",
    "Rewarded",
    "Round",
    "Sampling",
    "Score",
    "SearchSpace",
    "SentenceEmbedder",
    "Source",
    "StageError",
    "StoreError",
    "Trainer",
    "TrainingReward",
    "TrainingSettings",
    "TrainingTask",
    "TrainingUse",
    "TransientError",
    "UnavailableError",
    "Values",
    "Verdict",
    "Verifier",
    "View",
    "__version__",
    "compare",
    "contrast",
    "decode",
    "divide",
    "fold",
    "fold_spacing",
    "generate",
    "hookimpl",
    "hub_commit",
    "hub_snapshot",
    "interval",
    "logistic",
    "parse_json",
    "prompt_batches",
    "pseudo_values",
    "read_json_rows",
    "read_lines",
    "read_parquet_rows",
    "read_text",
    "resampled",
    "source_named",
    "supervised_command",
    "unread_shares",
    "vllm_command",
    "write_atomically",
]

_LAZY = {
    name: module
    for module, names in {
        "harness.analysis.context": ("AnalysisContext", "ComparisonResults"),
        "harness.analysis.contrasts": ("contrast", "resampled"),
        "harness.analysis.figure": ("Axes", "Figure", "Line", "Panel"),
        "harness.analysis.report": ("Cell", "CheckedClaim", "Report"),
        "harness.board.board": ("Board",),
        "harness.api.limits": ("read_parquet_rows",),
        "harness.library": ("Choice", "compare"),
        "harness.store.atomic": ("write_atomically",),
        "harness.board.statistics": ("Interval", "Values", "interval", "logistic", "pseudo_values"),
    }.items()
    for name in names
}


if not TYPE_CHECKING:  # a type checker would take any name for one of these

    def __getattr__(name: str) -> Any:
        """Import a name of `_LAZY`: what lies behind it takes longer to load than listing plugins may."""
        if name not in _LAZY:
            raise AttributeError(f"module 'harness' has no attribute {name!r}")
        return getattr(import_module(_LAZY[name]), name)
