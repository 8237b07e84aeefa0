"""The parts of an SVG figure: scales, the chart area with its ticks and labels, and a few shapes.

Every text is escaped where it is put in. Colours come from the page's style, by class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from harness.board.views.text import one_line, shortened

CHARACTER = 7.3  # the width in pixels of a character of a label, in the page's monospaced font at 12 px
LINE = 12  # the least distance in pixels between the base lines of two labels
NARROW = 344  # the width of a figure on a phone, in pixels
RADIUS = 6.0  # of a point with its outline, in pixels
NEAR = 50  # the longest leader line on a crowded figure, in pixels
BESIDE = 9  # pixels between a point and a label beside it
# Where a label may begin (at the right of its point) or end (at the left), and how far down, nearest first.
OFFSETS = sorted(
    (
        (side * across, down)
        for across in (BESIDE, 20, 36, 56, 80, 110, 150)
        for down in range(-216, 217, 12)
        for side in (1, -1)
    ),
    key=lambda offset: (math.hypot(offset[0], 1.5 * offset[1]), -offset[0]),
)
Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """Map values from `low` to `high` to pixels from `start` to `end`; on a logarithmic scale if `log` is set."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(x) for x in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return round(self.start + (at - low) / (high - low) * (self.end - self.start), 2)

    def ticks(self, about: int = 5) -> list[float]:
        """Return round numbers within the scale: multiples of 1, 2 or 5 times a power of ten."""
        if self.log:
            return self._powers(about)
        rough = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(rough))
        # The tolerances keep a tick that rounding errors push just outside.
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _powers(self, about: int) -> list[float]:
        """Return powers of ten, with multiples between them if the powers alone are too few."""
        exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        choices = ((1,), (1, 3), (1, 2, 5)) if len(exponents) <= about else ((1,),)
        ticks: list[float] = []
        for factors in choices:
            ticks = [f * 10.0**e for e in exponents for f in factors if self.low <= f * 10.0**e <= self.high]
            if len(ticks) >= min(3, about):
                break
        return ticks


def spanning(values: Iterable[float], start: float, end: float, margin: float = 0.06) -> Scale:
    """Return a scale over the values, with a margin at both ends; one unit wide if all values are equal."""
    values = list(values)
    low, high = min(values), max(values)
    room = (high - low) * margin or 0.5
    return Scale(low - room, high + room, start, end)


def spanning_log(values: Iterable[float], start: float, end: float, margin: float = 0.06) -> Scale:
    """Return a logarithmic scale over positive values, with a margin at both ends."""
    exponents = spanning([math.log10(value) for value in values], start, end, margin)
    return Scale(10**exponents.low, 10**exponents.high, start, end, log=True)


@dataclass(frozen=True)
class Chart:
    """The area between the axes of a figure, in pixels. It draws the ticks of both axes."""

    left: float
    right: float
    top: float
    floor: float

    def across(self, values: Iterable[float], *, log: bool = False, margin: float = 0.06) -> Scale:
        """Return a horizontal scale over the values, from the left edge to the right one."""
        return (spanning_log if log else spanning)(values, self.left, self.right, margin)

    def up(self, values: Iterable[float]) -> Scale:
        """Return a vertical scale over the values, from the floor to the top."""
        return spanning(values, self.floor, self.top)

    def ticks_across(self, ticks: Iterable[tuple[float, str]], *, rules: bool = True) -> list[Markup]:
        """Draw the horizontal axis's ticks: a label below each, and a rule from top to floor.

        Args:
            ticks: the position in pixels and the label of each.
        """
        shapes = []
        for x, label in ticks:
            shapes += [line(x, self.top, x, self.floor, "rule")] if rules else []
            shapes.append(text(x, self.floor + 18, label, "tick", "middle"))
        return shapes

    def ticks_up(self, ticks: Iterable[tuple[float, str]]) -> list[Markup]:
        """Draw the vertical axis's ticks: a label left of each, and a rule from left to right.

        Args:
            ticks: the position in pixels and the label of each.
        """
        shapes = []
        for y, label in ticks:
            shapes.append(line(self.left, y, self.right, y, "rule"))
            shapes.append(text(self.left - 6, y + 4, label, "tick", "end"))
        return shapes

    def level_labels(self, heights: Sequence[float], room: float) -> list[float]:
        """Return heights for labels beside line ends: each at its line's height, moved until none touch.

        Args:
            heights: the heights of the lines' ends, from top to floor.
            room: the least distance between two labels.
        """
        placed: list[float] = []
        for height in heights:
            placed.append(max(height, placed[-1] + room) if placed else height)
        # Labels are pushed down only, so the lowest may leave the chart: then all move up by as much.
        over = max(0.0, placed[-1] - self.floor) if placed else 0.0
        return [round(height - over, 2) for height in placed]

    def holds(self, box: Box) -> bool:
        """Return whether a label may stand there."""
        # A label may stand 20 px into the right margin, which the charts with such labels leave free.
        return box.start >= self.left + 2 and box.end <= self.right + 20 and self.top - 4 < box.base < self.floor + 4


@dataclass(frozen=True)
class Box:
    """The place of one line of text: its left end, its right end and its base line, in pixels."""

    start: float
    end: float
    base: float

    def touches(self, other: Box) -> bool:
        """Return whether two lines of text overlap."""
        return abs(self.base - other.base) < LINE and self.end >= other.start and self.start <= other.end

    def covers(self, x: float, y: float, room: float = RADIUS) -> bool:
        """Return whether a place is inside the text, or nearer than `room`."""
        return self.start - room < x < self.end + room and self.base - 10 - room < y < self.base + 3 + room


class Labels:
    """Places for labels beside points: none over a point or another label; one that stands apart has a leader line.

    Attributes:
        points: all points of the figure, in pixels.
    """

    def __init__(self, chart: Chart, points: Sequence[Point]) -> None:
        self.chart, self.points = chart, points
        self._boxes: list[Box] = []
        self._leaders: list[tuple[Point, Point]] = []

    def draw(self, number: int, label: str, kind: str, *, far: bool = True) -> list[Markup]:
        """Return the label of the point of this number with its leader line; nothing where every place is taken.

        Args:
            far: whether the label may stand far off, or its line cross others; on a crowded figure such lines hide more than
                they tell.
        """
        point, others = self.points[number], [*self.points[:number], *self.points[number + 1 :]]
        width = CHARACTER * len(label)
        for strict in (True, False) if far else (True,):  # at first no line may cross anything
            for across, down in OFFSETS:
                if not far and math.hypot(across, down) > NEAR:
                    continue
                start = point[0] + across if across > 0 else point[0] + across - width
                box = Box(start, start + width, point[1] + 4 + down)
                near = abs(across) <= BESIDE and abs(down) <= LINE / 2
                end = (box.start - 2 if across > 0 else box.end + 2, box.base - 4)
                if self._is_free(box) and (near or not strict or self._is_clear(point, end, others)):
                    self._boxes.append(box)
                    shapes = [text(round(box.start, 1), round(box.base, 1), label, kind)]
                    if not near:
                        self._leaders.append((point, end))
                        shapes.insert(0, line(point[0], point[1], round(end[0], 1), round(end[1], 1), "leader"))
                    return shapes
        return []

    def _is_free(self, box: Box) -> bool:
        """Return whether a label there touches no other label, no point and no leader line."""
        if not self.chart.holds(box) or any(box.touches(other) for other in self._boxes):
            return False
        if any(box.covers(x, y) for x, y in self.points):
            return False
        return not any(box.covers(x, y, 1) for start, end in self._leaders for x, y in _along(start, end))

    def _is_clear(self, start: Point, end: Point, others: Sequence[Point]) -> bool:
        """Return whether a leader line touches no label and no other point."""
        steps = list(_along(start, end))
        if any(box.covers(x, y, 1) for box in self._boxes for x, y in steps):
            return False
        return not any(abs(x - at) < RADIUS and abs(y - height) < RADIUS for at, height in others for x, y in steps)


def _along(start: Point, end: Point) -> Iterator[Point]:
    """Yield points of a line, about 4 px apart."""
    count = max(1, round(math.dist(start, end) / 4))
    for step in range(count + 1):
        yield start[0] + (end[0] - start[0]) * step / count, start[1] + (end[1] - start[1]) * step / count


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> Markup:
    """Draw one line of text; `kind` is its class."""
    return Markup('<text x="{}" y="{}" class="{}" text-anchor="{}">{}</text>').format(x, y, kind, anchor, one_line(content))


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """Draw a straight line."""
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>').format(x1, y1, x2, y2, kind)


def rect(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    """Draw a rectangle."""
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" class="{}"/>').format(x, y, round(width, 2), height, kind)


def circle(x: float, y: float, kind: str, hint: str = "", radius: float = 4.5) -> Markup:
    """Draw a point; `hint` appears when the pointer rests on it."""
    title = Markup("<title>{}</title>").format(one_line(hint)) if hint else Markup("")
    return Markup('<circle cx="{}" cy="{}" r="{}" class="{}">{}</circle>').format(x, y, radius, kind, title)


def path(points: Iterable[tuple[float, float]], kind: str) -> Markup:
    """Draw straight lines from point to point."""
    return Markup('<polyline points="{}" class="{}"/>').format(" ".join(f"{x},{y}" for x, y in points), kind)


def legend(entries: Sequence[tuple[str, str]], top: float) -> list[Markup]:
    """Draw texts and their classes in two columns, the first one filled first."""
    lines = -(-len(entries) // 2)
    return [
        text(4 + NARROW / 2 * (place // lines), top + 16 * (place % lines), content, kind)
        for place, (content, kind) in enumerate(entries)
    ]


def legend_height(entries: Sequence[object]) -> float:
    """Return a legend's height in pixels."""
    return 16 * -(-len(entries) // 2)


def end_labels(chart: Chart, ends: Sequence[tuple[Point, str, str]]) -> tuple[list[Markup], list[Markup]]:
    """Draw labels right of lines' ends, none over another: return the leader lines of those that stand apart, and the texts.

    Args:
        ends: each line's end, its label and the label's class, from top to floor.
    """
    leaders, names = list[Markup](), list[Markup]()
    for height, ((x, y), label, kind) in zip(chart.level_labels([end[0][1] for end in ends], 14), ends, strict=True):
        if abs(height - y) > LINE / 2 or x < chart.right - 40:
            leaders.append(line(x, y, chart.right + 7, round(height, 1), "leader"))
        names.append(text(chart.right + 10, round(height + 4, 1), shortened(label, 24), kind))
    return leaders, names


def for_all_widths(draw: Callable[[bool], Markup | None]) -> Markup | None:
    """Return a figure for screens and one for phones, of which the page's style shows one; None if there is none.

    Args:
        draw: draws the narrow one where it is given True.
    """
    wide, narrow = draw(False), draw(True)
    if wide is None or narrow is None:
        return wide
    return Markup('<div class="wide">{}</div><div class="narrow">{}</div>').format(wide, narrow)


def drawing(width: float, height: float, label: str, shapes: list[Markup]) -> Markup:
    """Return the whole figure; screen readers read `label` out."""
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(width, round(height, 1), one_line(label))
    return head + Markup("").join(shapes) + Markup("</svg>")
