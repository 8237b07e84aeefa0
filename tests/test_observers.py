"""Observers are told what happens, and a failing one is left out of the rest of the run."""

from __future__ import annotations

from harness import hookimpl
from harness.api.registry import Registry
from harness.run.graph import Stage
from harness.run.observers import Observers

STAGE = Stage("k", "train", "train dpo", {}, {})


class Failing:
    """Fails at the first stage."""

    def __init__(self) -> None:
        self.calls = 0

    @hookimpl
    def harness_stage_started(self) -> None:
        self.calls += 1
        raise RuntimeError("no connection with sk-0123456789abcdef")

    @hookimpl
    def harness_stage_finished(self) -> None:
        self.calls += 1


class Watching:
    """Takes only the arguments that it wants."""

    def __init__(self) -> None:
        self.said: list[object] = []

    @hookimpl
    def harness_stage_started(self, title: str) -> None:
        self.said.append(title)

    @hookimpl
    def harness_stage_progress(self, key: str, done: int, total: int, note: str) -> None:
        self.said.append((key, done, total, note))

    @hookimpl
    def harness_stage_finished(self, key: str, error: str | None) -> None:
        self.said.append((key, error))


def test_a_failing_observer_is_left_out_and_the_others_go_on() -> None:
    failing, watching = Failing(), Watching()
    observers = Observers(Registry.load(extra=[failing, watching]))
    observers.started(STAGE)
    observers.started(STAGE)
    observers.progress("k", 1, 2, "half")
    observers.again(STAGE, "killed")
    observers.finished(STAGE, 0.5, "a bug")
    assert failing.calls == 1
    assert watching.said == [
        "train dpo",
        "train dpo",
        ("k", 1, 2, "half"),
        ("k", 0, 1, "killed; trying once more"),
        ("k", "a bug"),
    ]
    assert observers.failures == {"Failing (given in code)": "harness_stage_started: RuntimeError: no connection with (hidden)"}
