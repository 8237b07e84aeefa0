"""The values that flow through a comparison. All frozen; none imports torch at run time."""

from __future__ import annotations

from harness.types.data import Dataset, Example, Group, SplitName
from harness.types.dialogue import Message, Prompt, Response, Role, Sampling
from harness.types.judgments import JudgeAnswer, Judgment, Questions
from harness.types.losses import GroupLogps, Logps, Loss, Mismatched, View
from harness.types.measures import Cost, Imported, Metric, Score
from harness.types.paper import Paper

__all__ = [
    "Cost",
    "Dataset",
    "Example",
    "Group",
    "GroupLogps",
    "Imported",
    "JudgeAnswer",
    "Judgment",
    "Logps",
    "Loss",
    "Message",
    "Metric",
    "Mismatched",
    "Paper",
    "Prompt",
    "Questions",
    "Response",
    "Role",
    "Sampling",
    "Score",
    "SplitName",
    "View",
]
