"""The JSON lines that processes of a run write to their parent."""

from __future__ import annotations

from typing import Any, Literal, Required, TypedDict


class Message(TypedDict, total=False):
    """One line.

    Attributes:
        event: `progress`; `finished`, also where the stage failed; `unwritable` where nothing can be written any more; `gone`
            where the process has ended, which its parent adds.
        done, total, note: of `progress`.
        error: why the stage failed; None where it did not.
        ours: whether the error is the harness's own, whose text is for users.
        mirror: why the mirror was left out; None where it was not.
        log: the end of the stage's output, where no file keeps it.
        facts, earlier_seconds: of the draft that the first process of a training wrote.
    """

    event: Required[Literal["progress", "finished", "unwritable", "gone"]]
    done: int
    total: int
    note: str
    error: str | None
    ours: bool
    mirror: str | None
    log: str
    facts: dict[str, Any]
    earlier_seconds: float
