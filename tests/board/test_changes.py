"""What is said to differ between two boards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from harness.api.types import Score
from harness.board import Board, RowResult
from harness.board.diff import changes


def test_a_board_does_not_differ_from_itself(board: Board) -> None:
    assert not changes(board, board)


def test_settings_rows_scores_verdicts_and_places_are_named(
    build: Callable[..., Board], mark: Callable[..., Board], rows: list[RowResult]
) -> None:
    before = build(rows)
    better = {
        evaluator: {seed: [_more(score) for score in scores] for seed, scores in runs.items()}
        for evaluator, runs in next(row for row in rows if row.label == "kto").scores.items()
    }
    after_rows = [replace(row, scores=better) if row.label == "kto" else row for row in rows if row.label != "simpo"]
    after = build([*after_rows, replace(rows[0], label="new")], config={"model": {"path": "other"}, "seeds": [1, 2]})
    after = mark(after, "kto")
    found = changes(before, after)
    said = [str(change) for change in (*found.settings, *found.rows, *found.verdicts, *found.order)]
    assert "model.path: sandbox/start → other" in said and any(line.startswith("budget: gone, was {") for line in said)
    assert "simpo: gone, was measured" in said and "new: new, measured" in said
    assert "kto gold/win_rate: unclear → better" in said and "kto: place 7 → place 1" in said
    scores = [str(change) for change in found.scores]
    assert len(scores) == 2 and scores[0].startswith("kto gold/win_rate: 0.")  # the primary metrics alone
    assert len(changes(before, after, all_metrics=True).scores) == 8
    assert [title for title, _ in found.sections()][:2] == ["Settings", "Rows"]
    assert found.as_dict()["rows"][0]["what"] == "simpo"


def test_what_failed_and_was_mended_is_said(build: Callable[..., Board], rows: list[RowResult]) -> None:
    broken: list[Any] = [replace(row, failed="no memory") if row.label == "kto" else row for row in rows]
    found = changes(build(broken), build(rows))
    assert "kto: failed → ran" in [str(change) for change in found.rows]


def _more(score: Score) -> Score:
    return replace(score, value=1.0) if score.metric == "win_rate" else replace(score, value=score.value + 1.0)
