"""Quality against cost, with the Pareto front of the rows that compete."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from harness.board.views import svg
from harness.board.board import Board, MetricEntry, RowEntry
from harness.board.standing import is_reference, short_name
from harness.board.views.text import count, duration, number, shortened

WIDTH, LEFT, TOP, FLOOR = 760, 56, 24, 330
WIDE = 30.0  # costs that differ by more than this factor are drawn on a logarithmic axis
COSTS = {
    "seconds": "time per seed",
    "tokens_trained": "tokens trained per seed",
    "tokens_generated": "tokens generated per seed",
    "judge_tokens": "judge tokens per seed",
    "usd": "judge US$ per seed",
}
Points = list[tuple[RowEntry, float, float]]  # row, cost, mean


def frontiers(board: Board) -> Iterator[tuple[str, Markup]]:
    """Title and drawing: the first primary metric against every cost the rows tell, the others against time."""
    for metric in board.primary:
        for cost, title in COSTS.items():
            if metric == board.primary[0] or cost == "seconds":
                drawn = frontier(board, metric, cost)
                if drawn is not None:
                    yield f"{short_name(board, metric)} against {title}", drawn


def frontier(board: Board, metric: MetricEntry, cost: str = "seconds") -> Markup | None:
    """The metric against a cost, of the rows that have both; None where no two of them differ in cost."""
    found = [(row, getattr(row.cost, cost), row.scores[metric.key].mean) for row in board.rows if metric.key in row.scores]
    points: Points = [(row, spent, mean) for row, spent, mean in found if spent is not None]
    if len({spent for _, spent, _ in points}) < 2:
        return None
    front = pareto_front(points, metric.higher_is_better)
    across, up = _across([spent for _, spent, _ in points]), _up(points, metric)
    shapes = [*_axes(across, up, cost), svg.text(WIDTH - 24, FLOOR + 35, COSTS[cost], "tick", "end")]
    shapes.append(svg.text(LEFT, 14, short_name(board, metric), "tick"))
    if len(front) > 1:
        shapes.append(svg.path(_steps([(across(spent), up(mean)) for _, spent, mean in front]), "front"))
    taken = [(across(spent) - 6, across(spent) + 6, up(mean) + 4) for _, spent, mean in points]
    leading = [row.method for row, *_ in front]
    for row, spent, mean in sorted(points, key=lambda point: point[0].method not in leading):
        at = (across(spent), up(mean))
        shapes += _interval(row, metric, at[0], up)
        shapes += _point(board, row, at, taken, row.method in leading)
    said = f"{metric.key} against {COSTS[cost]}, for {len(points)} rows"
    return svg.drawing(
        WIDTH, FLOOR + 40, said + (f"; none is better and cheaper than {', '.join(leading)}" if front else ""), shapes
    )


def pareto_front(points: Points, higher_is_better: bool | None) -> Points:
    """Of the rows that compete, those with no other at least as good that costs no more, cheapest first.

    None where the metric has no direction.
    """
    if higher_is_better is None:
        return []
    sign, front = (1 if higher_is_better else -1), Points()
    for point in sorted((p for p in points if not is_reference(p[0])), key=lambda p: (p[1], -sign * p[2])):
        if not front or sign * point[2] > sign * front[-1][2]:
            front.append(point)
    return front


def _steps(places: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The border of what is reached: level until the next row, then straight to it."""
    steps = [places[0]]
    for x, y in places[1:]:
        steps += [(x, steps[-1][1]), (x, y)]
    return steps


def _across(costs: list[float]) -> svg.Scale:
    low, high = min(costs), max(costs)
    if low > 0 and high / low > WIDE:
        return svg.spanning_log(costs, LEFT, WIDTH - 24)
    return svg.Scale(0.0, high * 1.08 or 1.0, LEFT, WIDTH - 24)


def _up(points: Points, metric: MetricEntry) -> svg.Scale:
    scores = [row.scores[metric.key] for row, *_ in points]
    values = [value for score in scores for value in (score.mean, score.low, score.high) if value is not None]
    return svg.spanning(values, FLOOR, TOP)


def _axes(across: svg.Scale, up: svg.Scale, cost: str) -> list[Markup]:
    unit = next((unit for unit in (3600, 60, 1) if across.high >= 2 * unit), 1) if cost == "seconds" else 1
    inner = across if across.log else svg.Scale(across.low / unit, across.high / unit, across.start, across.end)
    shapes = []
    for tick in inner.ticks(6):
        value, at = (tick, inner(tick)) if across.log else (tick * unit, inner(tick))
        shapes += [svg.line(at, TOP, at, FLOOR, "rule"), svg.text(at, FLOOR + 18, _amount(value, cost), "tick", "middle")]
    for tick in up.ticks():
        shapes += [svg.line(LEFT, up(tick), WIDTH - 24, up(tick), "rule")]
        shapes += [svg.text(LEFT - 6, up(tick) + 4, number(tick), "tick", "end")]
    return shapes


def _amount(value: float, cost: str) -> str:
    if not value:
        return "0"
    return duration(value) if cost == "seconds" else f"${value:.2g}" if cost == "usd" else count(value)


def _interval(row: RowEntry, metric: MetricEntry, x: float, up: svg.Scale) -> list[Markup]:
    score = row.scores[metric.key]
    return [] if score.low is None or score.high is None else [svg.line(x, up(score.low), x, up(score.high), "range")]


def _point(
    board: Board, row: RowEntry, at: tuple[float, float], taken: list[tuple[float, float, float]], leads: bool
) -> list[Markup]:
    """A point and its label on the first free place around it; without a label (but a hint) where there is none.

    `taken` lists left end, right end and base line of what is there already; the label is added to it.
    """
    (x, y), label = at, shortened(row.method, 22)
    width = 7.3 * len(label)
    kind, side = (
        "base" if leads else "plain" if row.method == board.baseline else "unclear",
        " aside" if is_reference(row) else "",
    )
    shapes = [svg.circle(x, y, f"point {kind}{side}", row.method)]
    shifts = (0, -12, 12, -24, 24, -36, 36)
    for left, line in ((left, y + 4 + shift) for shift in shifts for left in (x + 9, x - 9 - width)):
        inside = left >= LEFT + 2 and left + width <= WIDTH - 4 and TOP - 4 < line < FLOOR + 4
        if inside and all(abs(line - other) >= 12 or left + width < start or left > end for start, end, other in taken):
            taken.append((left, left + width, line))
            return [*shapes, svg.text(round(left, 1), round(line, 1), label, f"name{'' if leads else ' aside'}")]
    return shapes
