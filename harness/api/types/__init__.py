"""The values that flow through a comparison. All frozen; none imports torch at run time."""

from __future__ import annotations

from harness.api.types.data import Dataset, Example, Group, SplitName
from harness.api.types.dialogue import Message, Prompt, ReadResponse, Response, Role, Sampling
from harness.api.types.judgments import UNREAD_METRICS, JudgeAnswer, Judgment, Questions, unread_shares
from harness.api.types.losses import GroupLogps, Logps, Loss, Mismatched, View
from harness.api.types.measures import Cost, Imported, Metric, Score
from harness.api.types.thoughts import DELIMITERS, Divided, divide

__all__ = [
    "DELIMITERS",
    "UNREAD_METRICS",
    "Cost",
    "Dataset",
    "Divided",
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
    "Prompt",
    "Questions",
    "ReadResponse",
    "Response",
    "Role",
    "Sampling",
    "Score",
    "SplitName",
    "View",
    "divide",
    "unread_shares",
]
