"""Calling observers: each on its own, so that a failing one never stops the run."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias

from harness.api.registry import Registry
from harness.config.problems import quoted
from harness.errors import HarnessError, did_you_mean
from harness.run.executors.events import Events, LiveValues
from harness.run.graph import Graph, Stage

# How progress is shown: a bar that a terminal or a notebook redraws, plain lines on standard error, or not at all.
Display: TypeAlias = Literal["bar", "lines", "none"]


def display_here() -> Display:
    """Return `bar` where standard error is a terminal, or in a notebook that can redraw; `lines` elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    # In a notebook rich redraws with ipywidgets, and without them shows nothing before the end.
    redraws = find_spec("ipywidgets") is not None if console.is_jupyter else console.is_terminal
    return "bar" if redraws else "lines"


@dataclass(frozen=True)
class _Training:
    """A row's training at a seed in one round; `earlier` are the training stages of the rounds before."""

    row: str
    seed: int
    earlier: tuple[str, ...]


class Observers(Events):
    """The observer hooks of every plugin, as an executor's events."""

    def __init__(self, registry: Registry) -> None:
        self._manager = registry.manager
        self.failures: dict[str, str] = {}
        # By stage: the rows whose training or evaluation it is. Rows that need the same stage share it.
        self._trained: dict[str, list[_Training]] = {}
        self._evaluated: dict[str, list[tuple[str, int, str]]] = {}
        self._steps: dict[str, int] = {}  # training stage -> the last step that was told

    def call(self, hook: str, **arguments: Any) -> None:
        """Call every implementation of a hook; remember the first failure of each plugin and leave that plugin out."""
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            if implementation.plugin_name in self.failures:
                continue
            try:
                implementation.function(*(arguments[name] for name in implementation.argnames))
            except Exception as error:  # foreign code: an observer's fault must not end a run
                self.failures[implementation.plugin_name] = quoted(f"{hook}: {type(error).__name__}: {error}")

    @contextmanager
    def watching(
        self,
        name: str,
        graph: Graph,
        present: Container[str],
        *,
        display: Display,
        workers: int,
        folder: Path,
        tracking: Sequence[str] = (),
    ) -> Iterator[None]:
        """Tell that a run of the stages that are not `present` begins, and however the block ends, that it has ended."""
        self._know(graph)
        missing = {stage.key: stage.weight for stage in graph if stage.key not in present}
        self.call(
            "harness_run_started",
            name=name,
            weights=missing,
            cached=len(graph.stages) - len(missing),
            interactive=display == "bar",
            folder=folder,
            tracking=tuple(tracking),
            display=display,
            workers=workers,
        )
        try:
            self._check_tracking(tracking)
            yield
        finally:
            self.call("harness_run_finished")

    def _check_tracking(self, tracking: Sequence[str]) -> None:
        """Refuse to run where a tracker that was asked for could not start: hours later nothing would be in it.

        Raises:
            HarnessError: one failed.
        """
        for plugin, reason in self.failures.items():
            if (name := getattr(self._manager.get_plugin(plugin), "tracker", None)) in tracking:
                raise HarnessError(f"--track {name}: it cannot start ({reason}): fix that, or leave the tracker out")

    def extended(self, graph: Graph, stages: Collection[Stage], present: Container[str]) -> None:
        """Tell that the stages of a further seed or of further prompts are added; those that are not `present` will run.

        Args:
            graph: holds the rows, those before among them.
        """
        self._know(graph)
        missing = {stage.key: stage.weight for stage in stages if stage.key not in present}
        self.call("harness_run_extended", weights=missing, cached=len(stages) - len(missing))

    def _know(self, graph: Graph) -> None:
        self._trained, self._evaluated = {}, {}
        for row in graph.rows:
            for place, key in enumerate(row.training):
                self._trained.setdefault(key, []).append(_Training(row.label, row.seed, row.training[:place]))
            for evaluator, keys in row.evaluations.items():
                # Of rows that get prompts in blocks the first one: a later block's means are of other prompts.
                self._evaluated.setdefault(keys[0], []).append((row.label, row.seed, evaluator))

    def started(self, stage: Stage) -> None:
        self.call("harness_stage_started", key=stage.key, title=stage.title)

    def progress(self, key: str, done: int, total: int, note: str) -> None:
        self.call("harness_stage_progress", key=key, done=done, total=total, note=note)

    def measured(self, key: str, values: LiveValues) -> None:
        # A training that begins again, or resumes, repeats points: nobody is told twice.
        before = self._steps.get(key, 0)
        points = [point for point in values.get("points", ()) if point["step"] > before]
        if points:
            self._steps[key] = int(points[-1]["step"])
        for training in self._trained.get(key, ()) if points else ():
            # Steps are counted through all rounds. Of a round from the store they are not known: the board has that curve.
            if all(earlier in self._steps for earlier in training.earlier):
                offset = sum(self._steps[earlier] for earlier in training.earlier)
                counted = [{**point, "step": point["step"] + offset} for point in points]
                self.call("harness_training_points", row=training.row, seed=training.seed, points=counted)
        for row, seed, evaluator in self._evaluated.get(key, ()) if "scores" in values else ():
            means = {f"{evaluator}/{metric}": mean for metric, mean in values["scores"].items()}
            self.call("harness_row_scores", row=row, seed=seed, means=means, scored=values["scored"])

    def again(self, stage: Stage, reason: str) -> None:
        self.call("harness_stage_progress", key=stage.key, done=0, total=1, note=f"{reason}; trying once more")

    def finished(self, stage: Stage, seconds: float, error: str | None) -> None:
        self.call("harness_stage_finished", key=stage.key, title=stage.title, seconds=seconds, error=error)


def check_trackers(names: Sequence[str], registry: Registry) -> None:
    """Check that every asked tracker is some observer's, and that what it needs is installed.

    Raises:
        HarnessError: none is called so, or its package is missing.
    """
    trackers = {str(plugin.tracker): plugin for plugin in registry.manager.get_plugins() if hasattr(plugin, "tracker")}
    for name in names:
        if name not in trackers:
            raise HarnessError(f"--track {name!r}: {did_you_mean(name, trackers)}")
        if reason := getattr(trackers[name], "missing", lambda: None)():
            raise HarnessError(f"--track {name}: {reason}")
