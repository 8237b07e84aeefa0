"""Tests for plugin authors.

`check` and `assert_conforms` check that a registered component keeps to what the host relies on. For tests of your own there
are the inputs they use: `example_batch`, `ScriptedBuild`, `ScriptedEvaluation`, for trainers `train_once` and for analyses
`analysis_context`.
`harness.testing.strategies` has Hypothesis strategies and needs the extra `testing`.
"""

import warnings
from typing import Any

from harness.sandbox.scripted import ScriptedBuild, ScriptedEvaluation
from harness.sandbox.untrained import untrained_policy
from harness.testing.analyses import analysis_context
from harness.testing.batches import example_batch
from harness.testing.conformance import assert_conforms, check
from harness.testing.trainers import TrainedOnce, train_once
from harness.testing.verdict import CheckVerdict, Finding

__all__ = [
    "CheckVerdict",
    "Finding",
    "ScriptedBuild",
    "ScriptedEvaluation",
    "TrainedOnce",
    "analysis_context",
    "assert_conforms",
    "check",
    "example_batch",
    "train_once",
    "untrained_policy",
]


def __getattr__(name: str) -> Any:
    """Give `Verdict`, the earlier name of `CheckVerdict`, with a warning: `harness.Verdict` is a verifier's."""
    if name == "Verdict":
        warnings.warn("harness.testing.Verdict is now harness.testing.CheckVerdict", DeprecationWarning, stacklevel=2)
        return CheckVerdict
    raise AttributeError(f"module 'harness.testing' has no attribute {name!r}")
