"""A comparison in an experiment tracker: stages, training curves and scores as they come; then the board's scores.

A tracker takes part where `--track` names it. One that is not installed or cannot start is an error before anything is
computed. One that fails later is left out of the rest of the run, as every observer is, and the board says so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from harness import hookimpl

NOT_METRICS = {"step", "round"}


class Tracker(ABC):
    """The base of trackers; `tracker` is the name that `--track` takes."""

    tracker: ClassVar[str]
    package: ClassVar[str]  # the module that it imports

    def __init__(self) -> None:
        self.active = False
        self.ended = 0
        self.failed = 0
        self.seconds = 0.0
        self.logged: dict[str, int] = {}  # series of a training -> its last step so far

    def missing(self) -> str | None:
        """Return why it cannot take part, with the fix; None where its package is installed."""
        try:
            installed = find_spec(self.package) is not None
        except ValueError:  # a module without a spec, as a test's double
            installed = True
        return None if installed else f"{self.package} is not installed: pip install 'alignment-harness[{self.tracker}]'"

    @abstractmethod
    def open(self, name: str, folder: Path) -> None:
        """Begin a run."""

    @abstractmethod
    def log(self, values: Mapping[str, float], step: int) -> None:
        """Values at a step of their own series."""

    def log_all(self, points: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Values at several steps, in order; for trackers that take them in one request."""
        for step, values in points:
            self.log(values, step)

    @abstractmethod
    def close(self, board: Mapping[str, Any]) -> None:
        """Keep the config of a board, and end the run."""

    @abstractmethod
    def abandon(self) -> None:
        """End a run that has no board."""

    @hookimpl
    def harness_run_started(self, name: str, folder: Path, tracking: tuple[str, ...]) -> None:
        self.active = self.tracker in tracking
        if self.active:
            self.logged = {}
            self.open(name, folder)

    @hookimpl
    def harness_training_points(self, row: str, seed: int, points: list[dict[str, float]]) -> None:
        if self.active:
            self._log_curve(curve_name(row, seed), points)

    @hookimpl
    def harness_row_scores(self, row: str, seed: int, means: dict[str, float], scored: int) -> None:
        if self.active:
            self.log({f"score/{metric}/{row}/seed {seed}": mean for metric, mean in means.items()}, scored)

    def _log_curve(self, series: str, points: Sequence[Mapping[str, float]]) -> None:
        """Log the points of a training that were not logged yet."""
        fresh = [point for point in points if point["step"] > self.logged.get(series, 0)]
        if fresh:
            self.logged[series] = int(fresh[-1]["step"])
            self.log_all([(int(point["step"]), _named(series, point)) for point in fresh])

    @hookimpl
    def harness_stage_finished(self, seconds: float, error: str | None) -> None:
        if self.active:
            self.ended += 1
            self.failed += error is not None
            self.seconds += seconds
            values = {"stages/ended": self.ended, "stages/failed": self.failed, "stages/seconds": self.seconds}
            self.log(values, self.ended)

    @hookimpl
    def harness_board_ready(self, board: dict[str, Any]) -> None:
        if not self.active:
            return
        for row in board["rows"]:
            for seed, points in row.get("curves", {}).items():
                self._log_curve(curve_name(row["method"], seed), points)
        for row in board["rows"]:
            self.log(scores(row), 0)
        self.close(board)
        self.active = False

    @hookimpl
    def harness_run_finished(self) -> None:
        if self.active:
            self.active = False
            self.abandon()


def curve_name(row: str, seed: int | str) -> str:
    """Return the name of a training's series."""
    return f"train/{row}/seed {seed}"


def _named(series: str, point: Mapping[str, float]) -> dict[str, float]:
    return {f"{series}/{name}": value for name, value in point.items() if name not in NOT_METRICS}


def scores(row: Mapping[str, Any]) -> dict[str, float]:
    """A row's means, and its differences to the baseline with their bounds."""
    found: dict[str, float] = {}
    for key, score in row["scores"].items():
        found[f"score/{key}/{row['method']}"] = score["mean"]
        if delta := score.get("delta"):
            found |= {f"delta/{key}/{row['method']}/{name}": delta[name] for name in ("mean", "low", "high")}
    return found
