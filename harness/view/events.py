"""The state of a run as its `events.jsonl` tells it: stages, curves, means, samples and messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.view.summary import Shown

MOST_POINTS = 400  # of a curve: from twice as many every second one is dropped
MOST_SAMPLES = 12
MOST_MESSAGES = 200
LATEST_STAGES = 30


class SampleText(BaseModel):
    """A response that was drawn, and the end of its prompt."""

    prompt: Shown
    response: Shown


class PlannedRow(BaseModel):
    """A row at a seed, with the keys of the stages that train and evaluate it."""

    row: Shown
    seed: int
    training: list[str] = []
    evaluations: dict[str, list[str]] = {}

    @property
    def keys(self) -> list[str]:
        """Every stage that the row names."""
        return [*self.training, *(key for keys in self.evaluations.values() for key in keys)]


class Event(BaseModel):
    """One line. Which fields it has depends on `event`; those of events that this version does not know are passed over."""

    model_config = ConfigDict(allow_inf_nan=False)

    event: str
    time: str = ""
    name: Shown = ""
    key: str = ""
    kind: str = ""
    title: Shown = ""
    reason: Shown = ""
    error: Shown | None = None
    seconds: float = 0.0
    state: Shown = ""
    note: Shown = ""
    points: list[dict[str, float]] = []
    scores: dict[str, float] = {}
    scored: int = 0
    sample: SampleText | None = None
    rows: list[PlannedRow] = []
    present: list[str] = []


class Sample(BaseModel):
    """A sample with the title of the stage that drew it."""

    title: str
    time: str
    prompt: str
    response: str


class Ended(BaseModel):
    """A stage that ended; `error` says why it failed."""

    title: str
    kind: str
    time: str
    seconds: float
    error: str | None


class JournalMessage(BaseModel):
    """A line of the run's log; `grave` for a failure."""

    time: str
    text: str
    grave: bool = False


class Means(BaseModel):
    """Means by metric over so many scores."""

    scores: dict[str, float]
    scored: int


@dataclass
class Curve:
    """The points of one training stage.

    Attributes:
        version: grows with every change.
    """

    title: str
    points: list[dict[str, float]] = field(default_factory=list)
    version: int = 0

    def extend(self, points: Iterable[dict[str, float]]) -> None:
        """Add points. A training that begins again, or resumes, repeats steps: they replace what was there."""
        fresh = [point for point in points if "step" in point]
        if not fresh:
            return
        kept = [point for point in self.points if point["step"] < fresh[0]["step"]]
        self.points = [*kept, *fresh]
        if len(self.points) >= 2 * MOST_POINTS:
            self.points = self.points[::2]


@dataclass
class RunEvents:
    """Everything that events said so far, of all runs in the folder: stages of equal keys are the same work.

    Attributes:
        began: time of the last run's start.
        stages_ended: by key, those that did not fail.
        seconds: of all stages that ended, by kind.
        version: grows with every event.
        unreadable: lines that are no events.
    """

    began: str = ""
    ended: dict[str, Ended] = field(default_factory=dict)
    latest: deque[Ended] = field(default_factory=lambda: deque(maxlen=LATEST_STAGES))
    seconds: dict[str, float] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    means: dict[str, Means] = field(default_factory=dict)
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=MOST_SAMPLES))
    messages: deque[JournalMessage] = field(default_factory=lambda: deque(maxlen=MOST_MESSAGES))
    rows: list[PlannedRow] = field(default_factory=list)
    present: set[str] = field(default_factory=set)
    version: int = 0
    unreadable: int = 0

    def read(self, line: bytes) -> None:
        """Take one line of the file."""
        self.version += 1
        try:
            self._take(Event.model_validate_json(line))
        except ValidationError:
            self.unreadable += 1

    def is_done(self, key: str) -> bool:
        """Return whether a stage is finished, or was in the store when the run began."""
        return key in self.present or (key in self.ended and self.ended[key].error is None)

    def failure(self, key: str) -> str | None:
        """Return why a stage failed."""
        return self.ended[key].error if key in self.ended else None

    @property
    def rows_done(self) -> int:
        """The number of rows and seeds that are complete."""
        return sum(all(map(self.is_done, row.keys)) for row in self.rows)

    def _take(self, event: Event) -> None:
        match event.event:
            case "run_started":
                self.began = event.time
                # What failed before is tried again.
                self.ended = {key: ended for key, ended in self.ended.items() if ended.error is None}
                self._say(event, f"run started: {event.name}")
            case "run_extended":
                self._say(event, "run extended: another seed, or more prompts")
            case "rows_planned":
                self.rows = event.rows
                self.present |= set(event.present)
            case "stage_started":
                self._say(event, f"started: {event.title}")
            case "stage_again":
                self._say(event, f"starts once more: {event.title} ({event.reason})", grave=True)
            case "stage_measured":
                self._measure(event)
            case "stage_finished":
                self._finish(event)
            case "run_ended":
                self._say(event, f"run ended: {event.state} {event.note}".strip(), grave=event.state != "finished")

    def _measure(self, event: Event) -> None:
        if event.points:
            curve = self.curves.setdefault(event.key, Curve(event.title))
            curve.extend(event.points)
            curve.version = self.version
        if event.scores:
            self.means[event.key] = Means(scores=event.scores, scored=event.scored)
        if event.sample is not None:
            text = event.sample
            self.samples.append(Sample(title=event.title, time=event.time, prompt=text.prompt, response=text.response))

    def _finish(self, event: Event) -> None:
        ended = Ended(title=event.title, kind=event.kind, time=event.time, seconds=event.seconds, error=event.error)
        self.ended[event.key] = ended
        self.latest.append(ended)
        self.seconds[event.kind] = self.seconds.get(event.kind, 0.0) + event.seconds
        failed = f"failed: {event.title}: {event.error}"
        self._say(event, failed if event.error else f"finished: {event.title} ({event.seconds:.1f} s)", grave=bool(event.error))

    def _say(self, event: Event, text: str, grave: bool = False) -> None:
        self.messages.append(JournalMessage(time=event.time, text=text, grave=grave))
