"""What the sandbox's page reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.sandbox.annotators import ANNOTATORS
from harness.sandbox.measure import RATINGS, SCORES, measure_model, measure_world
from harness.sandbox.tasks import FAMILIES


def test_the_world_is_measured_by_author() -> None:
    found = measure_world(draws=200)
    golds = {row["author"]: row["total"] for row in found["annotators"]}
    assert list(golds) == [*(author.name for author in ANNOTATORS), "target author"]
    assert golds["expert"] > golds["target author"] > golds["spammer"]
    assert 0.7 < found["rating_correlation"] < 1


def test_a_model_is_measured_under_every_request(tiny_checkpoint: Path) -> None:
    found = measure_model(tiny_checkpoint, prompts=8, samples=2)
    assert found["prompts"] == 8
    assert list(found["by_score"]) == list(SCORES) and list(found["by_rating"]) == list(RATINGS)
    assert set(found["by_family"]) == set(FAMILIES)
    for row in (found["sampled"], found["greedy"], *found["by_score"].values()):
        assert 0 <= row["total"] <= 10
        assert row["total"] == pytest.approx(0.6 * row["chosen"] + 0.4 * row["known"])
