"""The figures of a board: differences, ranks, scores against cost, training curves and sweeps.

Each function returns an SVG figure, or None if the board has too little to draw.
"""

from __future__ import annotations

import os.path
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from markupsafe import Markup

from harness.board.board import (
    Board,
    Delta,
    MetricEntry,
    RankEntry,
    RowEntry,
)
from harness.board.views import svg
from harness.board.views.text import count, duration, number, one_line, shortened, signed

# Figures with a line of text for each row: names at the left, an interval, numbers at the right. In pixels.
WIDTH, NAMES, NUMBERS, TOP, STEP = 772, 202, 212, 34, 28
# On a phone the names and numbers stand above the intervals, and points have numbers that a legend explains.
NARROW, NARROW_STEP = svg.NARROW, 40
FRONTIER = svg.Chart(left=56, right=736, top=24, floor=330)
NARROW_FRONTIER = svg.Chart(left=44, right=NARROW - 22, top=24, floor=260)
SWEEP = svg.Chart(left=56, right=570, top=24, floor=300)
NARROW_SWEEP = svg.Chart(left=44, right=NARROW - 12, top=24, floor=230)
CURVE = svg.Chart(left=46, right=232, top=10, floor=92)
LEARNING = svg.Chart(left=46, right=228, top=10, floor=104)

COSTS = {
    "seconds": "time per seed",
    "tokens_trained": "tokens trained per seed",
    "tokens_generated": "tokens generated per seed",
    "judge_tokens": "judge tokens per seed",
    "usd": "judge US$ per seed",
}
CROWDED = 30  # points; on a figure with more, only labels near their points are drawn, and those of the front
WIDE_COSTS = 30.0  # costs that differ by more than this factor are on a logarithmic axis
Points = list[tuple[RowEntry, float, float]]  # row, cost, mean

COMMON_QUANTITIES = ("loss", "margin", "accuracy", "gradient_norm")  # shown first, in this order
MOST_QUANTITIES = 5
FEW_ROWS, POINTS, FEWER_POINTS = 20, 80, 32  # points of a curve on a board of few rows, and on a larger one

FEWEST_VALUES = 3  # a parameter with fewer values is a comparison, which the table shows
WIDE_SWEEP = 8.0  # values that differ by at least this factor are on a logarithmic axis
SERIES_COLOURS = 8  # further series repeat the colours, dashed
Settings = dict[str, float | str | None]


# Differences and ranks


def forest(board: Board, metric: MetricEntry, narrow: bool = False) -> Markup | None:
    """Draw every row's difference from the baseline with its interval; the band is the noise floor.

    None if no row has a difference.
    """
    rows = [row for row in board.rows if row.delta(metric.key)]
    if not rows:
        return None
    floor = board.noise_floor(metric.key) or 0.0
    deltas = [delta for row in rows if (delta := row.delta(metric.key))]
    chart = _row_chart(len(rows), narrow)
    scale = chart.across([*(bound for delta in deltas for bound in (delta.low, delta.high)), 0.0, floor, -floor])
    shapes = []
    if floor:
        shapes.append(svg.rect(scale(-floor), chart.top, scale(floor) - scale(-floor), chart.floor - chart.top, "noise"))
    shapes += chart.ticks_across((scale(tick), signed(tick)) for tick in scale.ticks())
    shapes += [svg.line(scale(0), chart.top - 4, scale(0), chart.floor + 3, "zero")]
    shapes += _directions(metric, scale(0), board.baseline, narrow)
    for index, row in enumerate(rows):
        shapes += (_narrow_difference if narrow else _difference)(row, metric, scale, _height(index, narrow))
    label = f"Difference from {board.baseline} on {metric.key}, with intervals, for {len(rows)} rows"
    return svg.drawing(NARROW if narrow else WIDTH, chart.floor + 28, label, shapes)


def _row_chart(rows: int, narrow: bool = False) -> svg.Chart:
    if narrow:
        return svg.Chart(16, NARROW - 16, TOP - 12, TOP + NARROW_STEP * rows)
    return svg.Chart(NAMES + 8, WIDTH - NUMBERS, TOP - 6, TOP + STEP * rows)


def _height(index: int, narrow: bool) -> float:
    """Return the height of a row's interval."""
    return TOP + NARROW_STEP * index + 30 if narrow else TOP + STEP * index + STEP / 2


def _directions(metric: MetricEntry, zero: float, baseline: str, narrow: bool = False) -> list[Markup]:
    """Name both sides of zero, and the row that is compared against."""
    below, above = {True: ("← worse", "better →"), False: ("← better", "worse →"), None: ("← less", "more →")}[
        metric.higher_is_better
    ]
    if narrow:
        return [svg.text(4, 14, below, "tick"), svg.text(NARROW - 4, 14, above, "tick", "end")]
    shapes = [svg.text(zero - 8, 14, below, "tick", "end"), svg.text(zero + 8, 14, above, "tick")]
    return [*shapes, svg.text(4, 14, f"against {shortened(baseline, 14)}", "tick")]


def _difference(row: RowEntry, metric: MetricEntry, scale: svg.Scale, y: float) -> list[Markup]:
    delta = row.delta(metric.key)
    assert delta is not None
    kind = delta.verdict(metric)
    aside = " aside" if row.is_reference else ""
    interval = f"{signed(delta.low)} to {signed(delta.high)}"
    return [
        svg.text(NAMES - 6, y + 4, shortened(row.method), f"name{aside}", "end"),
        svg.line(scale(delta.low), y, scale(delta.high), y, f"whisker {kind}"),
        svg.circle(scale(delta.mean), y, f"point {kind}{aside}", f"{row.method}: {signed(delta.mean)} ({interval})"),
        svg.text(WIDTH - NUMBERS + 58, y + 4, f"{signed(delta.mean)}", f"value {kind}", "end"),
        svg.text(WIDTH - NUMBERS + 61, y + 4, delta.mark, f"value {kind}"),
        svg.text(WIDTH - 4, y + 4, f"{signed(delta.low)} … {signed(delta.high)}", "tick", "end"),
    ]


def _narrow_difference(row: RowEntry, metric: MetricEntry, scale: svg.Scale, y: float) -> list[Markup]:
    """Draw the name and the difference above the interval."""
    delta = row.delta(metric.key)
    assert delta is not None
    kind = delta.verdict(metric)
    aside = " aside" if row.is_reference else ""
    return [
        svg.text(4, y - 12, shortened(row.method), f"name{aside}"),
        svg.text(NARROW - 4, y - 12, f"{signed(delta.mean)}{delta.mark}", f"value {kind}", "end"),
        svg.line(scale(delta.low), y, scale(delta.high), y, f"whisker {kind}"),
        svg.circle(scale(delta.mean), y, f"point {kind}{aside}"),
    ]


def gains(board: Board, metric: MetricEntry, narrow: bool = False) -> Markup | None:
    """Draw every row's difference from the baseline under each starting model; ✱ where two of them differ significantly.

    None if no row has a difference under two models.
    """
    models = board.by_model
    deltas: dict[str, dict[str, Delta]] = {}
    for label, of_model in models.items():
        for row in of_model.rows:
            if (delta := row.delta(metric.key)) is not None and not row.is_null:
                deltas.setdefault(row.method, {})[label] = delta
    shown = {name: by_model for name, by_model in deltas.items() if len(by_model) > 1}
    if not shown:
        return None
    starred = {
        gain.row for gain in (board.across.gains if board.across else ()) if gain.metric == metric.key and gain.is_significant
    }
    width = NARROW if narrow else WIDTH
    # On a phone the models' names stand one below the other, and each row's name above its intervals.
    above = 18 if narrow else 0
    step = max(STEP, 12 + 13 * len(models)) + above
    top = TOP + (16 * len(models) if narrow else 18)
    chart = (
        svg.Chart(16, NARROW - 76, top - 6, top + step * len(shown))
        if narrow
        else (svg.Chart(NAMES + 8, WIDTH - NUMBERS, top - 6, top + step * len(shown)))
    )
    bounds = [bound for by_model in shown.values() for delta in by_model.values() for bound in (delta.low, delta.high)]
    scale = chart.across([*bounds, 0.0])
    shapes = chart.ticks_across((scale(tick), signed(tick)) for tick in scale.ticks())
    shapes += [svg.line(scale(0), chart.top - 4, scale(0), chart.floor + 3, "zero")]
    shapes += _directions(metric, scale(0), board.baseline, narrow)
    x, y = chart.left, 30.0
    for place, label in enumerate(models):
        kind = f"series{place % SERIES_COLOURS}"
        shapes += [svg.circle(x, y, f"point {kind}"), svg.text(x + 9, y + 4, shortened(label, 24), f"name {kind}")]
        x, y = (x, y + 16) if narrow else (x + 24 + 7 * len(shortened(label, 24)), y)
    for index, (name, by_model) in enumerate(shown.items()):
        middle = top + step * index + above + (step - above) / 2
        title = shortened(name) + (" ✱" if name in starred else "")
        shapes.append(
            svg.text(4, top + step * index + 14, title, "name")
            if narrow
            else svg.text(NAMES - 6, middle + 4, title, "name", "end")
        )
        for place, label in enumerate(models):
            if label not in by_model:
                continue
            delta, y = by_model[label], middle + 13 * (place - (len(models) - 1) / 2)
            kind, interval = f"series{place % SERIES_COLOURS}", f"{signed(delta.low)} to {signed(delta.high)}"
            shapes += [
                svg.line(scale(delta.low), y, scale(delta.high), y, f"whisker {kind}"),
                svg.circle(scale(delta.mean), y, f"point {kind}", f"{name} from {label}: {signed(delta.mean)} ({interval})"),
            ]
            if narrow:
                shapes.append(svg.text(NARROW - 4, y + 4, f"{signed(delta.mean)}{delta.mark}", f"value {kind}", "end"))
                continue
            shapes += [
                svg.text(WIDTH - NUMBERS + 58, y + 4, signed(delta.mean), f"value {kind}", "end"),
                svg.text(WIDTH - NUMBERS + 61, y + 4, delta.mark, "value"),
                svg.text(WIDTH - 4, y + 4, f"{signed(delta.low)} … {signed(delta.high)}", "tick", "end"),
            ]
    label = f"Difference from {board.baseline} on {metric.key} under each starting model, for {len(shown)} rows"
    return svg.drawing(width, chart.floor + 28, label, shapes)


def ranks(board: Board, metric: MetricEntry, narrow: bool = False) -> Markup | None:
    """Draw the ranks that each competing row may have, and how often it is first over bootstrap draws.

    On older boards the interval is over bootstrap draws too.

    None if the board has no ranks on this metric.
    """
    ranking = board.analysis.ranking.get(metric.key, {}) if board.analysis else {}
    if not ranking:
        return None
    place = board.first_place(metric.key)
    tested = place.ranks if place else {}
    rows = sorted(ranking.items(), key=lambda item: (item[1].mean, item[0]))
    rows = [(label, rank) for label, rank in rows if label in tested] if tested else rows
    chart, width = _row_chart(len(rows), narrow), NARROW if narrow else WIDTH
    scale = svg.Scale(0.5, len(rows) + 0.5, chart.left, chart.right)
    ticks = sorted({1, *(round(tick) for tick in scale.ticks(8) if 1 <= tick <= len(rows))})
    heading = svg.text(4, 14, "rank", "tick") if narrow else svg.text(scale(1), 14, "rank", "tick", "middle")
    shapes = [heading, svg.text(width - 4, 14, "first in", "tick", "end")]
    shapes += chart.ticks_across((scale(tick), str(tick)) for tick in ticks)
    for index, (label, rank) in enumerate(rows):
        low, high = tested.get(label, (rank.low, rank.high))
        shapes += _rank(label, rank.model_copy(update={"low": low, "high": high}), scale, _height(index, narrow), narrow)
    return svg.drawing(width, chart.floor + 28, f"Ranks on {metric.key}, for {len(rows)} rows", shapes)


def _rank(label: str, rank: RankEntry, scale: svg.Scale, y: float, narrow: bool) -> list[Markup]:
    hint = f"{label}: mean rank {number(rank.mean)}, {rank.low:g} to {rank.high:g}, first in {rank.first:.1%} of the draws"
    kind = "base" if rank.first >= 0.5 else "plain"
    first = f"{rank.first:.0%}" if rank.first >= 0.005 or not rank.first else "<1%"
    drawn = [
        svg.line(scale(rank.low), y, scale(rank.high), y, f"whisker {kind}"),
        svg.circle(scale(rank.mean), y, f"point {kind}", "" if narrow else hint),
    ]
    if narrow:
        ranks_ = svg.text(NARROW - 60, y - 12, f"{rank.low:g} … {rank.high:g}", "tick", "end")
        return [
            svg.text(4, y - 12, shortened(label), "name"),
            *drawn,
            ranks_,
            svg.text(NARROW - 4, y - 12, first, "value", "end"),
        ]
    return [
        svg.text(NAMES - 6, y + 4, shortened(label), "name", "end"),
        *drawn,
        svg.text(WIDTH - NUMBERS + 90, y + 4, f"{rank.low:g} … {rank.high:g}", "tick", "end"),
        svg.text(WIDTH - 4, y + 4, first, "value", "end"),
    ]


# Scores against cost


def frontiers(board: Board) -> Iterator[tuple[str, Markup]]:
    """Yield title and figure: the first primary metric against every cost, the other primary metrics against time."""
    for metric in board.primary:
        for cost, title in COSTS.items():
            if metric == board.primary[0] or cost == "seconds":
                drawn = svg.for_all_widths(partial(frontier, board, metric, cost))
                if drawn is not None:
                    yield f"{board.short_name(metric)} against {title}", drawn


def frontier(board: Board, metric: MetricEntry, cost: str = "seconds", narrow: bool = False) -> Markup | None:
    """Draw the metric against a cost, for rows that have both; None if no two of them differ in cost."""
    scored = [(row, getattr(row.cost, cost), row.scores[metric.key].mean) for row in board.rows if metric.key in row.scores]
    points: Points = [(row, spent, mean) for row, spent, mean in scored if spent is not None]
    if len({spent for _, spent, _ in points}) < 2:
        return None
    chart = NARROW_FRONTIER if narrow else FRONTIER
    front = pareto_front(points, metric.higher_is_better)
    leading = [row.method for row, *_ in front]
    # Rows on the front come first, so that they get the best places for their labels.
    points.sort(key=lambda point: point[0].method not in leading)
    across = _cost_scale(chart, [spent for _, spent, _ in points])
    up = _score_scale(chart, metric, [row for row, *_ in points])
    shapes = [
        *chart.ticks_across(_cost_ticks(across, cost, 3 if narrow else 6)),
        *chart.ticks_up((up(tick), number(tick)) for tick in up.ticks()),
        svg.text(chart.right, chart.floor + 35, COSTS[cost], "tick", "end"),
        svg.text(chart.left, 14, board.short_name(metric), "tick"),
    ]
    if len(front) > 1:
        shapes.append(svg.path(_steps([(across(spent), up(mean)) for _, spent, mean in front]), "front"))
    shapes += [shape for row, spent, _ in points for shape in _interval(row, metric, across(spent), up)]
    labels = svg.Labels(chart, [(across(spent), up(mean)) for _, spent, mean in points])
    names, leaders, labelled = list[Markup](), list[Markup](), set[int]()
    for place, (row, *_) in enumerate(points):
        kind = "name" if row.method in leading else "name aside"
        far = len(points) <= CROWDED or row.method in leading
        drawn = labels.draw(place, str(place + 1) if narrow else shortened(row.method, 22), kind, far=far)
        leaders, names = [*leaders, *drawn[:-1]], [*names, *drawn[-1:]]
        labelled |= {place} if drawn else set()
    shapes += leaders
    for (row, *_), (x, y) in zip(points, labels.points, strict=True):
        kind = "base" if row.method in leading else "plain" if row.method == board.baseline else "unclear"
        shapes.append(svg.circle(x, y, f"point {kind}{' aside' if row.is_reference else ''}", "" if narrow else row.method))
    shapes += names
    label = f"{metric.key} against {COSTS[cost]}, for {len(points)} rows"
    if front:
        label += f"; none is better and cheaper than {', '.join(leading)}"
    if not narrow:
        return svg.drawing(760, chart.floor + 40, label, shapes)
    legend = [
        (f"{place + 1} {shortened(row.method, 20)}", "name" if row.method in leading else "name aside")
        for place, (row, *_) in enumerate(points)
        if place in labelled
    ]
    return svg.drawing(
        NARROW, chart.floor + 50 + svg.legend_height(legend), label, [*shapes, *svg.legend(legend, chart.floor + 56)]
    )


def pareto_front(points: Points, higher_is_better: bool | None) -> Points:
    """Return the competing rows that no other row beats at the same or a lower cost, cheapest first.

    Empty if the metric has no direction.
    """
    if higher_is_better is None:
        return []
    sign, front = (1 if higher_is_better else -1), Points()
    for point in sorted((p for p in points if not p[0].is_reference), key=lambda p: (p[1], -sign * p[2])):
        if not front or sign * point[2] > sign * front[-1][2]:
            front.append(point)
    return front


def _steps(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the front as steps: level until the next row's cost, then straight to its score."""
    steps = [points[0]]
    for x, y in points[1:]:
        steps += [(x, steps[-1][1]), (x, y)]
    return steps


def _cost_scale(chart: svg.Chart, costs: list[float]) -> svg.Scale:
    low, high = min(costs), max(costs)
    if low > 0 and high / low > WIDE_COSTS:
        return chart.across(costs, log=True)
    return svg.Scale(0.0, high * 1.08 or 1.0, chart.left, chart.right)


def _score_scale(chart: svg.Chart, metric: MetricEntry, rows: Sequence[RowEntry]) -> svg.Scale:
    """Return a vertical scale over the rows' means and intervals."""
    scores = [row.scores[metric.key] for row in rows]
    return chart.up(value for score in scores for value in (score.mean, score.low, score.high) if value is not None)


def _cost_ticks(across: svg.Scale, cost: str, about: int = 6) -> list[tuple[float, str]]:
    """Return the positions and labels of the ticks; times are round in the largest unit that has two ticks."""
    if across.log:
        return [(across(tick), _amount(tick, cost)) for tick in across.ticks(about)]
    unit = next((unit for unit in (3600, 60, 1) if across.high >= 2 * unit), 1) if cost == "seconds" else 1
    inner = svg.Scale(across.low / unit, across.high / unit, across.start, across.end)
    return [(inner(tick), _amount(tick * unit, cost)) for tick in inner.ticks(about)]


def _amount(value: float, cost: str) -> str:
    if not value:
        return "0"
    return duration(value) if cost == "seconds" else f"${value:.2g}" if cost == "usd" else count(value)


def _interval(row: RowEntry, metric: MetricEntry, x: float, up: svg.Scale, kind: str = "") -> list[Markup]:
    score = row.scores[metric.key]
    if score.low is None or score.high is None:
        return []
    return [svg.line(x, up(score.low), x, up(score.high), f"range {kind}".rstrip())]


# Training curves


def quantities(board: Board) -> list[str]:
    """Return the names of the quantities that rows logged per step, the common ones first."""
    logged = {key for row in board.rows for log in row.curves.values() for point in log if "step" in point for key in point}
    others = sorted(logged - {*COMMON_QUANTITIES, "step", "round", "learning_rate"})
    return [name for name in (*COMMON_QUANTITIES, *others) if name in logged][:MOST_QUANTITIES]


def training(board: Board) -> list[tuple[str, list[tuple[RowEntry, Markup]]]]:
    """Return, for each logged quantity, the rows that have it with their figures."""
    points = POINTS if sum(bool(row.curves) for row in board.rows) <= FEW_ROWS else FEWER_POINTS
    return [(name, [(row, drawn) for row in board.rows if (drawn := curve(row, name, points))]) for name in quantities(board)]


def curve(row: RowEntry, name: str, points: int = POINTS) -> Markup | None:
    """Draw one row's training, a line per seed of at most `points` points; None if the row did not log the quantity."""
    logs = [[(p["step"], p[name]) for p in log if name in p and "step" in p] for log in row.curves.values()]
    logs = [_thinned(log, points) for log in logs if log]
    if not logs:
        return None
    across = CURVE.across((step for log in logs for step, _ in log), margin=0.01)
    up = CURVE.up(value for log in logs for _, value in log)
    # Three ticks suit so small a figure; a finer step is taken if it has fewer than two.
    ticks = next((finer for about in (3, 5, 8) if len(finer := up.ticks(about)) > 1), [])
    shapes = CURVE.ticks_up((up(tick), number(tick)) for tick in ticks)
    shapes += [
        svg.path(((round(across(step), 1), round(up(value), 1)) for step, value in log), f"curve seed{index % 4}")
        for index, log in enumerate(logs)
    ]
    last = max(step for log in logs for step, _ in log)
    shapes.append(svg.text(CURVE.right, 110, f"step {last:,.0f}", "tick", "end"))
    return svg.drawing(240, 116, f"{name} of {row.method} while training, one line per seed", shapes)


def _thinned(log: Sequence[tuple[float, float]], points: int) -> list[tuple[float, float]]:
    """Return evenly spaced points, the first and the last among them."""
    if len(log) <= points:
        return list(log)
    return [log[round(index * (len(log) - 1) / (points - 1))] for index in range(points)]


# Learning curves


def learning(board: Board) -> list[tuple[MetricEntry, list[tuple[RowEntry, Markup]]]]:
    """Return, for each metric that intermediate states were evaluated on, the rows that have them with their figures."""
    rows = [row for row in board.rows if row.states]
    shown = {key for row in rows for state in row.states or () for key in state.scores}
    primary = [metric.key for metric in board.primary]
    metrics = sorted((metric for metric in board.metrics if metric.key in shown), key=lambda metric: metric.key not in primary)
    figures = []
    for metric in metrics:
        curves = {row.method: learning_curve(row, metric.key) for row in rows}
        values = [value for curve in curves.values() for _, *bounds in curve for value in bounds]
        base = board.row(board.baseline)
        level = base.scores[metric.key].mean if base and metric.key in base.scores else None
        up = LEARNING.up([*values, *([] if level is None else [level])])
        drawn = [(row, _learning(row, curves[row.method], up, level, metric)) for row in rows if curves[row.method]]
        figures.append((metric, drawn))
    return figures


def learning_curve(row: RowEntry, key: str) -> list[tuple[float, float, float, float]]:
    """Return position, mean and interval of a row at each of its states with this metric, and at its end."""
    points = [
        (state.position, point.mean, point.low, point.high)
        for state in row.states or ()
        if (point := state.scores.get(key)) is not None
    ]
    end = row.scores.get(key)
    if end is not None and end.low is not None and end.high is not None:
        points.append((1.0, end.mean, end.low, end.high))
    return points


def _learning(
    row: RowEntry, points: Sequence[tuple[float, float, float, float]], up: svg.Scale, level: float | None, metric: MetricEntry
) -> Markup:
    """Draw one row's curve with its intervals; all rows of a metric share the vertical scale, and the baseline's mean.

    Args:
        level: the baseline's mean.
    """
    across = LEARNING.across((0.0, 1.0), margin=0.03)
    ticks = next((finer for about in (3, 5, 8) if len(finer := up.ticks(about)) > 1), [])
    shapes = LEARNING.ticks_up((up(tick), number(tick)) for tick in ticks)
    ends = sorted({state.position for state in row.states or () if state.share == 1.0})
    shapes += [svg.line(across(end), LEARNING.top, across(end), LEARNING.floor, "rule") for end in ends]
    shapes += LEARNING.ticks_across(((across(share), f"{share:.0%}") for share in (0.0, 0.5, 1.0)), rules=False)
    if level is not None:
        shapes.append(svg.line(LEARNING.left, up(level), LEARNING.right, up(level), "level"))
    lower, upper = ([(across(point[0]), up(point[side])) for point in points] for side in (2, 3))
    shapes.append(svg.path([*lower, *reversed(upper)], "spread"))
    shapes.append(svg.path([(across(position), up(mean)) for position, mean, *_ in points], "curve seed0"))
    shapes += [
        svg.circle(
            across(position), up(mean), "point base", f"at {position:.4g}: {number(mean)} ({number(low)} to {number(high)})", 3
        )
        for position, mean, low, high in points
    ]
    return svg.drawing(240, 128, f"{metric.key} of {row.method} while it was trained, with intervals", shapes)


# Sweeps


@dataclass(frozen=True)
class Series:
    """Rows that differ in one number only, with its values in ascending order."""

    label: str
    points: tuple[tuple[float, RowEntry], ...]


def sweeps(board: Board) -> dict[str, list[Series]]:
    """Return, by parameter, the series in which it has at least three values and nothing else changes."""
    groups: dict[tuple[str, str], dict[float, RowEntry]] = defaultdict(dict)
    for row in board.rows:
        settings = _settings(row)
        for name, value in settings.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                # Rows whose other settings are equal belong to one series.
                rest = repr(sorted((key, other) for key, other in settings.items() if key != name))
                groups[name, rest].setdefault(float(value), row)
    series: dict[str, list[Series]] = defaultdict(list)
    for (name, _), rows in groups.items():
        if len(rows) >= FEWEST_VALUES:
            points = tuple(sorted(rows.items()))
            series[name].append(Series(_common([row.method for _, row in points], name), points))
    return dict(sorted(series.items()))


def sweep_figures(board: Board) -> Iterator[tuple[str, Markup]]:
    """Yield title and figure for each swept parameter and primary metric."""
    for name, series in sweeps(board).items():
        for metric in board.primary:
            drawn = svg.for_all_widths(partial(scaling, board, metric, name, series))
            if drawn is not None:
                yield f"{board.short_name(metric)} over {one_line(name)}", drawn


def scaling(board: Board, metric: MetricEntry, name: str, series: list[Series], narrow: bool = False) -> Markup | None:
    """Draw the metric over a swept parameter, a line per series, with intervals; None if no series has two scores."""
    scored = [Series(one.label, tuple(point for point in one.points if metric.key in point[1].scores)) for one in series]
    scored = [one for one in scored if len(one.points) > 1]
    if not scored:
        return None
    values = sorted({value for one in scored for value, _ in one.points})
    log = values[0] > 0 and values[-1] / values[0] >= WIDE_SWEEP
    chart = NARROW_SWEEP if narrow else SWEEP
    across = chart.across(values, log=log)
    up = _score_scale(chart, metric, [row for one in scored for _, row in one.points])
    ticks = (
        values if len(values) <= (5 if narrow else 8) else across.ticks(3 if narrow else 6)
    )  # few values are ticks themselves
    shapes = [
        *chart.ticks_across((across(tick), f"{tick:g}") for tick in ticks),
        *chart.ticks_up((up(tick), number(tick)) for tick in up.ticks()),
        svg.text(chart.left, 14, board.short_name(metric), "tick"),
        svg.text(chart.right, chart.floor + 35, name + (", logarithmic" if log else ""), "tick", "end"),
    ]
    ends = []
    for index, one in enumerate(scored):
        kind = f"series{index % SERIES_COLOURS}"
        places = [(across(value), up(row.scores[metric.key].mean)) for value, row in one.points]
        for (x, _), (_, row) in zip(places, one.points, strict=True):
            shapes += _interval(row, metric, x, up, kind)
        shapes.append(svg.path(places, f"line {kind}{' again' if index >= SERIES_COLOURS else ''}"))
        for (x, y), (value, row) in zip(places, one.points, strict=True):
            hint = f"{one.label}, {name} {value:g}: {number(row.scores[metric.key].mean)}"
            shapes.append(svg.circle(x, y, f"point {kind}", "" if narrow else hint, 3.5))
        ends.append((places[-1], one.label, f"name {kind}"))
    ends.sort(key=lambda end: (end[0][1], end[1]))
    title = f"{metric.key} over {name}, a line for each of {', '.join(one.label for one in scored)}"
    if narrow:
        legend = [(shortened(label, 22), kind) for _, label, kind in ends]
        return svg.drawing(
            NARROW, chart.floor + 50 + svg.legend_height(legend), title, [*shapes, *svg.legend(legend, chart.floor + 56)]
        )
    leaders, names = svg.end_labels(chart, ends)
    shapes = [*leaders, *shapes, *names]
    return svg.drawing(760, chart.floor + 40, title, shapes)


def _settings(row: RowEntry) -> Settings:
    """Return a row's settings, flat: `data.negatives`, `objective.beta`, `training.learning_rate`, `rounds`.

    They come from its provenance, or without one from the brackets of its label, as sweeps write them.
    """
    rounds = row.provenance.get("rounds")
    if not isinstance(rounds, list) or not rounds or not all(isinstance(item, Mapping) for item in rounds):
        return _settings_of_label(row)
    flat = [dict(_flat(item)) for item in rounds]
    names = {name for settings in flat for name in settings}
    merged: Settings = {}
    for name in names:
        values = [settings.get(name) for settings in flat]
        merged[name] = values[0] if all(value == values[0] for value in values) else repr(values)
    merged |= dict(_flat({"budget": row.provenance.get("budget") or {}}))
    return {**merged, "rounds": len(rounds), "kind": row.kind, "seed_offset": repr(row.provenance.get("seed_offset"))}


def _flat(value: Mapping[str, object], before: str = "") -> Iterator[tuple[str, float | str]]:
    for key, item in value.items():
        name = before if key == "fields" else f"{before}.{key}".lstrip(".")
        if isinstance(item, Mapping):
            yield from _flat(item, name)
        else:
            yield name, item if isinstance(item, int | float) else repr(item)


def _settings_of_label(row: RowEntry) -> Settings:
    label, bracket, inside = row.method.rstrip("]").partition("[")
    pairs = [part.partition("=") for part in inside.split(",")] if bracket else []
    settings: Settings = {"label": label, "kind": row.kind}
    for name, _, text in pairs:
        numeric = re.fullmatch(r"\s*[-+]?\d+(\.\d+)?([eE][-+]?\d+)?\s*", text)
        settings[name.strip()] = float(text) if numeric else text
    return settings


def _common(labels: list[str], name: str) -> str:
    """Return the common start of the labels, without the parameter's name at its end."""
    start = os.path.commonprefix(labels).rstrip("0123456789.")  # noqa: RUF071 - of texts, not of paths
    last = name.rpartition(".")[2]
    start = re.sub(rf"[\[(,\s]*{re.escape(last)}=?$", "", start)
    return start.rstrip(" _-=[(,+.:") or labels[0]
