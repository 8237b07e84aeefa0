"""What an executor tells the outside, and what it leaves behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from harness.graph import Stage


class Events(Protocol):
    """Told about every stage as it goes."""

    def started(self, stage: Stage) -> None: ...

    def progress(self, key: str, done: int, total: int, note: str) -> None: ...

    def finished(self, stage: Stage, seconds: float, error: str | None) -> None: ...


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        ran: keys of stages made in this run.
        failed: key -> the reason in one line.
        skipped: key -> the failed stage it needed.
    """

    ran: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
