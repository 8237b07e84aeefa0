"""The events of an executor, the request to stop it, and the outcome of its run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, Required, TypedDict

from harness.run.graph import Graph, Stage

WRAP_UP_SECONDS = 300.0  # after `run.max_hours`, for running stages to keep their state or to finish
TIME_OVER = "the run's time is over"  # why a stage is put back


class LiveSample(TypedDict):
    """A response that was just drawn, and its prompt; both may be cut."""

    prompt: str
    response: str


class LiveValues(TypedDict, total=False):
    """Intermediate results of a running stage.

    Attributes:
        points: the next points of its training curve: `step`, counted from 1, `loss` and other numbers.
        scores: metric -> mean over the examples scored so far.
        scored: how many those are.
        sample: one of the responses that it draws.
    """

    points: list[dict[str, float]]
    scores: dict[str, float]
    scored: int
    sample: LiveSample


class Events(Protocol):
    """Told about every stage as it goes. `again`: it runs no more, and will be started once more."""

    def started(self, stage: Stage) -> None: ...

    def progress(self, key: str, done: int, total: int, note: str) -> None: ...

    def measured(self, key: str, values: LiveValues) -> None: ...

    def again(self, stage: Stage, reason: str) -> None: ...

    def finished(self, stage: Stage, seconds: float, error: str | None) -> None: ...


@dataclass(frozen=True)
class EventFanout(Events):
    """Several who are told, in their order."""

    listeners: Sequence[Events]

    def started(self, stage: Stage) -> None:
        for listener in self.listeners:
            listener.started(stage)

    def progress(self, key: str, done: int, total: int, note: str) -> None:
        for listener in self.listeners:
            listener.progress(key, done, total, note)

    def measured(self, key: str, values: LiveValues) -> None:
        for listener in self.listeners:
            listener.measured(key, values)

    def again(self, stage: Stage, reason: str) -> None:
        for listener in self.listeners:
            listener.again(stage, reason)

    def finished(self, stage: Stage, seconds: float, error: str | None) -> None:
        for listener in self.listeners:
            listener.finished(stage, seconds, error)


@dataclass
class Stop:
    """A wish to end: what runs is finished, nothing new is begun.

    Attributes:
        running: whether an executor runs stages now; without one there is nothing to finish.
        wake: called when the wish comes; safe to call in a signal handler.
        ends_at: the time (seconds since the epoch) at which the wish comes by itself; None for never.
    """

    asked: bool = False
    running: bool = False
    wake: Callable[[], None] | None = None
    ends_at: float | None = None

    def ask(self) -> None:
        self.asked = True
        if self.wake is not None:
            self.wake()

    def ends(self, busy: bool) -> bool:
        """Return whether an executor ends now; ask for it when `ends_at` is reached.

        Args:
            busy: whether stages run, which are waited for: without limit, but only `WRAP_UP_SECONDS` beyond `ends_at`.
        """
        late = None if self.ends_at is None else time.time() - self.ends_at
        if late is not None and late >= 0 and not self.asked:
            self.ask()
        return self.asked and (not busy or (late is not None and late >= WRAP_UP_SECONDS))


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        ran: keys of stages made in this run.
        failed: key -> the reason in one line.
        skipped: key -> the failed stage it needed.
        stopped: whether it was asked to end before all was done.
        mirror: why a worker left the mirror out, the first to do so; None while none did.
    """

    ran: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    stopped: bool = False
    mirror: str | None = None

    def add(self, later: Outcome) -> None:
        """Add the outcome of more stages, which were run after these."""
        self.ran |= later.ran
        self.failed |= later.failed
        self.skipped |= later.skipped
        self.stopped = later.stopped
        self.mirror = self.mirror or later.mirror

    def of(self, graph: Graph) -> Outcome:
        """Return the outcome of a graph's own stages."""
        return replace(
            self,
            ran=self.ran & graph.stages.keys(),
            failed={key: reason for key, reason in self.failed.items() if key in graph.stages},
            skipped={key: parent for key, parent in self.skipped.items() if key in graph.stages},
        )

    def forget(self, keys: Set[str]) -> set[str]:
        """Forget the stages among `keys` that were not made, so that they run again; return them."""
        unmade = {key for key in (*self.failed, *self.skipped) if key in keys}
        self.failed = {key: reason for key, reason in self.failed.items() if key not in unmade}
        self.skipped = {key: parent for key, parent in self.skipped.items() if key not in unmade}
        return unmade


class Executor(Protocol):
    """Makes the stages of a graph."""

    def width(self) -> int:
        """Return how many stages that use a model it runs at a time."""
        ...

    def run(self, graph: Graph, present: set[str], events: Events) -> Outcome:
        """Make every stage of `graph` that is not in `present`, parents first.

        Raises:
            StoreWriteError: nothing can be written any more.
        """
        ...


class WorkerMessage(TypedDict, total=False):
    """One line of JSON that a process of a run writes to its parent.

    Attributes:
        event: `ready` once a worker can run stages; `progress`; `measured`; `finished`, also where the stage failed; `stopped`
            where it kept its state because the run's time is over; `unwritable` where nothing can be written any more; `gone`
            where the process has ended, which its parent adds.
        done, total, note: of `progress`.
        values: of `measured`.
        error: why the stage failed; None where it did not.
        ours: whether the error is the harness's own, whose text is for users.
        mirror: why the mirror was left out; None where it was not.
        log: the end of the stage's output, where no file keeps it.
        facts, earlier_seconds, stands_for: of the draft that the first process of a training wrote.
    """

    event: Required[Literal["ready", "progress", "measured", "finished", "stopped", "unwritable", "gone"]]
    done: int
    total: int
    note: str
    values: LiveValues
    error: str | None
    ours: bool
    mirror: str | None
    log: str
    facts: dict[str, Any]
    stands_for: dict[str, str]
    earlier_seconds: float
