"""No interval of a board goes beyond what its metric can take, however extreme the scores are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import Metric
from harness.api.registry import Registry
from harness.api.types import Score
from harness.board import Board, RowResult, build_board
from harness.board.build import LoadedBoard
from harness.board.merge import merge
from harness.board.power import Target, analyse_board
from harness.board.statistics import Values, interval
from harness.board.verify import verify
from harness.board.views.markdown import to_markdown
from harness.errors import DataError

QUESTIONS = 12


def row(label: str, values: Callable[[int, int], float], seeds: int = 2) -> RowResult:
    scores = {seed: [Score(f"p{i:02}", "m", float(values(seed, i))) for i in range(QUESTIONS)] for seed in range(seeds)}
    return RowResult(label, None, None, 1, "measured", {"e": scores}, {}, {}, {})  # type: ignore[arg-type]


def board_of(bounds: Any, *rows: RowResult) -> Board:
    shared = {"name": "b", "description": "", "examples": [], "sharing": {}, "created": "2026-01-01", "warnings": []}
    metrics = {"e": [Metric("m", "A score", primary=True, bounds=bounds)]}
    return build_board(config={}, baseline=rows[0].label, rows=rows, metrics=metrics, **shared)  # type: ignore[arg-type]


def extreme(least: float, largest: float) -> list[RowResult]:
    """Return rows at a bound, near it, at both by seed, and at one value inside."""
    middle = (least + largest) / 2
    return [
        row("least", lambda seed, i: least),
        row("largest", lambda seed, i: largest),
        row("nearly", lambda seed, i: largest if i else middle),
        row("by_seed", lambda seed, i: (least, largest)[seed]),
        row("inside", lambda seed, i: middle),
        row("mixed", lambda seed, i: (least, middle, largest)[(i + seed) % 3]),
    ]


@pytest.mark.parametrize("bounds", [(0, 1), (1, 10), (-1, 1)])
def test_intervals_stay_within_the_bounds(bounds: tuple[float, float], tmp_path: Path) -> None:
    board = board_of(bounds, *extreme(*bounds))
    width = bounds[1] - bounds[0]
    for entry in board.rows:
        score = entry.scores["e/m"]
        assert score.low is not None and score.high is not None
        assert bounds[0] <= score.low <= score.mean <= score.high <= bounds[1]
        assert score.high - score.low > 0.01 * width  # 12 of 12 is not ±0
        if score.delta:
            assert -width <= score.delta.low <= score.delta.mean <= score.delta.high <= width
            assert score.delta.detectable is None or score.delta.detectable <= width
    assert board.noise_floor("e/m") is not None and board.noise_floor("e/m") <= width  # type: ignore[operator]
    known = board.noise_entry("e/m")
    assert known is not None and known.high <= width
    assert json.loads(board.to_json())["metrics"][0]["bounds"] == [float(bound) for bound in bounds]
    board.write(tmp_path)
    assert verify(tmp_path) == []


def test_a_difference_that_no_row_can_have_is_none_that_is_found() -> None:
    board = board_of((0, 1), *extreme(0, 1))
    assert "found four times in five: m none that it can take." in to_markdown(board)
    (power,) = analyse_board(board, Target())
    assert power.detectable > 1 and power.note is not None and "1.000 at most" in power.note


def test_a_length_has_a_least_value_alone() -> None:
    rare = board_of((0, None), row("base", lambda seed, i: 0.0), row("rare", lambda seed, i: 40.0 * (i == 3)))
    free = board_of((None, None), row("base", lambda seed, i: 0.0), row("rare", lambda seed, i: 40.0 * (i == 3)))
    lows = [entry.scores["e/m"].low for board in (rare, free) if (entry := board.row("rare"))]
    assert lows[0] == 0 and lows[1] is not None and lows[1] < 0
    assert free.metrics[0].bounds is None and rare.metrics[0].bounds == (0, None) and rare.metrics[0].width == float("inf")


def test_a_mean_beyond_the_bounds_is_a_warning_and_keeps_its_interval() -> None:
    board = board_of((0, 1), row("base", lambda seed, i: 0.5 + 0.01 * i), row("percent", lambda seed, i: 40.0 + i))
    assert any(text.startswith("percent has 45.5 on e/m, which its evaluator bounds by 0") for text in board.warnings)
    entry = board.row("percent")
    assert entry is not None and entry.scores["e/m"].low is not None and 30 < entry.scores["e/m"].low < 45.5


def test_rows_that_tie_on_all_questions_have_an_interval_around_the_tie() -> None:
    """The more questions, the narrower: two pseudo-questions say how they may vary."""
    widths = []
    for count in (10, 200):
        tied = Values(tuple(f"p{i}" for i in range(count)), np.full((2, count), 0.5))
        seen = interval(tied, bounds=(0.0, 1.0))
        assert seen.low < 0.5 < seen.high and seen.low == pytest.approx(1 - seen.high)
        widths.append(seen.high - seen.low)
    assert widths[1] < widths[0] / 10 < 0.05


@pytest.mark.parametrize("bounds", [(1, 0), (1, 1), (0, float("inf")), (float("nan"), 1), (0,), (0, 1, 2)])
def test_bounds_that_are_none_are_refused(bounds: Any) -> None:
    with pytest.raises(ValueError, match=r"Metric\('m'\)\.bounds = .*: give the least and the largest value in this order"):
        Metric("m", "A score", bounds=bounds)


def test_boards_that_bound_a_metric_differently_are_not_merged(tmp_path: Path) -> None:
    loaded = []
    for name, bounds in (("rating", (1, 10)), ("none", (None, None)), ("share", (0, 10))):
        board = board_of(bounds, *extreme(1, 10)).model_copy(update={"name": name})
        board.write(tmp_path / name)
        loaded.append(LoadedBoard.read(tmp_path / name))
    with pytest.raises(DataError, match=r"e/m is bounded by \[0.0, 10.0\], in .* by \[1.0, 10.0\]"):
        merge([loaded[0], loaded[2]], name="both", created="")
    assert merge([loaded[1], loaded[0]], name="both", created="").metrics[0].bounds == (1, 10)


def test_every_share_of_the_evaluators_that_ship_is_bounded() -> None:
    """By their descriptions: what is a share, a rating or a length says what it can take."""
    described = {
        f"{name}/{metric.name}": metric
        for name, entry in Registry.load().entries["evaluator"].items()
        if not any(field.is_required() for field in entry.component.model_fields.values())
        for metric in entry.component().metrics()  # type: ignore[attr-defined, call-arg]
    }
    words = {"share": (0, 1), "rating": (1, 10), "characters per": (0, None), "tokens per": (0, None), "win rate": (0, 1)}
    matched = {key: bounds for word, bounds in words.items() for key, m in described.items() if word in m.description}
    assert len(matched) > 15
    assert {key: described[key].bounds for key in matched} == matched
