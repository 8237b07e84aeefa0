"""The figure of an analysis: lines with intervals over named places on the horizontal axis, as an SVG file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from harness.board.statistics import Interval
from harness.board.views import svg
from harness.board.views.text import number, one_line

WIDTH, HEIGHT = 760, 376  # of a panel, in pixels
CHART = svg.Chart(left=64, right=564, top=34, floor=320)
LABEL_ROOM = 15  # between two labels at the right
SHIFT = 13  # between the first and the last series' whiskers at a place
LABEL_CHARACTERS = 27  # of a line's name, which the space at the right holds

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
    up = CHART.up([*bounds, *([] if axes.level is None else [axes.level])])
    shapes = _axes(axes, up)
    for index, line in enumerate(lines):
        shapes += _line(line, index, len(lines), axes, up)
    return Markup("").join([*shapes, *_names(lines, up)])


def _axes(axes: Axes, up: svg.Scale) -> list[Markup]:
    every = -(-len(axes.places) // 12)  # more than twelve names would touch each other
    named = [(_place(index, axes), name) for index, name in enumerate(axes.places) if index % every == 0]
    shapes = CHART.ticks_up((up(tick), number(tick)) for tick in up.ticks(6))
    if axes.level is not None:
        shapes.append(svg.line(CHART.left, up(axes.level), CHART.right, up(axes.level), "mark"))
    return [
        *shapes,
        svg.line(CHART.left, CHART.floor, CHART.right, CHART.floor, "axis"),
        *CHART.ticks_across(named, rules=False),
        svg.text((CHART.left + CHART.right) / 2, CHART.floor + 42, axes.across, "", "middle"),
        svg.text(CHART.left - 8, 18, axes.up),
    ]


def _place(index: int, axes: Axes) -> float:
    """Return a place's distance from the left, in pixels."""
    step = (CHART.right - CHART.left) / len(axes.places)
    return round(CHART.left + step * (index + 0.5), 2)


def _line(line: Line, index: int, count: int, axes: Axes, up: svg.Scale) -> list[Markup]:
    """Draw a series: lines between neighbouring points, the points, and whiskers shifted to not cover other series'."""
    colour, dash = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
    whiskers = any(isinstance(point, Interval) for point in line.points)
    shift = (index - (count - 1) / 2) * (SHIFT / count) if whiskers else 0.0
    places = [(round(_place(place, axes) + shift, 2), point) for place, point in enumerate(line.points)]
    shapes = []
    for (x1, before), (x2, after) in pairwise(places):
        if before is not None and after is not None:
            shapes.append(
                Markup('<polyline points="{},{} {},{}" stroke="{}" stroke-dasharray="{}"/>').format(
                    x1, up(_mean(before)), x2, up(_mean(after)), colour, dash
                )
            )
    for x, point in places:
        if isinstance(point, Interval):
            shapes.append(
                Markup('<line x1="{0}" y1="{1}" x2="{0}" y2="{2}" stroke="{3}" stroke-width="1.4"/>').format(
                    x, up(point.low), up(point.high), colour
                )
            )
        if point is not None and len(set(line.points)) > 1:  # a constant line needs no points
            hint = Markup("<title>{}: {}</title>").format(one_line(line.name), number(_mean(point)))
            shapes.append(
                Markup('<circle cx="{}" cy="{}" r="3.2" fill="{}">{}</circle>').format(x, up(_mean(point)), colour, hint)
            )
    return shapes


def _names(lines: Sequence[Line], up: svg.Scale) -> list[Markup]:
    """Name each line at the right, at the height of its last point or near it."""
    ends = sorted(
        (up(_mean(last)), index)
        for index, line in enumerate(lines)
        if (last := next((point for point in reversed(line.points) if point is not None), None)) is not None
    )
    heights = CHART.level_labels([height for height, _ in ends], LABEL_ROOM)
    return [
        Markup('<text x="{}" y="{}" style="fill:{}">{}</text>').format(
            CHART.right + 8, height + 4, COLOURS[index % len(COLOURS)], one_line(lines[index].name)[:LABEL_CHARACTERS]
        )
        for height, (_, index) in zip(heights, ends, strict=True)
    ]


def _bounds(point: float | Interval) -> tuple[float, ...]:
    return (point.low, point.high) if isinstance(point, Interval) else (point,)


def _mean(point: float | Interval) -> float:
    return point.mean if isinstance(point, Interval) else point
