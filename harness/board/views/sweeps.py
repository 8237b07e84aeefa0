"""Parameters that were swept, found in the rows' provenance, and how the metrics move with them."""

from __future__ import annotations

import os.path
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from harness.board.views import svg
from harness.board.board import Board, MetricEntry, RowEntry
from harness.board.standing import short_name
from harness.board.views.text import number, one_line, shortened

VALUES = 3  # fewer are a comparison, which the table shows
WIDTH, LEFT, RIGHT, TOP, FLOOR = 760, 56, 570, 24, 300
WIDE = 8.0  # values that differ by this factor are drawn on a logarithmic axis
SERIES = 8  # colours that can be told apart; lines after them are dashed


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
                yield f"{short_name(board, metric)} over {one_line(name)}", drawn


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
    spread = values[0] > 0 and values[-1] / values[0] >= WIDE
    across = (svg.spanning_log if spread else svg.spanning)(values, LEFT, RIGHT)
    scores = [score for _, points in shown for _, score in points]
    up = svg.spanning([v for s in scores for v in (s.mean, s.low, s.high) if v is not None], FLOOR, TOP)
    shapes = [*_axes(across, up, values), svg.text(LEFT, 14, short_name(board, metric), "tick")]
    shapes.append(svg.text(RIGHT, FLOOR + 35, name + (", logarithmic" if spread else ""), "tick", "end"))
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
    return svg.drawing(WIDTH, FLOOR + 40, said, [*shapes, *_names(ends)])


def _axes(across: svg.Scale, up: svg.Scale, values: list[float]) -> list[Markup]:
    """Where there are few values, they themselves are the ticks."""
    shapes = []
    for tick in values if len(values) <= 8 else across.ticks(6):
        shapes += [svg.line(across(tick), TOP, across(tick), FLOOR, "rule")]
        shapes += [svg.text(across(tick), FLOOR + 18, f"{tick:g}", "tick", "middle")]
    for tick in up.ticks():
        shapes += [svg.line(LEFT, up(tick), RIGHT, up(tick), "rule")]
        shapes += [svg.text(LEFT - 6, up(tick) + 4, number(tick), "tick", "end")]
    return shapes


def _names(ends: list[tuple[float, str, str]]) -> list[Markup]:
    """Labels beside the lines' ends, pushed apart where they would touch."""
    shapes, before = [], TOP - 16.0
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
