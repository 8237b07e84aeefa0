"""The search for settings in a board's views: a table, the expected best of fewer trials, and each setting's sensitivity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from harness.board.board import Board, RowEntry
from harness.board.entries import CostEntry, SpaceEntry, TuningEntry
from harness.board.tuning import edge_of, optimism
from harness.board.views import svg
from harness.board.views.text import count, duration, number, one_line, shortened, signed

EXPECTED = svg.Chart(left=56, right=570, top=24, floor=300)
NARROW_EXPECTED = svg.Chart(left=44, right=svg.NARROW - 12, top=24, floor=230)
SENSITIVITY = svg.Chart(left=46, right=232, top=10, floor=92)
COLOURS = 8  # further lines repeat them, dashed
JITTER = 3.0  # pixels between the whiskers of two rows at the same number of trials


@dataclass(frozen=True)
class TuningLine:
    """One row of the table, as text.

    Attributes:
        settings: setting and chosen value, with `edge` where it lies on the edge of its space.
        trial: the chosen trial's number, and how many there were.
        scores: the chosen trial's on the tuning split, the row's on the held-out one, and their difference.
        kept: how often the same trial is chosen on bootstrap draws of the tuning prompts.
        costs: of all trials together, and of one training of the row.
    """

    row: RowEntry
    settings: tuple[tuple[str, str], ...]
    trial: str
    scores: tuple[str, str, str]
    kept: str
    costs: tuple[str, str]


def tuning_lines(board: Board) -> list[TuningLine]:
    """Return a line for each row that searched its settings, or kept its defaults where others searched."""
    return [_line(row, row.tuning) for row in board.rows if row.tuning is not None and not row.is_null]


def _line(row: RowEntry, tuning: TuningEntry) -> TuningLine:
    nothing = ("–", "–", "–")
    if tuning.default is not None:
        why = "default settings" if tuning.default == "off" else "settings of its entry"
        return TuningLine(row, (), why, nothing, "–", ("–", cost_text(row.cost)))
    trials = len(tuning.scores)
    taken = (cost_text(tuning.cost or CostEntry()), cost_text(row.cost))
    if tuning.chosen is None:
        return TuningLine(row, (), f"none of {trials}", nothing, "–", taken)
    settings = tuple(
        (
            path,
            setting_text(value)
            + (" (edge)" if path in (tuning.space or {}) and edge_of((tuning.space or {})[path], value) else ""),
        )
        for path, value in sorted(tuning.chosen.items())
    )
    pair = optimism(row)
    scores = nothing if pair is None else (number(pair[0]), number(pair[1]), signed(pair[2]))
    kept = "–" if tuning.selection is None else f"{tuning.selection.kept:.0%}"
    return TuningLine(row, settings, f"{(tuning.number or 0) + 1} of {trials}", scores, kept, taken)


def setting_text(value: object) -> str:
    """Return a setting's value: three digits of a number."""
    return f"{value:.3g}" if isinstance(value, float) else one_line(str(value))


def cost_text(cost: CostEntry) -> str:
    """Return a cost in words: time, tokens and dollars, as far as they are known."""
    parts = [] if cost.seconds is None else [duration(cost.seconds)]
    tokens = (cost.tokens_trained or 0) + (cost.tokens_generated or 0)
    parts += [f"{count(tokens)} tokens"] if tokens else []
    parts += [f"${cost.usd:.2f}"] if cost.usd else []
    return ", ".join(parts) or "–"


def no_expected_best(board: Board) -> str:
    """Return why a board with a search has no expected best of fewer trials; empty where it has one, or no search."""
    searched = [row.tuning for row in board.rows if row.tuning is not None and row.tuning.trials]
    if not searched or any(tuning.expected for tuning in searched):
        return ""
    sampler = searched[0].sampler
    if any(tuning.pruner for tuning in searched):
        return "The expected best of fewer trials assumes trials at full budget, and most of these were pruned before."
    if sampler != "random":
        return f"The expected best of fewer trials assumes independent trials, and those of {sampler} are not."
    return "The expected best of fewer trials takes two finished trials at full budget."


# Figures


def expected_figure(board: Board, narrow: bool = False) -> Markup | None:
    """Draw the expected best of the first k trials of every row, with its interval; None where no row has one."""
    rows = [row for row in board.rows if row.tuning is not None and row.tuning.expected and not row.is_null]
    if not rows:
        return None
    lines = [(row, (row.tuning and row.tuning.expected) or ()) for row in rows]
    chart = NARROW_EXPECTED if narrow else EXPECTED
    most = max(len(points) for _, points in lines)
    across = svg.Scale(0.6, most + 0.4, chart.left, chart.right)
    up = chart.up(bound for _, points in lines for point in points for bound in (point.low, point.high))
    shapes = [
        *chart.ticks_across(
            (across(k), str(k)) for k in sorted({round(tick) for tick in across.ticks(8)} & {*range(1, most + 1)})
        ),
        *chart.ticks_up((up(tick), number(tick)) for tick in up.ticks()),
        svg.text(chart.left, 14, one_line(rows[0].tuning.metric or "") if rows[0].tuning else "", "tick"),
        svg.text(chart.right, chart.floor + 35, "trials", "tick", "end"),
    ]
    ends = []
    for index, (row, points) in enumerate(lines):
        kind = f"series{index % COLOURS}"
        aside = (index - (len(lines) - 1) / 2) * min(JITTER, 30 / len(lines))  # so that whiskers do not hide each other
        places = [(round(across(point.trials) + aside, 2), up(point.mean)) for point in points]
        for (x, _), point in zip(places, points, strict=True):
            shapes.append(svg.line(x, up(point.low), x, up(point.high), f"range {kind}"))
        shapes.append(svg.path(places, f"line {kind}{' again' if index >= COLOURS else ''}"))
        for (x, y), point in zip(places, points, strict=True):
            hint = f"{row.method}, best of {point.trials}: {number(point.mean)} ({number(point.low)} to {number(point.high)})"
            shapes.append(svg.circle(x, y, f"point {kind}", "" if narrow else hint, 3))
        ends.append((places[-1], row.method, f"name {kind}"))
    ends.sort(key=lambda end: (end[0][1], end[1]))
    label = f"Expected best of the first trials on the tuning split, a line for each of {', '.join(row.method for row in rows)}"
    if narrow:
        legend = [(shortened(name, 22), kind) for _, name, kind in ends]
        return svg.drawing(
            svg.NARROW, chart.floor + 50 + svg.legend_height(legend), label, [*shapes, *svg.legend(legend, chart.floor + 56)]
        )
    leaders, names = svg.end_labels(chart, ends)
    return svg.drawing(760, chart.floor + 40, label, [*leaders, *shapes, *names])


def sensitivity(board: Board) -> list[tuple[str, list[tuple[RowEntry, Markup]]]]:
    """Return, for each searched setting, the rows that searched it with the scores of their trials over its values."""
    rows = [row for row in board.rows if row.tuning is not None and row.tuning.trials and not row.is_null]
    counts: dict[str, int] = {}
    for row in rows:
        for path in (row.tuning and row.tuning.space) or ():
            counts[path] = counts.get(path, 0) + 1
    paths = sorted(counts, key=lambda path: (-counts[path], path))
    return [
        (path, drawings)
        for path in paths
        if (drawings := [(row, drawn) for row in rows if row.tuning and (drawn := _scatter(row, row.tuning, path)) is not None])
    ]


def _scatter(row: RowEntry, tuning: TuningEntry, path: str) -> Markup | None:
    """Draw the score of each finished trial over one setting; the chosen one stands out."""
    space = (tuning.space or {}).get(path)
    finished = {number: score for number, score in tuning.scores.items() if score is not None}
    if space is None or not finished:
        return None
    settings = {trial.number: trial.settings.get(path) for trial in tuning.trials or ()}
    places = _places(space, settings)
    across, ticks = _scale(space, places)
    up = SENSITIVITY.up(finished.values())
    heights = next((finer for about in (3, 5, 8) if len(finer := up.ticks(about)) > 1), [])
    shapes = [
        *SENSITIVITY.ticks_up((up(tick), number(tick)) for tick in heights),
        *SENSITIVITY.ticks_across(ticks, rules=False),
    ]
    # The chosen trial is drawn last, over the others.
    for trial, score in sorted(finished.items(), key=lambda item: item[0] == tuning.number):
        kind = "point base" if trial == tuning.number else "point plain aside"
        hint = f"trial {trial + 1}: {setting_text(settings[trial])}, {number(score)}"
        shapes.append(svg.circle(round(across(places[trial]), 1), round(up(score), 1), kind, hint, 3))
    return svg.drawing(240, 116, f"Scores of {row.method}'s trials over {path}, the chosen one marked", shapes)


def _places(space: SpaceEntry, settings: Mapping[int, object]) -> dict[int, float]:
    """Return each trial's place on the axis: the number itself in an interval, the choice's position in a list."""
    if space.choices is None:
        return {trial: float(value) for trial, value in settings.items() if isinstance(value, int | float)}
    texts: Sequence[str] = [setting_text(choice) for choice in space.choices]
    return {trial: float(texts.index(setting_text(value))) for trial, value in settings.items()}


def _scale(space: SpaceEntry, places: Mapping[int, float]) -> tuple[svg.Scale, list[tuple[float, str]]]:
    """Return the horizontal scale over the whole space, and its ticks."""
    if space.choices is not None:
        across = svg.Scale(-0.5, len(space.choices) - 0.5, SENSITIVITY.left, SENSITIVITY.right)
        return across, [(across(place), setting_text(choice)) for place, choice in enumerate(space.choices)]
    low, high = space.low or 0.0, space.high or 1.0
    across = svg.Scale(low, high, SENSITIVITY.left + 6, SENSITIVITY.right - 6, bool(space.log))
    middle = (low * high) ** 0.5 if space.log else (low + high) / 2
    return across, [(across(value), f"{value:.2g}") for value in (low, middle, high)]
