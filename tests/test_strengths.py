"""Strengths: pseudo-values by seed and question, their error on the board, and rows of different judges."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import special

from harness import Evaluator, Metric, Score
from harness.board.build import RowResult, build_board
from harness.board.entries import ScoreEntry
from harness.models.judge.bradley_terry import fit
from harness.run.records import EvaluateInputs
from harness.run.strengths import Strengths, pair_strengths

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


def row(label: str, *scores: Sequence[Score], judge: str = "j") -> RowResult:
    provenance = {"judges": {"paired": {"versions": [judge] if any(scores) else []}}}
    return RowResult(label, None, None, 1, "measured", {"paired": dict(enumerate(scores))}, {}, {}, provenance)


def turns(*, together: bool) -> list[Score]:
    return [
        Score(f"q{number:02}:{turn}", "win_rate", value, question=f"q{number:02}" if together else "")
        for number, value in enumerate(outcomes())
        for turn in (1, 2)
    ]


def strengths(rows: Sequence[RowResult], *, mixed: bool = False, opponents: Sequence[str] = ("sft",)) -> Strengths:
    inputs = EvaluateInputs("rows", "model", "start", opponents=dict.fromkeys(opponents, "key of its answers")).named()
    plans = [
        SimpleNamespace(label=row.label, seed=seed, evaluations={"paired": ("evaluation",)})
        for row in rows
        for seed in row.scores["paired"]
    ]
    comparison = SimpleNamespace(
        config=SimpleNamespace(baseline="sft"),
        evaluators={"paired": Paired()},
        judges={"paired": SimpleNamespace(allow_mixed_judges=mixed)},
    )
    run: Any = SimpleNamespace(
        comparison=comparison, graph=SimpleNamespace(rows=plans, stages={"evaluation": SimpleNamespace(inputs=inputs)})
    )
    return pair_strengths(run, rows)


def on_board(rows: Sequence[RowResult], fitted: Strengths) -> dict[str, ScoreEntry]:
    board = build_board(
        name="b", description="", config={}, baseline="sft", rows=[fitted.added_to(row) for row in rows],
        metrics=fitted.added_metrics({"paired": Paired()}), examples=(), sharing={}, created="", warnings=(),
    )  # fmt: skip
    assert [metric.fit for metric in board.metrics] == [None, "rows"]
    assert set(board.analysis.wins if board.analysis else ()) <= {"paired/win_rate"}
    return {entry.method: entry.scores["paired/strength"] for entry in board.rows}


def test_a_row_has_the_fits_strength_and_turns_of_a_question_are_one_observation() -> None:
    won = sum(outcomes())
    expected = float(fit(np.array([[0.0, 2 * won], [2 * (QUESTIONS - won), 0.0]]), 1)[0])
    rows = [row("sft", []), row("dpo", turns(together=True))]
    score = on_board(rows, strengths(rows))["dpo"]
    assert (score.mean, score.n) == (pytest.approx(expected, abs=1e-9), QUESTIONS)
    rows = [row("sft", []), row("dpo", turns(together=False))]
    apart = on_board(rows, strengths(rows))["dpo"]
    assert apart.mean == pytest.approx(expected, abs=1e-9)  # as many games
    assert apart.n == 2 * QUESTIONS
    assert width(score) > 1.3 * width(apart)  # √2 times, and fewer degrees of freedom


def width(score: ScoreEntry) -> float:
    assert score.low is not None and score.high is not None
    return score.high - score.low


def tournament(rng: np.random.Generator, rows: int, seeds: int, prompts: int) -> Iterator[tuple[int, int, int, int, float]]:
    """Games of equal rows that all meet each other: seed, prompt, row, other, 1 if the row won."""
    worth = 0.15 * rng.standard_normal((rows, seeds, 1)) + 0.5 * rng.standard_normal((rows, 1, prompts))
    for i, j in combinations(range(rows), 2):
        won = rng.random((seeds, prompts)) < special.expit(worth[i] - worth[j])
        for seed, prompt in np.ndindex(seeds, prompts):
            yield seed, prompt, i, j, float(won[seed, prompt])


def test_equal_rows_that_all_meet_are_covered_on_the_board() -> None:
    """From games to the board, at three seeds; the baseline is 0 without an error, and its difference a row's own interval."""
    labels, rng, covered, stars, boards = ("sft", "dpo", "ipo", "kto"), np.random.default_rng(0), [], 0, 25
    for _ in range(boards):
        scores: dict[str, list[list[Score]]] = {label: [[], [], []] for label in labels}
        for seed, prompt, i, j, won in tournament(rng, len(labels), 3, 40):
            for one, other, value in ((i, j, won), (j, i, 1 - won)):
                sample = sorted(labels).index(labels[other])  # samples are numbered by opponent
                scores[labels[one]][seed].append(Score(f"p{prompt}", "win_rate", value, sample))
        rows = [row(label, *by_seed) for label, by_seed in scores.items()]
        found = on_board(rows, strengths(rows, opponents=labels))
        assert (found["sft"].mean, found["sft"].low, found["sft"].high) == (0.0, 0.0, 0.0)
        for label in labels[1:]:
            entry = found[label]
            assert entry.delta is not None and entry.low is not None and entry.high is not None
            assert (entry.low, entry.high) == (entry.delta.low, entry.delta.high)
            assert entry.delta.wins is None and entry.delta.effect is None
            covered.append(entry.low <= 0 <= entry.high)
        stars += any(entry.delta is not None and entry.delta.is_significant for entry in found.values())
    assert np.mean(covered) >= 0.9
    assert stars <= 4


def test_a_row_with_fewer_seeds_has_the_strength_of_its_own_games() -> None:
    """Where rows get seeds until they are decided, the others' further seeds do not count for a row that lacks them."""
    games, draws = [], random.Random(3)
    for _ in range(3):
        games.append([Score(f"p{number}", "win_rate", float(draws.random() < 0.7)) for number in range(30)])
    both = [row("sft", [], [], []), row("dpo", *games[:2]), row("ipo", *games)]
    alone = [row("sft", [], []), row("dpo", *games[:2])]
    mixed, single = strengths(both).scores, strengths(alone).scores
    assert sorted(mixed["dpo"]["paired"]) == [0, 1] and sorted(mixed["ipo"]["paired"]) == [0, 1, 2]
    values = [[score.value for scores in found["dpo"]["paired"].values() for score in scores] for found in (mixed, single)]
    assert values[0] == pytest.approx(values[1])
    assert len(set(values[0])) == 2  # won and lost
    assert on_board(both, strengths(both))["dpo"].seeds is None


def test_a_row_with_fewer_questions_has_the_strength_of_its_own_games() -> None:
    games = [Score(f"p{number:02}", "win_rate", float(number % 3 > 0)) for number in range(30)]
    both = [row("sft", []), row("dpo", games[:12]), row("ipo", games)]
    mixed, single = strengths(both).scores, strengths(both[:2]).scores
    assert mixed["dpo"] == single["dpo"]
    assert [len(mixed[label]["paired"][0]) for label in ("dpo", "ipo", "sft")] == [12, 30, 30]
    assert on_board(both, strengths(both))["dpo"].n == 12


def test_rows_of_different_judges_have_no_strengths_unless_told_to() -> None:
    scores = turns(together=True)
    rows = [row("sft", []), row("dpo", scores, judge="j (1)"), row("simpo", scores, judge="j (2)")]
    refused = strengths(rows)
    assert (refused.scores, refused.metrics) == ({}, {})
    assert refused.warnings == [
        "There is no paired/strength, since rows were judged by j (1); others by j (2); "
        "set judge.allow_mixed_judges to have it all the same."
    ]
    allowed = strengths(rows, mixed=True)
    assert set(allowed.scores) == {"sft", "dpo", "simpo"}
    assert allowed.warnings == []
    alike = strengths([rows[0], rows[1], row("simpo", scores, judge="j (1)")])  # nobody judged the baseline
    assert set(alike.scores) == {"sft", "dpo", "simpo"}
    assert alike.warnings == []
