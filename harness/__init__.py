"""harness: which alignment method is better, at the same budget, from the same starting model, by how much, how surely?

This module is the facade. Plugins import from here and from nowhere else in the package; what is listed in `__all__` is a
promise, versioned by `API_VERSION`. Nothing here imports torch.
"""

from harness.errors import ConfigError, DataError, HarnessError, PluginError, Problem, StageError, StoreError
from harness.hookspecs import API_VERSION, hookimpl
from harness.interfaces import (
    Backend,
    BuildTask,
    Component,
    DataBuilder,
    EvaluationTask,
    Evaluator,
    Method,
    Objective,
    Round,
    Source,
)
from harness.models.generate import generate
from harness.types import (
    Cost,
    Dataset,
    Example,
    Group,
    GroupLogps,
    Logps,
    Loss,
    Message,
    Metric,
    Mismatched,
    Paper,
    Prompt,
    Response,
    Sampling,
    Score,
    View,
)
from harness.version import __version__

__all__ = [
    "API_VERSION",
    "Backend",
    "BuildTask",
    "Component",
    "ConfigError",
    "Cost",
    "DataBuilder",
    "DataError",
    "Dataset",
    "EvaluationTask",
    "Evaluator",
    "Example",
    "Group",
    "GroupLogps",
    "HarnessError",
    "Logps",
    "Loss",
    "Message",
    "Method",
    "Metric",
    "Mismatched",
    "Objective",
    "Paper",
    "PluginError",
    "Problem",
    "Prompt",
    "Response",
    "Round",
    "Sampling",
    "Score",
    "Source",
    "StageError",
    "StoreError",
    "View",
    "__version__",
    "generate",
    "hookimpl",
]
