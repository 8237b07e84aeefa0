"""A stage's intermediate results: every point is sent, few samples, and means over all scores so far."""

from __future__ import annotations

import math

import pytest

from harness.run.executors.events import LiveValues
from harness.run.stages import live as module
from harness.run.stages.live import LONGEST, Live


def test_intermediate_results_are_sent_together_about_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    sent: list[LiveValues] = []
    live = Live(sent.append)
    live.points([{"loss": 0.5, "step": 7.0}])
    assert sent == [{"points": [{"loss": 0.5, "step": 1}]}]
    live.points([{"loss": 0.4}, {"loss": math.nan, "margin": 1.0}])
    live.score("reward", 1.0)
    live.score("reward", 2.0)
    live.score("reward", math.inf)  # the stage fails of it
    live.sample("p" * 2 * LONGEST, "r" * 2 * LONGEST)
    live.sample("another", "passed over")
    assert len(sent) == 1
    now[0] += 1
    live.score("length", 3.0)
    assert sent[1:] == [
        {
            "points": [{"loss": 0.4, "step": 2}, {"margin": 1.0, "step": 3}],
            "scores": {"reward": 1.5, "length": 3.0},
            "scored": 2,
            "sample": {"prompt": "p" * LONGEST, "response": "r" * LONGEST},
        }
    ]
    live.flush()
    assert len(sent) == 2
    live.begin()
    live.points([{"loss": 0.9}])
    assert sent[2:] == [{"points": [{"loss": 0.9, "step": 1}]}]
