"""A comparison, the store that a run of it goes on with, and runs to which something happens."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from test_compare import Lab, alive, wait_until

from harness.api.registry import Registry
from harness.config import resolve
from harness.run.plan import plan

PATIENCE = 3600.0  # seconds, for what would otherwise never come


@dataclass(frozen=True)
class TimedLab(Lab):
    """A lab that knows how long its first run took, and which stages are left to do in a store that it began."""

    seconds: float = 0.0
    left: frozenset[str] = frozenset()

    def begin(self, store: str) -> Path:
        """A store for a run to go on with: an empty one, or after a long first run its store but for `left`."""
        folder = self.folder / store
        if len(self.left) < len(spent(self)):
            shutil.copytree(self.folder / "store", folder, ignore=lambda _, names: self.left.intersection(names))
        return folder


def spent(lab: Lab) -> dict[str, float]:
    """Seconds of every stage of the first run."""
    return {event["key"]: event["seconds"] for event in events(lab, "first") if event["event"] == "stage_finished"}


def left_to_do(lab: Lab, seconds: float) -> frozenset[str]:
    """Stages of the first run that take two workers so long: trainings at random, and all that comes of them."""
    took, graph = spent(lab), plan(resolve(yaml.safe_load(lab.config.read_text()), Registry.load()))
    trainings = [stage.key for stage in graph if stage.kind == "train"]
    random.Random(4).shuffle(trainings)
    left: set[str] = set()
    for training in trainings:
        left.add(training)
        left.update(stage.key for stage in graph if stage.parents & left)  # parents come first
        if sum(took[key] for key in left) > 2 * seconds:
            return frozenset(left)
    return frozenset(took)


def same(lab: Lab, out: str) -> bool:
    """Whether a run's board is that of the first, but for how often it kept how far it was."""
    board, first = (lab.board(name).without_times() for name in (out, "first"))
    return board | {"config": board["config"] | {"run": first["config"]["run"]}} == first


Victim = Callable[[subprocess.Popen[bytes], list[psutil.Process]], bool]  # whether it was running, and is ended


@dataclass
class Disturbed:
    """Runs in one folder with one store, each the one that goes on, to which something happens at moments that are uniform
    over the time of an undisturbed run, or over the first seconds of a long one. One that ends before its moment must have
    ended well; the next begins anew.

    Args:
        span: seconds within which a moment is drawn, at most.
        anew: prepares the store of a run that begins anew; it is empty if absent.
    """

    lab: TimedLab
    name: str
    rng: random.Random
    span: float
    anew: Callable[[str], object] = lambda store: None
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    begun: int = 0
    halfway: int = 0  # times at which a stage was interrupted that had kept how far it was

    def disturb(self, victim: Victim, *, inside: bool = False) -> None:
        """Wait for a moment at which the victim runs, and end it.

        Args:
            inside: from that moment on wait until a stage has kept how far it is.
        """
        while not self._disturbed(victim, inside):
            pass

    def _disturbed(self, victim: Victim, inside: bool) -> bool:
        process = self._running()
        passed = time.monotonic() - self.began
        moment = self.began + self.rng.uniform(passed, max(passed, min(self.span, self.lab.seconds)))
        wait_until(lambda: time.monotonic() >= moment or process.poll() is not None, PATIENCE)
        if inside:
            wait_until(lambda: self._kept() or process.poll() is not None, PATIENCE)
        if process.poll() is not None:
            assert process.returncode == 0, self._errors.read_text()
            assert same(self.lab, self.name)
            shutil.rmtree(self.lab.folder / self.name)
            return False
        workers = psutil.Process(process.pid).children()
        kept = self._kept()
        ended = victim(process, workers)
        self.halfway += ended and kept
        if process.poll() is not None:
            assert alive(workers) == []
        return ended

    @property
    def _errors(self) -> Path:
        return self.lab.folder / f"{self.name}.stderr"

    def _kept(self) -> bool:
        """Whether a stage under way has kept how far it is."""
        return any((self.lab.folder / self.name / "store" / "partial").glob("*"))

    def _running(self) -> subprocess.Popen[bytes]:
        """The run that goes on: with two workers, and every third time with one."""
        if self.process is None or self.process.poll() is not None:
            workers, store = str(2 - (self.begun % 3 == 2)), f"{self.name}/store"
            if not (self.lab.folder / store).exists():
                self.anew(store)
            command = self.lab.command(self.name, "--workers", workers, store=store)
            # A line for each stage, which nothing reads while it runs: a pipe would fill and hold it.
            with self._errors.open("w") as errors:
                self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True)
            self.began, self.begun = time.monotonic(), self.begun + 1
        return self.process


def artifacts(store: Path) -> set[str]:
    """Keys of what a store holds."""
    return {path.parent.name for path in store.glob("artifacts/*/*/artifact.json")}


def events(lab: Lab, out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (lab.folder / out / "events.jsonl").read_text().splitlines()]
