"""Labels of points in figures: none over a point or another label, and a leader line wherever one stands apart."""

from __future__ import annotations

import math
import random
import re

import pytest

from harness.board import Board
from harness.board.views import figures
from harness.board.views.figures import FRONTIER, NARROW_FRONTIER
from harness.board.views.svg import CHARACTER, Chart, Labels, Point

TEXT = re.compile(r'<text x="([-\d.]+)" y="([-\d.]+)" class="name" text-anchor="start">(.*?)</text>')


def clusters(chart: Chart, count: int, seed: int) -> list[Point]:
    """Points of which most lie close together, as rows of one cost and quality do."""
    rng = random.Random(seed)
    centres = [(chart.left + 90, chart.floor - 60), (chart.left + 110, chart.top + 90), (chart.right - 60, chart.floor - 120)]
    return [(x + rng.gauss(0, 12), y + rng.gauss(0, 14)) for x, y in (centres[i % 3] for i in range(count))]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("chart", "count", "length"), [(FRONTIER, 24, 14), (NARROW_FRONTIER, 24, 2)])
def test_no_label_lies_over_a_point_or_a_label(chart: Chart, count: int, length: int, seed: int) -> None:
    points = clusters(chart, count, seed)
    labels = Labels(chart, points)
    drawn = [labels.draw(number, "x" * length, "name") for number in range(count)]
    assert all(drawn)
    boxes = []
    for shapes, (px, py) in zip(drawn, points, strict=True):
        found = TEXT.search(str(shapes[-1]))
        assert found is not None
        x, base = float(found[1]), float(found[2])
        boxes.append((x, x + CHARACTER * length, base - 9, base + 2))
        beside = abs(base - 4 - py) <= 6.1 and (abs(x - px) < 10 or abs(x + CHARACTER * length - px) < 10)
        assert beside == (len(shapes) == 1)  # else a leader line is drawn first
    for number, (left, right, top, bottom) in enumerate(boxes):
        assert not any(left - 4 < x < right + 4 and top - 4 < y < bottom + 4 for x, y in points)
        assert not any(a < right and left < b and c < bottom and top < d for a, b, c, d in boxes[number + 1 :])


def test_a_full_chart_leaves_labels_out_rather_than_over_points() -> None:
    points = [(x, y) for x in range(60, 736, 8) for y in range(24, 330, 8)]
    assert Labels(FRONTIER, points).draw(0, "a label", "name") == []


def test_on_a_crowded_chart_leader_lines_are_short() -> None:
    points = clusters(FRONTIER, 100, 0)
    labels = Labels(FRONTIER, points)
    drawn = [labels.draw(number, "x" * 14, "name", far=False) for number in range(100)]
    leaders = [re.findall(r'[xy][12]="([-\\d.]+)"', str(shapes[0])) for shapes in drawn if len(shapes) == 2]
    assert leaders and sum(not shapes for shapes in drawn) > 10
    assert max(math.dist(map(float, places[:2]), map(float, places[2:])) for places in leaders) < 70


def test_on_phones_a_legend_names_every_point(board: Board) -> None:
    drawn = str(figures.frontier(board, board.primary[0], narrow=True))
    assert drawn.startswith('<svg viewBox="0 0 344 ') and drawn.count("<circle") == 10
    for place in range(1, 11):
        assert len(re.findall(rf'class="name[^"]*" text-anchor="start">{place} ', drawn)) == 1
