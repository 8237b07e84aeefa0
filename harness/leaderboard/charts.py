"""Three pictures of a board: differences with their intervals, quality against time, and training curves."""

from __future__ import annotations

from markupsafe import Markup

from harness.leaderboard import svg
from harness.leaderboard.schema import Board, MetricEntry, RowEntry
from harness.leaderboard.standing import delta_of, is_reference, mark, noise_floor, short_name, verdict
from harness.leaderboard.text import number, shortened, signed

WIDTH, LABELS, NUMBERS = 760, 190, 212
STEP, TOP = 28, 34
FLOOR = 300  # where the horizontal axis of the scatter lies


def forest(board: Board, metric: MetricEntry) -> Markup | None:
    """Every row's difference from the baseline; the band is the noise floor. None without differences."""
    rows = [row for row in board.rows if delta_of(row, metric.key)]
    if not rows:
        return None
    floor = noise_floor(board, metric.key) or 0.0
    deltas = [delta for row in rows if (delta := delta_of(row, metric.key))]
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
    return [*shapes, svg.text(LABELS - 6, 14, f"against {shortened(baseline, 18)}", "tick", "end")]


def _difference(row: RowEntry, metric: MetricEntry, scale: svg.Scale, y: float) -> list[Markup]:
    delta = delta_of(row, metric.key)
    assert delta is not None
    kind = verdict(delta, metric)
    side = " aside" if is_reference(row) else ""
    interval = f"{signed(delta.low)} to {signed(delta.high)}"
    return [
        svg.text(LABELS - 6, y + 4, shortened(row.method), f"name{side}", "end"),
        svg.line(scale(delta.low), y, scale(delta.high), y, f"whisker {kind}"),
        svg.circle(scale(delta.mean), y, f"point {kind}{side}", f"{row.method}: {signed(delta.mean)} ({interval})"),
        svg.text(WIDTH - NUMBERS + 58, y + 4, f"{signed(delta.mean)}", f"value {kind}", "end"),
        svg.text(WIDTH - NUMBERS + 61, y + 4, mark(delta), f"value {kind}"),
        svg.text(WIDTH - 4, y + 4, f"{signed(delta.low)} … {signed(delta.high)}", "tick", "end"),
    ]


def scatter(board: Board, metric: MetricEntry) -> Markup | None:
    """The metric against the time one seed is charged for, of the rows that have one; None with fewer than two."""
    found = [(row, row.cost.seconds, row.scores[metric.key].mean) for row in board.rows if metric.key in row.scores]
    points = [(row, seconds, mean) for row, seconds, mean in found if seconds is not None]
    if len(points) < 2:
        return None
    longest = max(seconds for _, seconds, _ in points)
    name, unit = next((name, unit) for name, unit in (("h", 3600), ("min", 60), ("s", 1)) if longest >= 2 * unit or unit == 1)
    across = svg.Scale(0.0, longest / unit * 1.08 or 1.0, 56, WIDTH - 24)
    up = svg.spanning([mean for *_, mean in points], FLOOR, 24, margin=0.1)
    shapes = [svg.text(WIDTH - 24, FLOOR + 35, "time per seed", "tick", "end")]
    shapes.append(svg.text(56, 14, short_name(board, metric), "tick"))
    for tick in across.ticks(6):
        shapes += [svg.line(across(tick), 24, across(tick), FLOOR, "rule")]
        shapes += [svg.text(across(tick), FLOOR + 18, f"{tick:g} {name}" if tick else "0", "tick", "middle")]
    for tick in up.ticks():
        shapes += [svg.line(56, up(tick), WIDTH - 24, up(tick), "rule")]
        shapes += [svg.text(50, up(tick) + 4, number(tick), "tick", "end")]
    places = [(across(seconds / unit), up(mean)) for _, seconds, mean in points]
    taken = [(x - 6, x + 6, y + 4) for x, y in places]
    for (row, *_), at in zip(points, places, strict=True):
        shapes += _point(board, row, at, taken)
    return svg.drawing(WIDTH, FLOOR + 40, f"{metric.key} against the time of one seed, for {len(points)} rows", shapes)


def _point(board: Board, row: RowEntry, at: tuple[float, float], taken: list[tuple[float, float, float]]) -> list[Markup]:
    """A point and its label on the first free place around it; without a label (but a hint) where there is none.

    `taken` lists left end, right end and base line of what is there already; the label is added to it.
    """
    (x, y), label = at, shortened(row.method, 22)
    width = 7.3 * len(label)
    kind, side = "base" if row.method == board.baseline else "plain", " aside" if is_reference(row) else ""
    shapes = [svg.circle(x, y, f"point {kind}{side}", row.method)]
    shifts = (0, -12, 12, -24, 24, -36, 36)
    for left, line in ((left, y + 4 + shift) for shift in shifts for left in (x + 9, x - 9 - width)):
        inside = left >= 58 and left + width <= WIDTH - 4 and 20 < line < FLOOR + 4
        if inside and all(abs(line - other) >= 12 or left + width < start or left > end for start, end, other in taken):
            taken.append((left, left + width, line))
            return [*shapes, svg.text(round(left, 1), round(line, 1), label, f"name{side}")]
    return shapes


def curve(row: RowEntry) -> tuple[str, Markup] | None:
    """One row's training, a line per seed: what is drawn (the loss where it is logged) and the drawing."""
    points = [point for log in row.curves.values() for point in log]
    names = [name for name in ("loss", *sorted({key for point in points for key in point})) if name != "step"]
    name = next((name for name in names if any(name in point and "step" in point for point in points)), None)
    if name is None:
        return None
    logs = [[(p["step"], p[name]) for p in log if name in p and "step" in p] for log in row.curves.values()]
    across = svg.spanning([step for log in logs for step, _ in log], 46, 232, margin=0.01)
    up = svg.spanning([value for log in logs for _, value in log], 92, 10)
    shapes = []
    for tick in up.ticks(3):
        shapes += [svg.line(46, up(tick), 232, up(tick), "rule"), svg.text(40, up(tick) + 4, number(tick), "tick", "end")]
    shapes += [
        svg.path([(across(step), up(value)) for step, value in log], f"curve seed{index % 4}") for index, log in enumerate(logs)
    ]
    last = max(step for log in logs for step, _ in log)
    shapes.append(svg.text(232, 110, f"step {last:,.0f}", "tick", "end"))
    return name, svg.drawing(240, 116, f"{name} of {row.method} while training, one line per seed", shapes)
