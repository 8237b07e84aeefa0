"""Strengths on the board: what is resampled together, and rows of different judges."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness import Evaluator, Metric, Score
from harness.board.build import Derived, RowResult
from harness.models.judge.bradley_terry import bradley_terry
from harness.run.records import EvaluateInputs
from harness.run.strengths import pair_strengths

QUESTIONS = 20


class Paired(Evaluator):
    name = "paired"

    def metrics(self) -> Sequence[Metric]:
        return (Metric("win_rate", "wins", primary=True),)

    def opponents(self) -> Sequence[str]:
        return ("baseline",)


def outcomes() -> list[float]:
    """Of one row against the baseline, by question; both turns of a question end alike."""
    draws = random.Random(1)
    return [float(draws.random() < 0.6) for _ in range(QUESTIONS)]


def row(label: str, scores: Sequence[Score], *versions: str) -> RowResult:
    provenance = {"judges": {"paired": {"versions": list(versions)}}}
    return RowResult(label, None, None, 1, "measured", {"paired": {0: scores}}, {}, {}, provenance)


def turns(*, together: bool) -> list[Score]:
    return [
        Score(f"q{number:02}:{turn}", "win_rate", value, question=f"q{number:02}" if together else "")
        for number, value in enumerate(outcomes())
        for turn in (1, 2)
    ]


def derived(rows: Sequence[RowResult], *, mixed: bool = False) -> tuple[list[Derived], list[str]]:
    inputs = EvaluateInputs("rows", "model", "start", opponents={"sft": "key of its answers"}).named()
    plans = [SimpleNamespace(label=row.label, seed=0, evaluations={"paired": ("evaluation",)}) for row in rows]
    comparison = SimpleNamespace(
        config=SimpleNamespace(baseline="sft"),
        evaluators={"paired": Paired()},
        judges={"paired": SimpleNamespace(allow_mixed_judges=mixed)},
    )
    run: Any = SimpleNamespace(
        comparison=comparison, graph=SimpleNamespace(rows=plans, stages={"evaluation": SimpleNamespace(inputs=inputs)})
    )
    return pair_strengths(run, rows)


def test_the_turns_of_a_question_are_resampled_together() -> None:
    wins = np.zeros((1, QUESTIONS, 2, 2))
    for number, value in enumerate(outcomes()):
        wins[0, number, 0, 1], wins[0, number, 1, 0] = 2 * value, 2 * (1 - value)
    expected = bradley_terry(wins, 1)
    (found,), _ = derived([row("dpo", turns(together=True), "j")])
    score = found.scores["dpo"]
    assert (score.mean, score.low, score.high) == pytest.approx((expected.mean[0], expected.low[0], expected.high[0]))
    assert score.n == QUESTIONS
    (apart,), _ = derived([row("dpo", turns(together=False), "j")])
    assert apart.scores["dpo"].mean == pytest.approx(score.mean)  # as many games
    assert score.low is not None and score.high is not None
    narrow = apart.scores["dpo"]
    assert narrow.low is not None and narrow.high is not None
    assert score.high - score.low > 1.2 * (narrow.high - narrow.low)  # √2 times, but for chance


def test_rows_of_different_judges_have_no_strengths_unless_told_to() -> None:
    scores = turns(together=True)
    rows = [row("sft", []), row("dpo", scores, "j (1)"), row("simpo", scores, "j (2)")]
    assert derived(rows) == (
        [],
        [
            "There is no paired/strength, since rows were judged by j (1); others by j (2); "
            "set judge.allow_mixed_judges to have it all the same."
        ],
    )
    (found,), warnings = derived(rows, mixed=True)
    assert set(found.scores) == {"sft", "dpo", "simpo"}
    assert warnings == []
    (found,), warnings = derived([rows[0], rows[1], row("simpo", scores, "j (1)")])  # nobody judged the baseline
    assert set(found.scores) == {"sft", "dpo", "simpo"}
    assert warnings == []
