"""Intervals, a row each: differences from the baseline, and ranks over bootstrap draws."""

from __future__ import annotations

import os.path
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from harness.board.board import Board, MetricEntry, RankEntry, RowEntry
from harness.board.views import svg
from harness.board.views.text import count, duration, number, one_line, shortened, signed

WIDTH_FRONTIER, LEFT, TOP_FRONTIER, FLOOR = 760, 56, 24, 330
WIDE = 30.0  # costs that differ by more than this factor are drawn on a logarithmic axis
COSTS = {
    "seconds": "time per seed",
    "tokens_trained": "tokens trained per seed",
    "tokens_generated": "tokens generated per seed",
    "judge_tokens": "judge tokens per seed",
    "usd": "judge US$ per seed",
}
Points = list[tuple[RowEntry, float, float]]  # row, cost, mean
FIRST = ("loss", "margin", "accuracy", "gradient_norm")  # what most people ask for, in this order
QUANTITIES = 5  # drawn at most
FEW_ROWS, POINTS, FEWER_POINTS = 20, 80, 32  # a large board's lines have fewer points, since they are drawn no larger
VALUES = 3  # fewer are a comparison, which the table shows
WIDTH_SWEEPS, LEFT_SWEEPS, RIGHT, TOP_SWEEPS, FLOOR_SWEEPS = 760, 56, 570, 24, 300
WIDE_SWEEPS = 8.0  # values that differ by this factor are drawn on a logarithmic axis
SERIES = 8  # colours that can be told apart; lines after them are dashed


WIDTH, LABELS, NUMBERS = 772, 202, 212


STEP, TOP = 28, 34


def forest(board: Board, metric: MetricEntry) -> Markup | None:
    """Every row's difference from the baseline; the band is the noise floor. None without differences."""
    rows = [row for row in board.rows if row.delta(metric.key)]
    if not rows:
        return None
    floor = board.noise_floor(metric.key) or 0.0
    deltas = [delta for row in rows if (delta := row.delta(metric.key))]
    bounds = [bound for delta in deltas for bound in (delta.low, delta.high)]
    scale = svg.spanning([*bounds, 0.0, floor, -floor], LABELS + 8, WIDTH - NUMBERS)
    bottom = TOP + STEP * len(rows)
    shapes = [svg.rect(scale(-floor), TOP - 6, scale(floor) - scale(-floor), bottom - TOP + 6, "noise")] if floor else []
    for tick in scale.ticks():
        shapes += [svg.line(scale(tick), TOP - 6, scale(tick), bottom, "rule")]
        shapes += [svg.text(scale(tick), bottom + 16, signed(tick), "tick", "middle")]
    shapes += [svg.line(scale(0), TOP - 10, scale(0), bottom + 3, "zero"), *_directions(metric, scale, board.baseline)]
    for index, row in enumerate(rows):
        shapes += _difference(row, metric, scale, TOP + STEP * index + STEP / 2)
    label = f"Difference from {board.baseline} on {metric.key}, with intervals, for {len(rows)} rows"
    return svg.drawing(WIDTH, bottom + 26, label, shapes)


def _directions(metric: MetricEntry, scale: svg.Scale, baseline: str) -> list[Markup]:
    left, right = {True: ("← worse", "better →"), False: ("← better", "worse →"), None: ("← less", "more →")}[
        metric.higher_is_better
    ]
    shapes = [svg.text(scale(0) - 8, 14, left, "tick", "end"), svg.text(scale(0) + 8, 14, right, "tick")]
    return [*shapes, svg.text(4, 14, f"against {shortened(baseline, 14)}", "tick")]


def _difference(row: RowEntry, metric: MetricEntry, scale: svg.Scale, y: float) -> list[Markup]:
    delta = row.delta(metric.key)
    assert delta is not None
    kind = delta.verdict(metric)
    side = " aside" if row.is_reference else ""
    interval = f"{signed(delta.low)} to {signed(delta.high)}"
    return [
        svg.text(LABELS - 6, y + 4, shortened(row.method), f"name{side}", "end"),
        svg.line(scale(delta.low), y, scale(delta.high), y, f"whisker {kind}"),
        svg.circle(scale(delta.mean), y, f"point {kind}{side}", f"{row.method}: {signed(delta.mean)} ({interval})"),
        svg.text(WIDTH - NUMBERS + 58, y + 4, f"{signed(delta.mean)}", f"value {kind}", "end"),
        svg.text(WIDTH - NUMBERS + 61, y + 4, delta.mark, f"value {kind}"),
        svg.text(WIDTH - 4, y + 4, f"{signed(delta.low)} … {signed(delta.high)}", "tick", "end"),
    ]


def ranks(board: Board, metric: MetricEntry) -> Markup | None:
    """The interval of each competing row's rank over bootstrap draws, and how often it comes first; None without ranks."""
    found = board.analysis.ranking.get(metric.key, {}) if board.analysis else {}
    if not found:
        return None
    rows = sorted(found.items(), key=lambda item: (item[1].mean, item[0]))
    scale = svg.Scale(0.5, len(rows) + 0.5, LABELS + 8, WIDTH - NUMBERS)
    bottom = TOP + STEP * len(rows)
    shapes = [svg.text(scale(1), 14, "rank", "tick", "middle"), svg.text(WIDTH - 4, 14, "first in", "tick", "end")]
    for tick in sorted({1, *(round(tick) for tick in scale.ticks(8) if 1 <= tick <= len(rows))}):
        shapes += [svg.line(scale(tick), TOP - 6, scale(tick), bottom, "rule")]
        shapes += [svg.text(scale(tick), bottom + 16, str(tick), "tick", "middle")]
    for index, (label, rank) in enumerate(rows):
        shapes += _rank(label, rank, scale, TOP + STEP * index + STEP / 2)
    return svg.drawing(WIDTH, bottom + 26, f"Ranks on {metric.key} over bootstrap draws, for {len(rows)} rows", shapes)


def _rank(label: str, rank: RankEntry, scale: svg.Scale, y: float) -> list[Markup]:
    hint = f"{label}: mean rank {number(rank.mean)}, {rank.low:g} to {rank.high:g}, first in {rank.first:.1%} of the draws"
    kind = "base" if rank.first >= 0.5 else "plain"
    return [
        svg.text(LABELS - 6, y + 4, shortened(label), "name", "end"),
        svg.line(scale(rank.low), y, scale(rank.high), y, f"whisker {kind}"),
        svg.circle(scale(rank.mean), y, f"point {kind}", hint),
        svg.text(WIDTH - NUMBERS + 90, y + 4, f"{rank.low:g} … {rank.high:g}", "tick", "end"),
        svg.text(WIDTH - 4, y + 4, f"{rank.first:.0%}" if rank.first >= 0.005 or not rank.first else "<1%", "value", "end"),
    ]


def frontiers(board: Board) -> Iterator[tuple[str, Markup]]:
    """Title and drawing: the first primary metric against every cost the rows tell, the others against time."""
    for metric in board.primary:
        for cost, title in COSTS.items():
            if metric == board.primary[0] or cost == "seconds":
                drawn = frontier(board, metric, cost)
                if drawn is not None:
                    yield f"{board.short_name(metric)} against {title}", drawn


def frontier(board: Board, metric: MetricEntry, cost: str = "seconds") -> Markup | None:
    """The metric against a cost, of the rows that have both; None where no two of them differ in cost."""
    found = [(row, getattr(row.cost, cost), row.scores[metric.key].mean) for row in board.rows if metric.key in row.scores]
    points: Points = [(row, spent, mean) for row, spent, mean in found if spent is not None]
    if len({spent for _, spent, _ in points}) < 2:
        return None
    front = pareto_front(points, metric.higher_is_better)
    across, up = _across([spent for _, spent, _ in points]), _up(points, metric)
    shapes = [*_axes(across, up, cost), svg.text(WIDTH_FRONTIER - 24, FLOOR + 35, COSTS[cost], "tick", "end")]
    shapes.append(svg.text(LEFT, 14, board.short_name(metric), "tick"))
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
        WIDTH_FRONTIER, FLOOR + 40, said + (f"; none is better and cheaper than {', '.join(leading)}" if front else ""), shapes
    )


def pareto_front(points: Points, higher_is_better: bool | None) -> Points:
    """Of the rows that compete, those with no other at least as good that costs no more, cheapest first.

    None where the metric has no direction.
    """
    if higher_is_better is None:
        return []
    sign, front = (1 if higher_is_better else -1), Points()
    for point in sorted((p for p in points if not p[0].is_reference), key=lambda p: (p[1], -sign * p[2])):
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
        return svg.spanning_log(costs, LEFT, WIDTH_FRONTIER - 24)
    return svg.Scale(0.0, high * 1.08 or 1.0, LEFT, WIDTH_FRONTIER - 24)


def _up(points: Points, metric: MetricEntry) -> svg.Scale:
    scores = [row.scores[metric.key] for row, *_ in points]
    values = [value for score in scores for value in (score.mean, score.low, score.high) if value is not None]
    return svg.spanning(values, FLOOR, TOP_FRONTIER)


def _axes(across: svg.Scale, up: svg.Scale, cost: str) -> list[Markup]:
    unit = next((unit for unit in (3600, 60, 1) if across.high >= 2 * unit), 1) if cost == "seconds" else 1
    inner = across if across.log else svg.Scale(across.low / unit, across.high / unit, across.start, across.end)
    shapes = []
    for tick in inner.ticks(6):
        value, at = (tick, inner(tick)) if across.log else (tick * unit, inner(tick))
        shapes += [
            svg.line(at, TOP_FRONTIER, at, FLOOR, "rule"),
            svg.text(at, FLOOR + 18, _amount(value, cost), "tick", "middle"),
        ]
    for tick in up.ticks():
        shapes += [svg.line(LEFT, up(tick), WIDTH_FRONTIER - 24, up(tick), "rule")]
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
        " aside" if row.is_reference else "",
    )
    shapes = [svg.circle(x, y, f"point {kind}{side}", row.method)]
    shifts = (0, -12, 12, -24, 24, -36, 36)
    for left, line in ((left, y + 4 + shift) for shift in shifts for left in (x + 9, x - 9 - width)):
        inside = left >= LEFT + 2 and left + width <= WIDTH_FRONTIER - 4 and TOP_FRONTIER - 4 < line < FLOOR + 4
        if inside and all(abs(line - other) >= 12 or left + width < start or left > end for start, end, other in taken):
            taken.append((left, left + width, line))
            return [*shapes, svg.text(round(left, 1), round(line, 1), label, f"name{'' if leads else ' aside'}")]
    return shapes


def quantities(board: Board) -> list[str]:
    """What was logged per step and can be drawn."""
    logged = {key for row in board.rows for log in row.curves.values() for point in log if "step" in point for key in point}
    others = sorted(logged - {*FIRST, "step", "round", "learning_rate"})
    return [name for name in (*FIRST, *others) if name in logged][:QUANTITIES]


def training(board: Board) -> list[tuple[str, list[tuple[RowEntry, Markup]]]]:
    """Per quantity the rows that logged it, with their drawings."""
    points = POINTS if sum(bool(row.curves) for row in board.rows) <= FEW_ROWS else FEWER_POINTS
    return [(name, [(row, drawn) for row in board.rows if (drawn := curve(row, name, points))]) for name in quantities(board)]


def curve(row: RowEntry, name: str, points: int = POINTS) -> Markup | None:
    """One row's training, a line per seed of at most so many points; None where it did not log `name`."""
    logs = [[(p["step"], p[name]) for p in log if name in p and "step" in p] for log in row.curves.values()]
    logs = [_thinned(log, points) for log in logs if log]
    if not logs:
        return None
    across = svg.spanning([step for log in logs for step, _ in log], 46, 232, margin=0.01)
    up = svg.spanning([value for log in logs for _, value in log], 92, 10)
    shapes = []
    for tick in next((ticks for about in (3, 5, 8) if len(ticks := up.ticks(about)) > 1), []):
        shapes += [svg.line(46, up(tick), 232, up(tick), "rule"), svg.text(40, up(tick) + 4, number(tick), "tick", "end")]
    shapes += [
        svg.path([(round(across(step), 1), round(up(value), 1)) for step, value in log], f"curve seed{index % 4}")
        for index, log in enumerate(logs)
    ]
    last = max(step for log in logs for step, _ in log)
    shapes.append(svg.text(232, 110, f"step {last:,.0f}", "tick", "end"))
    return svg.drawing(240, 116, f"{name} of {row.method} while training, one line per seed", shapes)


def _thinned(log: Sequence[tuple[float, float]], points: int) -> list[tuple[float, float]]:
    """Evenly spaced points, the first and the last among them."""
    if len(log) <= points:
        return list(log)
    return [log[round(index * (len(log) - 1) / (points - 1))] for index in range(points)]


@dataclass(frozen=True)
class Series:
    """Rows that differ in one number alone, with its values, smallest first."""

    label: str
    points: tuple[tuple[float, RowEntry], ...]


def sweeps(board: Board) -> dict[str, list[Series]]:
    """Parameter → the series in which it has at least three values and nothing else changes."""
    groups: dict[tuple[str, str], dict[float, RowEntry]] = defaultdict(dict)
    for row in board.rows:
        settings = _settings(row)
        for name, value in settings.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                rest = repr(sorted((key, other) for key, other in settings.items() if key != name))
                groups[name, rest].setdefault(float(value), row)
    found: dict[str, list[Series]] = defaultdict(list)
    for (name, _), rows in groups.items():
        if len(rows) >= VALUES:
            points = tuple(sorted(rows.items()))
            found[name].append(Series(_common([row.method for _, row in points], name), points))
    return dict(sorted(found.items()))


def figures(board: Board) -> Iterator[tuple[str, Markup]]:
    """Title and drawing of each swept parameter and primary metric."""
    for name, series in sweeps(board).items():
        for metric in board.primary:
            drawn = scaling(board, metric, name, series)
            if drawn is not None:
                yield f"{board.short_name(metric)} over {one_line(name)}", drawn


def scaling(board: Board, metric: MetricEntry, name: str, series: list[Series]) -> Markup | None:
    """The metric over a swept parameter, a line per series, with intervals; None where fewer than two rows have it."""
    shown = [
        (one.label, [(value, row.scores[metric.key]) for value, row in one.points if metric.key in row.scores])
        for one in series
    ]
    shown = [(label, points) for label, points in shown if len(points) > 1]
    if not shown:
        return None
    values = sorted({value for _, points in shown for value, _ in points})
    spread = values[0] > 0 and values[-1] / values[0] >= WIDE_SWEEPS
    across = (svg.spanning_log if spread else svg.spanning)(values, LEFT_SWEEPS, RIGHT)
    scores = [score for _, points in shown for _, score in points]
    up = svg.spanning([v for s in scores for v in (s.mean, s.low, s.high) if v is not None], FLOOR_SWEEPS, TOP_SWEEPS)
    shapes = [*_axes_sweeps(across, up, values), svg.text(LEFT_SWEEPS, 14, board.short_name(metric), "tick")]
    shapes.append(svg.text(RIGHT, FLOOR_SWEEPS + 35, name + (", logarithmic" if spread else ""), "tick", "end"))
    ends = []
    for index, (label, points) in enumerate(shown):
        kind = f"series{index % SERIES}"
        places = [(across(value), up(score.mean)) for value, score in points]
        for (x, _), (_, score) in zip(places, points, strict=True):
            if score.low is not None and score.high is not None:
                shapes.append(svg.line(x, up(score.low), x, up(score.high), f"range {kind}"))
        shapes.append(svg.path(places, f"line {kind}{' again' if index >= SERIES else ''}"))
        hints = [f"{label}, {name} {value:g}: {number(score.mean)}" for value, score in points]
        shapes += [svg.circle(x, y, f"point {kind}", hint, 3.5) for (x, y), hint in zip(places, hints, strict=True)]
        ends.append((places[-1][1], label, kind))
    said = f"{metric.key} over {name}, a line for each of {', '.join(label for label, _ in shown)}"
    return svg.drawing(WIDTH_SWEEPS, FLOOR_SWEEPS + 40, said, [*shapes, *_names(ends)])


def _axes_sweeps(across: svg.Scale, up: svg.Scale, values: list[float]) -> list[Markup]:
    """Where there are few values, they themselves are the ticks."""
    shapes = []
    for tick in values if len(values) <= 8 else across.ticks(6):
        shapes += [svg.line(across(tick), TOP_SWEEPS, across(tick), FLOOR_SWEEPS, "rule")]
        shapes += [svg.text(across(tick), FLOOR_SWEEPS + 18, f"{tick:g}", "tick", "middle")]
    for tick in up.ticks():
        shapes += [svg.line(LEFT_SWEEPS, up(tick), RIGHT, up(tick), "rule")]
        shapes += [svg.text(LEFT_SWEEPS - 6, up(tick) + 4, number(tick), "tick", "end")]
    return shapes


def _names(ends: list[tuple[float, str, str]]) -> list[Markup]:
    """Labels beside the lines' ends, pushed apart where they would touch."""
    shapes, before = [], TOP_SWEEPS - 16.0
    for y, label, kind in sorted(ends):
        before = max(y + 4, before + 14)
        shapes.append(svg.text(RIGHT + 10, round(before, 1), shortened(label, 24), f"name {kind}"))
    return shapes


def _settings(row: RowEntry) -> dict[str, Any]:
    """What a row was made with, flat: `data.negatives`, `objective.beta`, `training.learning_rate`, `rounds`.

    From its provenance; from the brackets of its label, as sweeps write them, where it has none.
    """
    rounds = row.provenance.get("rounds")
    if not isinstance(rounds, list) or not rounds or not all(isinstance(item, Mapping) for item in rounds):
        return _of_label(row)
    flat = [dict(_flat(item)) for item in rounds]
    names = {name for settings in flat for name in settings}
    found: dict[str, Any] = {}
    for name in names:
        values = [settings.get(name) for settings in flat]
        found[name] = values[0] if all(value == values[0] for value in values) else repr(values)
    return {**found, "rounds": len(rounds), "kind": row.kind, "seed_offset": repr(row.provenance.get("seed_offset"))}


def _flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        name = before if key == "fields" else f"{before}.{key}".lstrip(".")
        if isinstance(item, Mapping):
            yield from _flat(item, name)
        else:
            yield name, item if isinstance(item, int | float) else repr(item)


def _of_label(row: RowEntry) -> dict[str, Any]:
    label, bracket, inside = row.method.rstrip("]").partition("[")
    pairs = [part.partition("=") for part in inside.split(",")] if bracket else []
    found: dict[str, Any] = {"label": label, "kind": row.kind}
    for name, _, text in pairs:
        number_ = re.fullmatch(r"\s*[-+]?\d+(\.\d+)?([eE][-+]?\d+)?\s*", text)
        found[name.strip()] = float(text) if number_ else text
    return found


def _common(labels: list[str], name: str) -> str:
    """What the labels begin with, without a beginning of the parameter's own name."""
    start = os.path.commonprefix(labels).rstrip("0123456789.")  # noqa: RUF071 - of texts, not of paths
    last = name.rpartition(".")[2]
    start = re.sub(rf"[\[(,\s]*{re.escape(last)}=?$", "", start)
    return start.rstrip(" _-=[(,+.:") or labels[0]
