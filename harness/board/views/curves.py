"""Training logs as small drawings, one line per seed."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from harness.board.views import svg
from harness.board.board import Board, RowEntry
from harness.board.views.text import number

FIRST = ("loss", "margin", "accuracy", "gradient_norm")  # what most people ask for, in this order
QUANTITIES = 5  # drawn at most
FEW_ROWS, POINTS, FEWER_POINTS = 20, 80, 32  # a large board's lines have fewer points, since they are drawn no larger


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
