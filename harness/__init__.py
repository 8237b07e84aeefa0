"""harness: which alignment method is better, at the same budget, from the same starting model, by how much, how surely?

This module is the facade. Plugins import from here and from nowhere else in the package; what is listed in `__all__` is a
promise, versioned by `API_VERSION`. Nothing here imports torch.

Scripts and notebooks find `compare` and `Board` here; they are imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError, DataError, HarnessError, PluginError, Problem, StageError, StoreError
from harness.hookspecs import API_VERSION, hookimpl
from harness.hub import hub_commit, hub_snapshot
from harness.interfaces import (
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
    Policy,
    Source,
)
from harness.methods import Method, Round
from harness.models.generate import generate
from harness.models.prompts import ChatTemplate
from harness.models.reward import RewardModel
from harness.models.sentence import SentenceEmbedder
from harness.models.vllm import vllm_command
from harness.texts import decode, fold, fold_spacing, parse_json, read_json_rows, read_lines, read_text
from harness.types import (
    Cost,
    Dataset,
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
    Paper,
    Prompt,
    Questions,
    Response,
    Sampling,
    Score,
    View,
)
from harness.version import __version__

if TYPE_CHECKING:
    from harness.leaderboard.schema import Board
    from harness.library import Choice, compare

__all__ = [
    "API_VERSION",
    "Backend",
    "Board",
    "BuildTask",
    "ChatTemplate",
    "Choice",
    "Chunks",
    "Component",
    "ConfigError",
    "Cost",
    "DataBuilder",
    "DataError",
    "Dataset",
    "EvaluationTask",
    "Evaluator",
    "Example",
    "Generate",
    "Group",
    "GroupLogps",
    "HarnessError",
    "Imported",
    "Importer",
    "JudgeAnswer",
    "Judgment",
    "Logps",
    "Loss",
    "Message",
    "Method",
    "Metric",
    "Mismatched",
    "Objective",
    "Paper",
    "PluginError",
    "Policy",
    "Problem",
    "Prompt",
    "Questions",
    "Response",
    "RewardModel",
    "Round",
    "Sampling",
    "Score",
    "SentenceEmbedder",
    "Source",
    "StageError",
    "StoreError",
    "View",
    "__version__",
    "compare",
    "decode",
    "fold",
    "fold_spacing",
    "generate",
    "hookimpl",
    "hub_commit",
    "hub_snapshot",
    "parse_json",
    "read_json_rows",
    "read_lines",
    "read_text",
    "vllm_command",
]

_LAZY = {"Board": "harness.leaderboard.schema", "Choice": "harness.library", "compare": "harness.library"}


if not TYPE_CHECKING:  # a type checker would take any name for one of these

    def __getattr__(name: str) -> Any:
        """What scripts use and plugins don't, imported when asked for."""
        if name not in _LAZY:
            raise AttributeError(f"module 'harness' has no attribute {name!r}")
        return getattr(import_module(_LAZY[name]), name)
