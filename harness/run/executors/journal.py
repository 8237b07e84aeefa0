"""The journal of a run in its folder: `status.json`, replaced whole as the run goes, and `events.jsonl`, one line an event.

    status.json    how far the run is; read by `harness status`, also from another machine that shares the folder
    events.jsonl   every start and end of a stage of every run in this folder, and intermediate results, thinned out; the same
                   lines as `--log-json`

They are for people and scripts: a journal that cannot be written never stops a run.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import psutil

from harness.config.problems import hidden, quoted
from harness.errors import HarnessError, InterruptedRunError, TimeOverError
from harness.interrupts import before_the_end, ended_by, ending
from harness.run.executors.events import Events, LiveValues
from harness.run.graph import Graph, Stage
from harness.store.atomic import write_atomically
from harness.store.reading import read_plain

STATUS, EVENTS = "status.json", "events.jsonl"
OFTEN_SECONDS = 1.0  # between two writings of progress
DENSE_POINTS = 200  # of a curve are written as they come; of the next as many every second one, then every fourth, and so on
LATE_SECONDS, LATER = 2.0, 1.3  # between a stage's first two samples, and two means; each later one waits longer by the factor
DIGITS = 6  # of numbers of intermediate results
SILENT_SECONDS = 120.0  # a run on another machine that says nothing for so long is doubted
RUNNING = "running"


def now() -> str:
    """The time in UTC, as written everywhere."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class _Thinned:
    """The intermediate results of one stage that go into the journal: ever fewer as it goes on, so that the file stays small.

    Attributes:
        held: the last means, if they were passed over: they are written when the stage ends.
    """

    held: LiveValues = field(default_factory=dict)  # type: ignore[assignment]  # a TypedDict without required keys
    _points: int = 0
    _next_step: float = 0.0
    _due: dict[str, tuple[float, float]] = field(default_factory=dict)  # what -> when the next is due, and the pause after it

    def chosen(self, values: LiveValues) -> LiveValues:
        """Return the part of `values` to write now."""
        part: LiveValues = {}
        if points := [_point(point) for point in values.get("points", ()) if self._is_next(point["step"])]:
            part["points"] = points
        if "scores" in values:
            means: LiveValues = {"scores": rounded(values["scores"]), "scored": values["scored"]}
            self.held = {} if self._is_due("scores") else means
            part |= {} if self.held else means
        if "sample" in values and self._is_due("sample"):
            sample = values["sample"]
            part["sample"] = {"prompt": hidden(sample["prompt"]), "response": hidden(sample["response"])}
        return part

    def _is_next(self, step: float) -> bool:
        if step < self._next_step:
            return False
        self._points += 1
        self._next_step = step + 2 ** (self._points // DENSE_POINTS)
        return True

    def _is_due(self, name: str) -> bool:
        time_due, pause = self._due.get(name, (0.0, LATE_SECONDS))
        if time.monotonic() < time_due:
            return False
        self._due[name] = time.monotonic() + pause, pause * LATER
        return True


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Return numbers with `DIGITS` significant digits."""
    return {name: float(f"{value:.{DIGITS}g}") for name, value in values.items()}


def _point(point: Mapping[str, float]) -> dict[str, float]:
    return {**rounded(point), "step": point["step"]}


@dataclass
class Journal(Events):
    """Writes both files.

    Args:
        folder: of the run.
        name: of the comparison.
        streams: where event lines go beside the file, e.g. standard error.
    """

    folder: Path
    name: str
    streams: Sequence[TextIO] = ()
    state: dict[str, Any] = field(default_factory=dict)
    _running: dict[str, dict[str, Any]] = field(default_factory=dict)
    _starts: Counter[str] = field(default_factory=Counter)
    _weights: Mapping[str, float] = field(default_factory=dict)
    _thinned: dict[str, _Thinned] = field(default_factory=dict)
    _progress_at: float = 0.0

    def begin(self, graph: Graph, present: set[str]) -> None:
        """The run starts; `present` need not run."""
        self._weights = {stage.key: stage.weight for stage in graph if stage.key not in present}
        self.state = {
            "version": 1,
            "name": self.name,
            "state": RUNNING,
            "machine": platform.node(),
            "process": os.getpid(),
            "born": psutil.Process().create_time(),
            "began": now(),
            "stages": len(self._weights),
            "cached": len(present),
            "done": 0,
            "work": sum(self._weights.values()),
            "work_done": 0.0,
            "failed": [],
        }
        self._log("run_started", name=self.name, stages=len(self._weights), cached=len(present))
        self._log_rows(graph, present)
        self._write()

    def extend(self, graph: Graph, stages: Collection[Stage], present: set[str]) -> None:
        """Add the stages of a further seed, or of further prompts, to a run; `present` need not run.

        Args:
            graph: holds the rows, those before among them.
        """
        fresh = {stage.key: stage.weight for stage in stages if stage.key not in present}
        self._weights = {**self._weights, **fresh}
        self.state["stages"] += len(fresh)
        self.state["cached"] += len(stages) - len(fresh)
        self.state["work"] += sum(fresh.values())
        self._log("run_extended", stages=len(fresh), cached=len(stages) - len(fresh))
        self._log_rows(graph, present)
        self._write()

    def _log_rows(self, graph: Graph, present: set[str]) -> None:
        """Log which stages train and evaluate each row, and those of them that are in the store."""
        rows = [
            {"row": row.label, "seed": row.seed, "training": row.training, "evaluations": row.evaluations} for row in graph.rows
        ]
        named = {key for row in graph.rows for keys in (row.training, *row.evaluations.values()) for key in keys}
        if rows:
            self._log("rows_planned", rows=rows, present=sorted(named & present))

    def end(self, state: str, note: str = "") -> None:
        """The run is over: `finished`, `failed`, `interrupted` or `terminated`, and why."""
        if self.state:
            self._running.clear()
            self.state |= {"state": state, "note": note}
            self._log("run_ended", state=state, note=note)
            self._write()

    @contextmanager
    def told(self) -> Iterator[None]:
        """Note how the run ended when the block ends, also where a signal ends the process there and then.

        Raises:
            SystemExit: a signal asked the run to end, and a library swallowed that, or made another error of it.
        """
        with before_the_end(self._end_by_signal):
            try:
                yield
                if ended_by() is None:
                    self.end("finished")
                    return
            except BaseException as error:
                if ended_by() is None:
                    stopped = isinstance(error, KeyboardInterrupt | InterruptedRunError | SystemExit)
                    silent = stopped and not isinstance(error, TimeOverError)
                    self.end("interrupted" if stopped else "failed", "" if silent else quoted(str(error)))
                    raise
            self._end_by_signal()
            raise SystemExit(128 + (ended_by() or 0))

    def _end_by_signal(self) -> None:
        self.end(ending(ended_by() or signal.SIGTERM))

    def started(self, stage: Stage) -> None:
        self._starts[stage.key] += 1
        self._running[stage.key] = {
            "title": stage.title,
            "kind": stage.kind,
            "since": now(),
            "attempt": self._starts[stage.key],
        }
        self._log("stage_started", key=stage.key, kind=stage.kind, title=stage.title)
        self._write()

    def progress(self, key: str, done: int, total: int, note: str) -> None:
        if key in self._running:
            self._running[key] |= {"done": done, "total": total, "note": note}
        if time.monotonic() - self._progress_at >= OFTEN_SECONDS:
            self._progress_at = time.monotonic()
            self._write()

    def measured(self, key: str, values: LiveValues) -> None:
        if key in self._running:
            self._log_values(key, self._thinned.setdefault(key, _Thinned()).chosen(values))

    def _log_values(self, key: str, values: LiveValues) -> None:
        if values:
            running = self._running[key]
            self._log("stage_measured", key=key, kind=running["kind"], title=running["title"], **values)

    def again(self, stage: Stage, reason: str) -> None:
        self._thinned.pop(stage.key, None)
        self._running.pop(stage.key, None)
        self._log("stage_again", key=stage.key, kind=stage.kind, title=stage.title, reason=reason)
        self._write()

    def finished(self, stage: Stage, seconds: float, error: str | None) -> None:
        if stage.key in self._running and (thinned := self._thinned.pop(stage.key, None)) is not None:
            self._log_values(stage.key, thinned.held)
        self._running.pop(stage.key, None)
        self.state["work_done"] += self._weights.get(stage.key, 0.0)
        if error is None:
            self.state["done"] += 1
        else:
            self.state["failed"].append({"title": stage.title, "reason": error})
        ended = {"seconds": round(seconds, 3), "error": error}
        self._log("stage_finished", key=stage.key, kind=stage.kind, title=stage.title, **ended)
        self._write()

    def _log(self, event: str, **said: Any) -> None:
        line = _json({"time": now(), "event": event, **said}) + "\n"
        with contextlib.suppress(OSError), (self.folder / EVENTS).open("a", encoding="utf-8") as file:
            file.write(line)
        for stream in self.streams:
            with contextlib.suppress(OSError):
                stream.write(line)
                stream.flush()

    def _write(self) -> None:
        said = {**self.state, "running": [{"key": key, **told} for key, told in self._running.items()], "updated": now()}
        with contextlib.suppress(OSError):  # a run goes on without its journal
            write_atomically(self.folder / STATUS, _json(said), durable=False)


def _json(said: Mapping[str, Any]) -> str:
    """In characters that a file in UTF-8 holds: half a surrogate pair is escaped, as JSON escapes it."""
    return json.dumps(said, ensure_ascii=False).encode("utf-8", "backslashreplace").decode("utf-8")


def read_status(folder: Path) -> dict[str, Any]:
    """How a run is, with `state` as far as can be told from here: a run whose process is gone is `killed`, and one on another
    machine that has been silent for long is `silent`. `seconds_left` is there once there is enough to tell.

    Raises:
        HarnessError: no run has written its status there.
    """
    place = folder / STATUS
    try:
        said: dict[str, Any] = json.loads(read_plain(place))
        silent = (datetime.now(UTC) - datetime.fromisoformat(said["updated"])).total_seconds()
        spent = (datetime.fromisoformat(said["updated"]) - datetime.fromisoformat(said["began"])).total_seconds()
        work, work_done = float(said["work"]), float(said["work_done"])
        if said["state"] == RUNNING:
            said["state"] = _state(said, silent)
    except FileNotFoundError:
        raise HarnessError(f"no run at {folder}: give the folder of a run, runs/<name> unless --out said otherwise") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HarnessError(f"{place} is no status of a run ({error}): the next run there writes a new one") from error
    if said["state"] == RUNNING and work_done > 0.05 * work:
        said["seconds_left"] = round(spent * (work - work_done) / work_done)
    return said


def _state(said: Mapping[str, Any], silent: float) -> str:
    if said["machine"] != platform.node():
        return "silent" if silent > SILENT_SECONDS else RUNNING
    try:
        process = psutil.Process(said["process"])
        # A killed process keeps its number until its parent, such as a busy shell, asks how it ended.
        lives = abs(process.create_time() - said["born"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        lives = False
    return RUNNING if lives else "killed"
