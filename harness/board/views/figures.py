"""Intervals, a row each: differences from the baseline, and ranks over bootstrap draws."""

from __future__ import annotations

from markupsafe import Markup

from harness.board.views import svg
from harness.board.board import Board, MetricEntry, RankEntry, RowEntry
from harness.board.standing import delta_of, is_reference, mark, noise_floor, verdict
from harness.board.views.text import number, shortened, signed

WIDTH, LABELS, NUMBERS = 772, 202, 212
STEP, TOP = 28, 34


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
    return [*shapes, svg.text(4, 14, f"against {shortened(baseline, 14)}", "tick")]


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
