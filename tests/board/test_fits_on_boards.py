"""Metrics that are a function of a fit, on boards: what is shown of them, and what merging, importing and restating do."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness import DataError, Imported, Metric, Score
from harness.board import Board, RowResult
from harness.board.build import LoadedBoard, build_board
from harness.board.imports import ImportRequest, import_rows
from harness.board.merge import merge
from harness.board.restate import restated
from harness.board.verify import verify

CONTROLLED = Metric("length_controlled_win_rate", "win rate at equal length", primary=True, fit="run")
STRENGTH = Metric("strength", "log-odds against sft", fit="rows")
KEYS = ("judge/length_controlled_win_rate", "judge/strength")


def row(label: str) -> RowResult:
    rng = random.Random(label)
    runs = {
        seed: [
            *(Score(f"p{number}", CONTROLLED.name, rng.gauss(0.5, 0.6)) for number in range(20)),
            *(Score(f"p{number}", STRENGTH.name, rng.gauss(0.2, 1.0) if label != "sft" else 0.0) for number in range(20)),
        ]
        for seed in (0, 1, 2)
    }
    return RowResult(label, None, None, 1, "measured", {"judge": runs}, {}, {}, {})


def board(folder: Path, labels: Sequence[str], *, controlled: Metric = CONTROLLED) -> Path:
    build_board(
        name=folder.name, description="", config={}, baseline="sft", rows=[row(label) for label in labels],
        metrics={"judge": [controlled, STRENGTH]}, examples=(), sharing={}, created="2026-01-01", warnings=(),
    ).write(folder)  # fmt: skip
    return folder


def request() -> ImportRequest:
    return ImportRequest("tool", (), "2026-01-02")


def imported(metric: Metric) -> list[Imported]:
    scores = tuple(Score(f"p{number}", metric.name, 0.4 + number / 50) for number in range(20))
    return [Imported("theirs", "judge", (metric,), scores)]


def test_they_have_intervals_and_tests_and_no_shares_of_examples(tmp_path: Path) -> None:
    folder = board(tmp_path / "one", ("sft", "dpo", "ipo"))
    shown = Board.read(folder)
    assert {metric.key: metric.fit for metric in shown.metrics} == dict(zip(KEYS, ("run", "rows"), strict=True))
    for entry in (entry for entry in shown.rows if entry.method != "sft"):
        for key in KEYS:
            delta = entry.scores[key].delta
            assert delta is not None and delta.low < delta.mean < delta.high and delta.p_own is not None
            assert (delta.wins, delta.effect) == (None, None)
    analysis = shown.analysis
    assert analysis is not None and analysis.wins == {} and set(analysis.ranking) == set(KEYS)
    assert [entry.per_example for entry in analysis.agreement] == [None]
    assert verify(folder) == []


def test_merging_leaves_out_what_is_fitted_to_all_rows_of_one_board(tmp_path: Path) -> None:
    parts = [board(tmp_path / "one", ("sft", "dpo")), board(tmp_path / "two", ("sft", "ipo"))]
    merged = merge([LoadedBoard.read(part) for part in parts], name="both", created="2026-01-02")
    assert "Left out, since they are computed over all rows of one board: judge/strength." in merged.warnings
    merged.write(tmp_path / "both")
    assert verify(tmp_path / "both") == []
    read = LoadedBoard.read(tmp_path / "both")
    assert [(metric.key, metric.fit) for metric in read.board.metrics] == [(KEYS[0], "run")]
    metrics = {score.metric for label in ("sft", "dpo", "ipo") for run in read.scores[label]["judge"].values() for score in run}
    assert metrics == {CONTROLLED.name}
    together = Board.read(board(tmp_path / "whole", ("sft", "dpo", "ipo"))).row("ipo")
    alone = merged.row("ipo")
    assert together is not None and alone is not None and alone.scores[KEYS[0]].mean == together.scores[KEYS[0]].mean


def test_an_import_beside_them_leaves_them_as_they_were(tmp_path: Path) -> None:
    folder = board(tmp_path / "one", ("sft", "dpo"))
    before = Board.read(folder).row("dpo")
    found = import_rows(imported(CONTROLLED), request(), "new", folder)
    after, theirs = found.row("dpo"), found.row("theirs")
    assert before is not None and after is not None and theirs is not None
    assert after.scores[KEYS[1]] == before.scores[KEYS[1]] and KEYS[1] not in theirs.scores
    assert not [text for text in found.warnings if "strength" in text]


def test_predictions_of_earlier_boards_are_not_mixed_with_pseudo_values(tmp_path: Path) -> None:
    earlier = board(tmp_path / "earlier", ("sft", "dpo"), controlled=replace(CONTROLLED, fit=None))
    later = board(tmp_path / "later", ("sft", "ipo"))
    with pytest.raises(DataError, match=r"earlier: its scores of judge/length_controlled_win_rate are no pseudo-values"):
        merge([LoadedBoard.read(later), LoadedBoard.read(earlier)], name="both", created="2026-01-02")
    with pytest.raises(DataError, match=r"judge/length_controlled_win_rate are of an earlier version"):
        import_rows(imported(CONTROLLED), request(), "new", earlier)
    texts = [
        [text for text in restated(LoadedBoard.read(part), created="2026-01-02").warnings if "predictions" in text]
        for part in (earlier, later)
    ]
    assert [len(found) for found in texts] == [1, 0] and "far too narrow" in texts[0][0]
