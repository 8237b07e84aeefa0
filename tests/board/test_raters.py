"""Two judges, or two reward models, that stand side by side on one board: how far they agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.api.types import Metric, Score
from harness.board import Board, RowResult
from harness.board.analysis import rater_pairs
from harness.board.verify import verify
from harness.board.views.markdown import to_markdown
from harness.board.views.page import to_html

METRIC = [Metric("win_rate", "share of answers that win", primary=True)]
EVALUATORS = [
    {"name": "pairwise_judge", "label": "one", "opponent": "dpo", "judge": {"model": "a"}},
    {"name": "pairwise_judge", "label": "two", "opponent": "dpo", "judge": {"model": "b"}},
    {"name": "pairwise_judge", "label": "elsewhere", "opponent": "start"},
    "gold_reward",
]


@pytest.fixture
def judged(build: Callable[..., Board], rows: list[RowResult]) -> Board:
    """The first judge's values; the second's are the same but for every fifth answer, which it marks the other way."""
    marked = []
    for row in rows:
        one = {
            seed: [score for score in scores if score.metric == "win_rate"]
            for seed, scores in row.scores.get("gold", {}).items()
        }
        two = {
            seed: [
                replace(score, value=1 - score.value if place % 5 == 0 else score.value) for place, score in enumerate(scores)
            ]
            for seed, scores in one.items()
        }
        scores: dict[str, Any] = {} if row.failed else {"one": one, "two": two, "elsewhere": one}
        marked.append(replace(row, scores=scores))
    metrics = {"one": METRIC, "two": METRIC, "elsewhere": METRIC}
    return build(marked, metrics=metrics, config={"evaluators": [e for e in EVALUATORS if isinstance(e, dict)]})


def test_evaluators_that_differ_in_their_judge_alone_are_a_pair() -> None:
    assert rater_pairs({"evaluators": EVALUATORS}) == [("one", "two")]
    rewards = [{"name": "reward_model", "reward": {"model": str(n)}, "label": f"r{n}"} for n in range(3)]
    assert rater_pairs({"evaluators": rewards}) == [("r0", "r1"), ("r0", "r2"), ("r1", "r2")]
    assert rater_pairs({}) == rater_pairs({"evaluators": "gold_reward"}) == []


def test_their_agreement_is_on_the_board_and_follows_from_its_scores(judged: Board, tmp_path: Path) -> None:
    assert judged.analysis is not None and judged.analysis.raters is not None
    (pair,) = judged.analysis.raters
    assert (pair.left, pair.right, pair.questions) == ("one/win_rate", "two/win_rate", 20)
    assert pair.answers == 11 * 2 * 20  # without the failed row
    assert pair.alpha is not None and pair.spearman is not None and pair.same is not None
    assert pair.alpha.low < pair.alpha.mean < pair.alpha.high < 1 and 0 < pair.spearman.mean < 1
    judged.write(tmp_path)
    assert verify(tmp_path) == []
    text = (tmp_path / "board.json").read_text()
    (tmp_path / "board.json").write_text(text.replace(f'"same": {pair.same}', '"same": 0.99'))
    (problem,) = verify(tmp_path)
    assert "analysis: raters [0] same is 0.99" in problem


def test_readers_see_it(judged: Board, board: Board) -> None:
    assert "one/win\\_rate and two/win\\_rate agree on 440 answers by Krippendorff's α" in to_markdown(judged)
    page = to_html(judged, [])
    assert "Do the judges agree?" in page and "Do the judges agree?" not in to_html(board, [])


def test_with_an_opponent_each_metrics_are_paired_by_opponent(build: Callable[..., Board], rows: list[RowResult]) -> None:
    both = {label: {1: [Score(f"p{n}", "win_rate", n % 2) for n in range(6)]} for label in ("one@dpo", "two@dpo", "two@kto")}
    board = build(
        [replace(row, scores=both, failed=None) for row in rows],
        metrics=dict.fromkeys(both, METRIC),
        config={"evaluators": [{"name": "p", "label": label, "opponent": "each"} for label in ("one", "two")]},
    )
    assert [(pair.left, pair.right) for pair in board.analysis.raters or ()] == [("one@dpo/win_rate", "two@dpo/win_rate")]  # type: ignore[union-attr]
