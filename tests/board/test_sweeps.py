"""Which rows are a sweep, which are on the front, and that hostile names stay text in the drawings."""

from __future__ import annotations

import re
from typing import Any

from harness.board import Board
from harness.board.board import CostEntry, MetricEntry, RowEntry, ScoreEntry
from harness.board.views.figures import frontier, pareto_front, scaling, sweeps

KEY = MetricEntry(key="gold/win", description="", higher_is_better=True, primary=True)


def row(label: str, mean: float = 0.5, *, seconds: float = 1.0, kind: Any = "measured", **fields: Any) -> RowEntry:
    rounds = [{"data": {"name": "d", "fields": fields}, "objective": {"name": "dpo", "fields": {"beta": 0.1}}}]
    return RowEntry(
        **{"method": label, "data": "d", "objective": "dpo", "rounds": 1, "kind": kind, "seeds": (1,)},
        scores={KEY.key: ScoreEntry(mean=mean, low=mean - 0.1, high=mean + 0.1, n=9, higher_is_better=True)},
        cost=CostEntry(seconds=seconds),
        provenance={"rounds": rounds} if fields else {},
    )


def of(board: Board, *rows: RowEntry) -> Board:
    return board.model_copy(update={"rows": rows, "metrics": (KEY,), "baseline": rows[0].method})


def test_three_values_of_one_number_are_a_sweep(board: Board) -> None:
    rows = [row(f"sc[negatives={n}]", negatives=n, samples=32) for n in (16, 1, 4)]
    found = sweeps(of(board, *rows, row("sc[negatives=4, samples=8]", negatives=4, samples=8)))
    assert list(found) == ["data.negatives"]
    (series,) = found["data.negatives"]
    assert series.label == "sc" and [value for value, _ in series.points] == [1, 4, 16]
    assert sweeps(of(board, *rows[:2])) == {}


def test_rows_without_provenance_are_read_by_their_labels(board: Board) -> None:
    found = sweeps(of(board, *(row(f"dpo[beta={beta}]") for beta in (0.1, 0.5, 1.0)), row("dpo[beta=high]")))
    assert [value for value, _ in found["beta"][0].points] == [0.1, 0.5, 1.0]


def test_drawings_hold_names_as_text(board: Board, nasty: str) -> None:
    rows = [row(f"{nasty}[n={n}]", n / 9, seconds=n, n=n) for n in (1, 2, 4)]
    hostile = of(board, *rows)
    drawings = [scaling(hostile, KEY, "data.n", sweeps(hostile)["data.n"]), frontier(hostile, KEY)]
    for drawn in drawings:
        assert drawn is not None and drawn.count("<circle") == 3
        assert not re.search(r"<script|<img|[\x1b\u202e]", drawn)


def test_the_front_is_of_rows_that_compete() -> None:
    rows = [row("a", 0.3), row("b", 0.2, seconds=2), row("c", 0.6, seconds=3), row("o", 0.9, kind="control")]
    points = [(one, one.cost.seconds or 0.0, one.scores[KEY.key].mean) for one in rows]
    assert [one.method for one, *_ in pareto_front(points, True)] == ["a", "c"]
    assert [one.method for one, *_ in pareto_front(points, False)] == ["a", "b"]
    assert pareto_front(points, None) == []
