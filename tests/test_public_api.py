"""What plugins may rely on: names, hooks and their arguments. A change here is a change of `API_VERSION`."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import harness
from harness.api import hookspecs

NAMES = [
    "Analysis",
    "AnalysisContext",
    "Axes",
    "Cell",
    "CheckedClaim",
    "ComparisonResults",
    "Figure",
    "Interval",
    "Line",
    "Panel",
    "Report",
    "Values",
    "contrast",
    "interval",
    "logistic",
    "pseudo_values",
    "resampled",
    "API_VERSION",
    "DELIMITERS",
    "UNREAD_METRICS",
    "Backend",
    "Board",
    "BuildTask",
    "Choice",
    "ChatTemplate",
    "Chunks",
    "Component",
    "ConfigError",
    "Cost",
    "DataBuilder",
    "DeclinedError",
    "ModelClient",
    "RefusedError",
    "ReplyChoice",
    "RetryPolicy",
    "TransientError",
    "UnavailableError",
    "DataError",
    "Dataset",
    "Divided",
    "EvaluationTask",
    "Evaluator",
    "Generate",
    "Example",
    "Group",
    "GroupLogps",
    "HarnessError",
    "Imported",
    "Importer",
    "JudgeAnswer",
    "JudgeReward",
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
    "PolicyReward",
    "Problem",
    "Prompt",
    "Questions",
    "Response",
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
    "Verdict",
    "Verifier",
    "View",
    "__version__",
    "compare",
    "decode",
    "fold",
    "fold_spacing",
    "generate",
    "prompt_batches",
    "source_named",
    "hookimpl",
    "hub_commit",
    "hub_snapshot",
    "parse_json",
    "read_json_rows",
    "read_parquet_rows",
    "read_lines",
    "read_text",
    "supervised_command",
    "vllm_command",
    "write_atomically",
    "ReadResponse",
    "divide",
    "unread_shares",
]

HOOKS = {
    "harness_data_builders": [],
    "harness_objectives": [],
    "harness_evaluators": [],
    "harness_backends": [],
    "harness_sources": [],
    "harness_importers": [],
    "harness_methods": [],
    "harness_analyses": [],
    "harness_trainers": [],
    "harness_run_started": ["name", "weights", "cached", "interactive", "folder", "tracking", "display", "workers"],
    "harness_run_extended": ["weights", "cached"],
    "harness_stage_started": ["key", "title"],
    "harness_stage_progress": ["key", "done", "total", "note"],
    "harness_training_points": ["row", "seed", "points"],
    "harness_row_scores": ["row", "seed", "means", "scored"],
    "harness_stage_finished": ["key", "title", "seconds", "error"],
    "harness_run_finished": [],
    "harness_board_ready": ["board", "folder"],
}


def hooks() -> dict[str, object]:
    return {name: value for name, value in vars(hookspecs).items() if name.startswith("harness_")}


def test_the_facade_is_pinned() -> None:
    assert sorted(harness.__all__) == sorted(NAMES)
    assert all(hasattr(harness, name) for name in NAMES)
    assert harness.API_VERSION == 1


def test_hooks_and_their_arguments_are_pinned() -> None:
    assert {name: list(inspect.signature(hook).parameters) for name, hook in hooks().items()} == HOOKS


def test_every_hook_is_documented() -> None:
    assert [name for name, hook in hooks().items() if not inspect.getdoc(hook)] == []


def test_every_public_class_and_function_is_documented() -> None:
    public = [getattr(harness, name) for name in harness.__all__]
    assert [value.__name__ for value in public if callable(value) and not inspect.getdoc(value)] == []


@pytest.mark.parametrize(
    "code",
    [
        "import harness",
        "from harness.api.registry import Registry; Registry.load()",
        "import harness.cli, harness.run.compare, harness.run.plan, harness.run.stages",
    ],
)
def test_heavy_libraries_wait_until_they_are_used(code: str) -> None:
    heavy = ("torch", "transformers", "lm_eval", "trl", "openai", "fastchat", "alpaca_eval")
    check = f"{code}; import sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_earlier_name_works_and_warns() -> None:
    import harness.testing

    with pytest.warns(DeprecationWarning, match="CheckVerdict"):
        assert harness.testing.Verdict is harness.testing.CheckVerdict
    with pytest.raises(AttributeError, match="no attribute 'Verdicts'"):
        _ = harness.testing.Verdicts
