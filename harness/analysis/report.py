"""What an analysis says: a table, a figure, and for each of the paper's claims whether the numbers agree.

A verdict is computed, never written: from an interval, by one of the rules below.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from markupsafe import Markup

from harness.leaderboard.text import number, signed
from harness.statistics import Difference, Interval
from harness.types import Paper

Cell = str | int | float | Interval | None


class Verdict(StrEnum):
    """Whether what was measured agrees with a claim."""

    AGREES = "agrees"
    DISAGREES = "disagrees"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Finding:
    """One claim of the paper, held against numbers.

    Attributes:
        claim: what the paper says, in our words.
        place: where it says so, e.g. `Figure 5`.
        measured: the numbers behind the verdict.
    """

    claim: str
    place: str
    measured: str
    verdict: Verdict


@dataclass(frozen=True)
class Report:
    """A finished analysis.

    Attributes:
        columns: names of the table's columns.
        rows: its cells; an interval is written with its bounds.
        method: how it was measured: estimators, definitions, deviations from the paper; one paragraph each.
        configs: the raw configs of its comparisons, by part.
        n: how many prompts, seeds and so on the numbers rest on.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    figure: Markup
    findings: Sequence[Finding]
    method: Sequence[str]
    configs: Mapping[str, Any] = field(default_factory=dict)
    n: Mapping[str, int] = field(default_factory=dict)


def above_zero(claim: str, place: str, what: str, difference: Difference | Interval) -> Finding:
    """Agrees where the interval lies above 0, disagrees where it lies below, is undecided where it holds 0."""
    verdict = Verdict.AGREES if difference.low > 0 else Verdict.DISAGREES if difference.high < 0 else Verdict.UNDECIDED
    return Finding(claim, place, f"{what}: {spread(difference)}", verdict)


def within(claim: str, place: str, what: str, difference: Difference | Interval, room: float) -> Finding:
    """Agrees where the interval lies within ±room, disagrees where it lies outside, else undecided."""
    inside = -room <= difference.low and difference.high <= room
    outside = difference.low > room or difference.high < -room
    verdict = Verdict.AGREES if inside else Verdict.DISAGREES if outside else Verdict.UNDECIDED
    return Finding(claim, place, f"{what}: {spread(difference)}; alike is within ±{number(room)}", verdict)


def at_least(claim: str, place: str, what: str, value: Interval, bar: float) -> Finding:
    """Agrees where the interval lies at or above the bar, disagrees where it lies below, else undecided."""
    verdict = Verdict.AGREES if value.low >= bar else Verdict.DISAGREES if value.high < bar else Verdict.UNDECIDED
    measured = f"{what}: {number(value.mean)} [{number(value.low)}, {number(value.high)}]; asked is {number(bar)} or more"
    return Finding(claim, place, measured, verdict)


def at_most(claim: str, place: str, what: str, value: Interval, bar: float) -> Finding:
    """Agrees where the interval lies at or below the bar, disagrees where it lies above, else undecided."""
    verdict = Verdict.AGREES if value.high <= bar else Verdict.DISAGREES if value.low > bar else Verdict.UNDECIDED
    measured = f"{what}: {number(value.mean)} [{number(value.low)}, {number(value.high)}]; asked is {number(bar)} or less"
    return Finding(claim, place, measured, verdict)


def spread(difference: Difference | Interval) -> str:
    """A difference with its bounds."""
    return f"{signed(difference.mean)} [{signed(difference.low)}, {signed(difference.high)}]"


def shown(cell: Cell) -> str:
    """A cell as people read it."""
    if cell is None:
        return "–"
    if isinstance(cell, Interval):
        return f"{number(cell.mean)} [{number(cell.low)}, {number(cell.high)}]"
    return number(cell) if isinstance(cell, float) else str(cell)


def markdown_table(report: Report) -> str:
    """The table in Markdown; numbers to the right."""
    right = [all(not isinstance(row[index], str) for row in report.rows) for index in range(len(report.columns))]
    lines = [list(report.columns), ["---:" if flag else "---" for flag in right]]
    lines += [[shown(cell).replace("|", "\\|") for cell in row] for row in report.rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def csv_table(report: Report) -> str:
    """The table with all digits; an interval takes four columns."""
    wide = [any(isinstance(row[index], Interval) for row in report.rows) for index in range(len(report.columns))]
    header: list[str] = []
    for name, interval in zip(report.columns, wide, strict=True):
        header += [name, f"{name} low", f"{name} high", f"{name} n"] if interval else [name]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for row in report.rows:
        cells: list[Any] = []
        for cell, interval in zip(row, wide, strict=True):
            if isinstance(cell, Interval):
                cells += [cell.mean, cell.low, cell.high, cell.n]
            else:
                cells += ["" if cell is None else cell, *([""] * 3 if interval else [])]
        writer.writerow(cells)
    return stream.getvalue()


def cited(paper: Paper) -> str:
    """A paper as a link."""
    return f"[{paper.title}](https://arxiv.org/abs/{paper.arxiv})"
