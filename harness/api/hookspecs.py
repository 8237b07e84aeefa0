"""The hooks. Registration hooks take nothing and return a list, so that everything can be listed and checked before a run;
observer hooks are called in the main process as the run goes, and a failing observer never stops it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from harness.api.interfaces import Analysis, Backend, DataBuilder, Evaluator, Importer, Objective, Source, Trainer
    from harness.api.methods import Method

PROJECT = "harness"
API_VERSION = 1
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def harness_data_builders() -> list[type[DataBuilder]]:  # type: ignore[empty-body]
    """Data builder classes."""


@hookspec
def harness_objectives() -> list[type[Objective]]:  # type: ignore[empty-body]
    """Objective classes."""


@hookspec
def harness_evaluators() -> list[type[Evaluator]]:  # type: ignore[empty-body]
    """Evaluator classes."""


@hookspec
def harness_backends() -> list[type[Backend]]:  # type: ignore[empty-body]
    """Generation backend classes."""


@hookspec
def harness_sources() -> list[type[Source]]:  # type: ignore[empty-body]
    """Source classes."""


@hookspec
def harness_importers() -> list[type[Importer]]:  # type: ignore[empty-body]
    """Importer classes: readers of other tools' results."""


@hookspec
def harness_methods() -> list[Method]:  # type: ignore[empty-body]
    """Methods: named pairs of a builder and an objective."""


@hookspec
def harness_analyses() -> list[type[Analysis]]:  # type: ignore[empty-body]
    """Analysis classes: a paper's questions, for `harness analyze`."""


@hookspec
def harness_trainers() -> list[type[Trainer]]:  # type: ignore[empty-body]
    """Trainer classes: what fills a row with a trained model."""


@hookspec
def harness_run_started(
    name: str,
    weights: dict[str, float],
    cached: int,
    interactive: bool,
    folder: Path,
    tracking: tuple[str, ...],
    display: str,
    workers: int,
) -> None:
    """A comparison starts: the stages that will run, by key, with how long each takes against the others; how many the
    store already holds; whether a person is watching a terminal; the run's folder; the trackers that `--track` names; how
    progress is shown (`bar`, `lines` or `none`); and how many stages run at a time (0: as many as the cluster allows)."""


@hookspec
def harness_run_extended(weights: dict[str, float], cached: int) -> None:
    """A comparison that adds seeds or prompts where they decide goes on: more stages will run, and more are in the store."""


@hookspec
def harness_stage_started(key: str, title: str) -> None:
    """A stage starts on some worker."""


@hookspec
def harness_stage_progress(key: str, done: int, total: int, note: str) -> None:
    """A stage has come this far."""


@hookspec
def harness_training_points(row: str, seed: int, points: list[dict[str, float]]) -> None:
    """A row's training has come further: the next points of its curve (`step`, counted from 1 through all rounds, `loss` and
    what the objective measures), about once a second. Points of rounds from the store are in the board alone."""


@hookspec
def harness_row_scores(row: str, seed: int, means: dict[str, float], scored: int) -> None:
    """A row is being evaluated: the means by metric (`evaluator/metric`) over so many scores, about once a second; the last
    ones are of all scores at this seed."""


@hookspec
def harness_stage_finished(key: str, title: str, seconds: float, error: str | None) -> None:
    """A stage ended; `error` is the reason where it failed."""


@hookspec
def harness_run_finished() -> None:
    """The run is over, however it ended: no more stages will run, and where there is a board it was written."""


@hookspec
def harness_board_ready(board: dict[str, Any], folder: Path) -> None:
    """The board was written to `folder`."""
