"""One run as the page shows it: a snapshot of its files, read again as they change."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.board.board import Board
from harness.board.files import BOARD
from harness.errors import DataError, HarnessError
from harness.run.executors.journal import EVENTS, RUNNING, STATUS, read_status
from harness.view.events import Ended, JournalMessage, PlannedRow, RunEvents, Sample
from harness.view.provisional import Provisional
from harness.view.summary import MetricName, ScoreCell, Shown, Summary, SummaryRow, summarise
from harness.view.tail import Tail

MOST_METRICS = 6  # columns of means so far, while there is no provisional board that says which metrics are primary


class StageUnderWay(BaseModel):
    """A stage that runs now, or ran when its run was killed."""

    model_config = ConfigDict(allow_inf_nan=False)

    title: Shown
    kind: str = ""
    since: str = ""
    attempt: int = 1
    done: int = 0
    total: int = 0
    note: Shown = ""


class FailedStage(BaseModel):
    """A stage that failed, and why."""

    title: Shown
    reason: Shown


class Status(BaseModel):
    """`status.json`, as `read_status` gives it."""

    model_config = ConfigDict(allow_inf_nan=False)

    name: Shown
    state: str
    began: str
    updated: str
    stages: int
    cached: int
    done: int
    work: float
    work_done: float
    running: list[StageUnderWay] = []
    failed: list[FailedStage] = []
    note: Shown = ""
    seconds_left: float | None = None


class RowLine(BaseModel):
    """A row of the table.

    Attributes:
        state: `complete` (on the board at all its seeds), `failed`, `running` (some of its stages are done) or `waiting`.
        done, of: its own stages.
        seeds: that are complete, `planned` in all.
        cells: in the order of the metrics; means so far for rows that are not on the board yet.
    """

    label: str
    state: str
    kind: str = ""
    baseline: bool = False
    failed: str | None = None
    done: int = 0
    of: int = 0
    seeds: int = 0
    planned: int = 0
    seconds: float | None = None
    usd: float | None = None
    cells: list[ScoreCell | None]


class CurveLine(BaseModel):
    """A line of a figure: the keys of its stages in their order, one for each round."""

    seed: int | None
    keys: list[str]


class CurvesOfRow(BaseModel):
    """The training curves of a row, a line for each seed."""

    title: str
    lines: list[CurveLine]


class Snapshot(BaseModel):
    """Everything about a run but the points of its curves.

    Attributes:
        epoch: changes where the events' file is another one: curves from before no longer hold.
        provisional: whether the rows' scores are of finished rows only, while others are still to come.
        board: whether there is a page of the board, final or provisional.
        board_problem: why there is none.
        seconds: of compute by kind of stage.
    """

    folder: str
    epoch: int
    status: Status | None
    problem: str = ""
    provisional: bool
    board: bool
    board_problem: str = ""
    sentences: list[str] = []
    warnings: list[str] = []
    metrics: list[MetricName] = []
    rows: list[RowLine] = []
    figures: list[CurvesOfRow] = []
    samples: list[Sample] = []
    latest: list[Ended] = []
    messages: list[JournalMessage] = []
    seconds: dict[str, float] = {}
    unreadable: int = 0


class CurvePoints(BaseModel):
    """The points of one training stage."""

    key: str
    points: list[dict[str, float]]


@dataclass
class LiveRun:
    """A run's folder, followed. Its methods may be called from several threads.

    Attributes:
        provisional: the last provisional board; None before the first.
    """

    folder: Path
    name: str
    provisional: Provisional | None = None
    events: RunEvents = field(default_factory=RunEvents)
    epoch: int = 0
    _final: tuple[tuple[int, int], Summary | str] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._tail = Tail(self.folder / EVENTS)

    def refresh(self) -> Snapshot:
        """Read what is new, and return the run as it is now."""
        with self._lock:
            self._follow()
            status, problem = self._status()
            final = self._read_final() if self._has_final_board(status) else None
            return self._snapshot(status, problem, final)

    def curves(self, since: int) -> tuple[int, list[CurvePoints]]:
        """Return the version of the events, and the curves that changed after the version `since`."""
        with self._lock:
            changed = [(key, curve) for key, curve in self.events.curves.items() if curve.version > since]
            return self.events.version, [CurvePoints(key=key, points=curve.points) for key, curve in changed]

    def _follow(self) -> None:
        while True:
            anew, lines = self._tail.read()
            if anew:
                self.events, self.epoch = RunEvents(), self.epoch + 1
            for line in lines:
                self.events.read(line)
            if not lines:
                return

    def _status(self) -> tuple[Status | None, str]:
        if not (self.folder / STATUS).is_file():
            return None, ""
        try:
            return Status.model_validate(read_status(self.folder)), ""
        except HarnessError as error:
            return None, str(error)
        except ValidationError as error:
            return None, f"{STATUS} cannot be read: {error.errors()[0]['msg']}"

    def _has_final_board(self, status: Status | None) -> bool:
        """Return whether the board is of the last run in the folder, and not of one before it."""
        board = self.folder / BOARD
        if not board.is_file():
            return False
        if status is None or status.state == "finished":
            return True
        # A copied or imported board is newer than a run that was stopped.
        return status.state != RUNNING and board.stat().st_mtime > (self.folder / STATUS).stat().st_mtime

    def _read_final(self) -> Summary | str:
        """Return the board in short, or why it cannot be read; read again only where the file has changed."""
        stat = (self.folder / BOARD).stat()
        stamp = (stat.st_mtime_ns, stat.st_size)
        if self._final is None or self._final[0] != stamp:
            try:
                summary: Summary | str = summarise(Board.read(self.folder, examples=False))
            except DataError as error:
                summary = str(error)
            self._final = stamp, summary
        return self._final[1]

    def _snapshot(self, status: Status | None, problem: str, final: Summary | str | None) -> Snapshot:
        events = self.events
        provisional = self.provisional if final is None else None
        summary = final if isinstance(final, Summary) else provisional.summary if provisional else None
        metrics = summary.metrics if summary else self._measured_metrics()
        why = final if isinstance(final, str) else provisional.problem if provisional else ""
        return Snapshot(
            folder=self.name,
            epoch=self.epoch,
            status=status,
            problem=problem,
            provisional=final is None,
            board=summary is not None,
            board_problem=why,
            sentences=list(summary.sentences) if summary else [],
            warnings=list(summary.warnings) if summary else [],
            metrics=metrics,
            rows=self._rows(summary, metrics, provisional=final is None),
            figures=self._figures(),
            samples=list(events.samples)[::-1],
            latest=list(events.latest)[::-1],
            messages=list(events.messages)[::-1],
            seconds=events.seconds,
            unreadable=events.unreadable,
        )

    def _measured_metrics(self) -> list[MetricName]:
        """Return the metrics that have means so far, those of each evaluator's first ones first."""
        keys: dict[str, None] = {}
        for row in self.events.rows:
            for evaluator, stages in row.evaluations.items():
                for stage in stages:
                    if means := self.events.means.get(stage):
                        keys |= dict.fromkeys(f"{evaluator}/{metric}" for metric in means.scores)
        return [MetricName(key=key, name=key.partition("/")[2]) for key in [*keys][:MOST_METRICS]]

    def _rows(self, summary: Summary | None, metrics: Sequence[MetricName], provisional: bool) -> list[RowLine]:
        """Return the board's rows in its order, then the others as they were planned."""
        planned: dict[str, list[PlannedRow]] = {}
        for row in self.events.rows:
            planned.setdefault(row.row, []).append(row)
        listed = {row.label: row for row in summary.rows} if summary else {}
        lines = [self._listed(row, planned.get(label, []), provisional) for label, row in listed.items()]
        return lines + [self._unlisted(label, rows, metrics) for label, rows in planned.items() if label not in listed]

    def _listed(self, row: SummaryRow, planned: Sequence[PlannedRow], provisional: bool) -> RowLine:
        partial = provisional and row.seeds < len(planned)  # on a final board a row may have got fewer seeds than others
        return RowLine(
            label=row.label,
            state="failed" if row.failed else "running" if partial else "complete",
            kind=row.kind,
            baseline=row.baseline,
            failed=row.failed,
            seeds=row.seeds,
            planned=max(len(planned), row.seeds),
            seconds=row.seconds,
            usd=row.usd,
            cells=row.scores,
        )

    def _unlisted(self, label: str, planned: Sequence[PlannedRow], metrics: Sequence[MetricName]) -> RowLine:
        keys = [key for row in planned for key in row.keys]
        done = sum(map(self.events.is_done, keys))
        failed = next((reason for key in keys if (reason := self.events.failure(key))), None)
        return RowLine(
            label=label,
            state="failed" if failed else "running" if done else "waiting",
            failed=failed,
            done=done,
            of=len(keys),
            seeds=sum(all(map(self.events.is_done, row.keys)) for row in planned),
            planned=len(planned),
            cells=[self._so_far(planned, metric.key) for metric in metrics],
        )

    def _so_far(self, planned: Sequence[PlannedRow], key: str) -> ScoreCell | None:
        """Return the mean over the seeds that have one so far."""
        evaluator, _, metric = key.partition("/")
        means = [
            (means.scores[metric], means.scored)
            for row in planned
            for stage in row.evaluations.get(evaluator, ())
            if (means := self.events.means.get(stage)) is not None and metric in means.scores
        ]
        return ScoreCell(mean=fmean(mean for mean, _ in means), scored=sum(n for _, n in means)) if means else None

    def _figures(self) -> list[CurvesOfRow]:
        """Return a figure for each row that has points, then one for each training that no row names, such as SFT."""
        curves, figures = self.events.curves, dict[str, list[CurveLine]]()
        named: set[str] = set()
        for row in self.events.rows:
            keys = [key for key in row.training if key in curves]
            named |= set(keys)
            if keys:
                figures.setdefault(row.row, []).append(CurveLine(seed=row.seed, keys=keys))
        for key, curve in curves.items():
            if key not in named:
                figures.setdefault(curve.title.partition(" · ")[0], []).append(CurveLine(seed=None, keys=[key]))
        return [CurvesOfRow(title=title, lines=lines) for title, lines in figures.items()]
