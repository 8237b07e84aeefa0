"""The figure of an analysis: lines with intervals over named places on the horizontal axis, as an SVG file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from harness.board.statistics import Interval
from harness.board.views import svg
from harness.board.views.text import number, one_line

WIDTH, HEIGHT, LEFT, RIGHT, TOP, FLOOR = 760, 376, 64, 196, 34, 320
ROOM = 13  # between two labels at the right, and between a place's first and last whisker
LETTER = 6.6

# Okabe and Ito's palette (2008), which all kinds of colour vision can tell apart; dashes for print in grey.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a6a00", "#56b4e9")
DASHES = ("", "6 3", "2 3", "8 3 2 3", "4 2", "1 2")

STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.tick{font-size:11px;fill:#666}.rule{stroke:#e6e6e6}"
    ".axis{stroke:#999}.mark{stroke:#777;stroke-dasharray:3 3}.page{fill:#fff}polyline{fill:none;stroke-width:2}"
)


@dataclass(frozen=True)
class Line:
    """One series of a panel.

    Attributes:
        name: the label at its right end.
        points: one per place: a number, an interval (drawn with whiskers), or None for no point.
    """

    name: str
    points: Sequence[float | Interval | None]


@dataclass(frozen=True)
class Axes:
    """The axes of a panel.

    Attributes:
        across: the horizontal axis's title.
        up: the vertical axis's title.
        places: the named positions on the horizontal axis.
        level: the height of a horizontal line, if there is one.
    """

    across: str
    up: str
    places: Sequence[str]
    level: float | None = None


@dataclass(frozen=True)
class Panel:
    """One pair of axes and the lines on them."""

    axes: Axes
    lines: Sequence[Line]


@dataclass(frozen=True)
class Figure:
    """Panels one above the other; the title describes them to those who cannot see them."""

    title: str
    panels: Sequence[Panel]

    def svg(self) -> Markup:
        """Return a whole SVG file."""
        height = HEIGHT * len(self.panels)
        head = Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" width="{}" height="{}" role="img" aria-label="{}">'
            "<style>{}</style>"
        ).format(WIDTH, height, WIDTH, height, one_line(self.title), Markup(STYLE))
        placed = [
            Markup('<g transform="translate(0 {})">{}</g>').format(HEIGHT * index, _panel(panel))
            for index, panel in enumerate(self.panels)
        ]
        return head + svg.rect(0, 0, WIDTH, height, "page") + Markup("").join(placed) + Markup("</svg>\n")


def _panel(panel: Panel) -> Markup:
    axes, lines = panel.axes, panel.lines
    bounds = [bound for line in lines for point in line.points if point is not None for bound in _bounds(point)]
    scale = svg.spanning([*bounds, *([] if axes.level is None else [axes.level])], FLOOR, TOP)
    shapes = _frame(axes, scale)
    for index, line in enumerate(lines):
        shapes += _line(line, index, len(lines), axes, scale)
    return Markup("").join([*shapes, *_names(lines, axes, scale)])


def _frame(axes: Axes, scale: svg.Scale) -> list[Markup]:
    end = WIDTH - RIGHT
    shapes = []
    for tick in scale.ticks(6):
        shapes += [svg.line(LEFT, scale(tick), end, scale(tick), "rule")]
        shapes += [svg.text(LEFT - 8, scale(tick) + 4, number(tick), "tick", "end")]
    if axes.level is not None:
        shapes.append(svg.line(LEFT, scale(axes.level), end, scale(axes.level), "mark"))
    shapes.append(svg.line(LEFT, FLOOR, end, FLOOR, "axis"))
    every = -(-len(axes.places) // 12)
    shapes += [
        svg.text(_place(index, axes), FLOOR + 18, name, "tick", "middle")
        for index, name in enumerate(axes.places)
        if index % every == 0
    ]
    shapes.append(svg.text((LEFT + end) / 2, FLOOR + 42, axes.across, "", "middle"))
    shapes.append(svg.text(LEFT - 8, 18, axes.up))
    return shapes


def _place(index: int, axes: Axes) -> float:
    """Return a place's distance from the left, in pixels."""
    step = (WIDTH - RIGHT - LEFT) / len(axes.places)
    return round(LEFT + step * (index + 0.5), 2)


def _line(line: Line, index: int, count: int, axes: Axes, scale: svg.Scale) -> list[Markup]:
    """Draw a series: a line between neighbouring points, the points, and whiskers shifted to not cover other series'."""
    colour, dash = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
    whiskers = any(isinstance(point, Interval) for point in line.points)
    aside = (index - (count - 1) / 2) * (ROOM / count) if whiskers else 0.0
    at = [(_place(place, axes) + aside, point) for place, point in enumerate(line.points)]
    shapes = []
    for (x1, left), (x2, right) in pairwise(at):
        if left is not None and right is not None:
            shapes.append(
                Markup('<polyline points="{},{} {},{}" stroke="{}" stroke-dasharray="{}"/>').format(
                    round(x1, 2), scale(_mean(left)), round(x2, 2), scale(_mean(right)), colour, dash
                )
            )
    for x, point in at:
        if isinstance(point, Interval):
            shapes.append(
                Markup('<line x1="{0}" y1="{1}" x2="{0}" y2="{2}" stroke="{3}" stroke-width="1.4"/>').format(
                    round(x, 2), scale(point.low), scale(point.high), colour
                )
            )
        if point is not None and len(set(line.points)) > 1:  # a level needs no points
            hint = Markup("<title>{}: {}</title>").format(one_line(line.name), number(_mean(point)))
            shapes.append(
                Markup('<circle cx="{}" cy="{}" r="3.2" fill="{}">{}</circle>').format(
                    round(x, 2), scale(_mean(point)), colour, hint
                )
            )
    return shapes


def _names(lines: Sequence[Line], axes: Axes, scale: svg.Scale) -> list[Markup]:
    """Name each line at the right, at the height of its last point, moved down where names would touch."""
    ends = sorted(
        (scale(_mean(last)), index)
        for index, line in enumerate(lines)
        if (last := next((point for point in reversed(line.points) if point is not None), None)) is not None
    )
    heights: list[float] = []
    for height, _ in ends:
        heights.append(max(height, heights[-1] + ROOM + 2) if heights else height)
    over = max(0.0, heights[-1] - FLOOR) if heights else 0.0
    return [
        Markup('<text x="{}" y="{}" style="fill:{}">{}</text>').format(
            WIDTH - RIGHT + 8,
            round(height - over + 4, 2),
            COLOURS[index % len(COLOURS)],
            one_line(lines[index].name)[: int((RIGHT - 12) / LETTER)],
        )
        for height, (_, index) in zip(heights, ends, strict=True)
    ]


def _bounds(point: float | Interval) -> tuple[float, ...]:
    return (point.low, point.high) if isinstance(point, Interval) else (point,)


def _mean(point: float | Interval) -> float:
    return point.mean if isinstance(point, Interval) else point
