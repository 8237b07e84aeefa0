"""The few shapes the charts need. Text is escaped where it is put in; colours come from the page's style, by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from harness.board.views.text import one_line


@dataclass(frozen=True)
class Scale:
    """Maps values from `low` to `high` on pixels from `start` to `end`; by their logarithms where `log` is set."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, here = (math.log10(x) for x in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return round(self.start + (here - low) / (high - low) * (self.end - self.start), 2)

    def ticks(self, about: int = 5) -> list[float]:
        """Round numbers within the scale: steps of 1, 2 or 5 times a power of ten."""
        if self.log:
            return self._powers(about)
        rough = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _powers(self, about: int) -> list[float]:
        """Powers of ten; with their doubles and fives where the powers alone are too few."""
        exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        choices = ((1,), (1, 3), (1, 2, 5)) if len(exponents) <= about else ((1,),)
        found: list[float] = []
        for factors in choices:
            found = [f * 10.0**e for e in exponents for f in factors if self.low <= f * 10.0**e <= self.high]
            if len(found) >= min(3, about):
                break
        return found


def spanning(values: list[float], start: float, end: float, margin: float = 0.06) -> Scale:
    """A scale with room beside the outermost values; one unit wide where they are all equal."""
    low, high = min(values), max(values)
    room = (high - low) * margin or 0.5
    return Scale(low - room, high + room, start, end)


def spanning_log(values: Sequence[float], start: float, end: float, margin: float = 0.06) -> Scale:
    """`spanning` for positive values, by their logarithms."""
    plain = spanning([math.log10(value) for value in values], start, end, margin)
    return Scale(10**plain.low, 10**plain.high, start, end, log=True)


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> Markup:
    """One line; `kind` is its class."""
    return Markup('<text x="{}" y="{}" class="{}" text-anchor="{}">{}</text>').format(x, y, kind, anchor, one_line(content))


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>').format(x1, y1, x2, y2, kind)


def rect(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" class="{}"/>').format(x, y, round(width, 2), height, kind)


def circle(x: float, y: float, kind: str, hint: str = "", radius: float = 4.5) -> Markup:
    """A point; `hint` is shown where the pointer rests on it."""
    title = Markup("<title>{}</title>").format(one_line(hint)) if hint else Markup("")
    return Markup('<circle cx="{}" cy="{}" r="{}" class="{}">{}</circle>').format(x, y, radius, kind, title)


def path(points: list[tuple[float, float]], kind: str) -> Markup:
    return Markup('<polyline points="{}" class="{}"/>').format(" ".join(f"{x},{y}" for x, y in points), kind)


def drawing(width: float, height: float, label: str, shapes: list[Markup]) -> Markup:
    """The whole picture; `label` is read out to those who don't see it."""
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(width, height, one_line(label))
    return head + Markup("").join(shapes) + Markup("</svg>")
