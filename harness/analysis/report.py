"""The report of an analysis: a table, a figure, and for each of the paper's claims whether the numbers agree.

A verdict is computed from an interval, by one of the rules of `CheckedClaim`; nobody writes one by hand.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import StrEnum
from typing import Any

from harness.analysis.figure import Figure
from harness.api.interfaces import Paper
from harness.board.statistics import Difference, Interval
from harness.board.views.text import number, signed

Cell = str | int | float | Interval | None


class ClaimVerdict(StrEnum):
    """Whether the measured numbers agree with a claim."""

    AGREES = "agrees"
    DISAGREES = "disagrees"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class CheckedClaim:
    """One claim of the paper and the verdict of an interval on it. The four rules below compute the verdict.

    Attributes:
        claim: the paper's claim, in our words.
        place: its place in the paper, e.g. `Figure 5`.
        measured: the numbers behind the verdict.
    """

    claim: str
    place: str
    measured: str
    verdict: ClaimVerdict

    @classmethod
    def above_zero(cls, claim: str, place: str, what: str, difference: Difference | Interval) -> CheckedClaim:
        """Agree if the interval lies above 0, disagree if it lies below; undecided if it holds 0.

        Args:
            what: the difference that was measured, e.g. `gold at m = 16 less that at m = 1`.
        """
        return cls(claim, place, f"{what}: {_signed(difference)}", _verdict(difference.low > 0, difference.high < 0))

    @classmethod
    def within(cls, claim: str, place: str, what: str, difference: Difference | Interval, room: float) -> CheckedClaim:
        """Agree if the interval lies within ±room, disagree if it lies outside; else undecided."""
        inside = -room <= difference.low and difference.high <= room
        outside = difference.low > room or difference.high < -room
        measured = f"{what}: {_signed(difference)}; alike is within ±{number(room)}"
        return cls(claim, place, measured, _verdict(inside, outside))

    @classmethod
    def at_least(cls, claim: str, place: str, what: str, value: Interval, bar: float) -> CheckedClaim:
        """Agree if the interval lies at or above the bar, disagree if it lies below; else undecided."""
        measured = f"{what}: {shown(value)}; asked is {number(bar)} or more"
        return cls(claim, place, measured, _verdict(value.low >= bar, value.high < bar))

    @classmethod
    def at_most(cls, claim: str, place: str, what: str, value: Interval, bar: float) -> CheckedClaim:
        """Agree if the interval lies at or below the bar, disagree if it lies above; else undecided."""
        measured = f"{what}: {shown(value)}; asked is {number(bar)} or less"
        return cls(claim, place, measured, _verdict(value.high <= bar, value.low > bar))


@dataclass(frozen=True)
class Report:
    """The result of an analysis.

    Attributes:
        columns: names of the table's columns.
        rows: its cells; an interval is written with its bounds, None as a dash.
        findings: the paper's claims, with verdicts.
        method: the way it was measured: estimators, definitions, deviations from the paper; one paragraph each.
        configs: the raw configs of its comparisons, by part.
        n: numbers of prompts, seeds and so on that the results rest on.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    figure: Figure
    findings: Sequence[CheckedClaim]
    method: Sequence[str]
    configs: Mapping[str, Any] = field(default_factory=dict)
    n: Mapping[str, int] = field(default_factory=dict)

    def with_reward(self, reward: str) -> Report:
        """Return the report of an analysis that another reward than gold was used in: its words name a reward, not gold.

        Args:
            reward: what marked, in words.
        """
        note = f"Rewards are those of {reward}, and not a gold reward's."
        changed = {name: _without_gold(getattr(self, name)) for name in ("columns", "rows", "figure", "findings", "method")}
        return replace(self, **changed | {"method": [note, *changed["method"]]})


def _without_gold(value: Any) -> Any:
    """Return a part of a report with `reward` in place of `gold` and `gold reward`, in whatever it holds."""
    if isinstance(value, str):
        return re.sub(r"\b([Gg])old(?: reward)?\b", lambda match: "Reward" if match[1] == "G" else "reward", value)
    if isinstance(value, list | tuple):
        return [_without_gold(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type | Interval):
        return replace(value, **{item.name: _without_gold(getattr(value, item.name)) for item in fields(value)})
    return value


def _verdict(agrees: bool, disagrees: bool) -> ClaimVerdict:
    if agrees:
        return ClaimVerdict.AGREES
    return ClaimVerdict.DISAGREES if disagrees else ClaimVerdict.UNDECIDED


def _signed(difference: Difference | Interval) -> str:
    return f"{signed(difference.mean)} [{signed(difference.low)}, {signed(difference.high)}]"


def shown(cell: Cell) -> str:
    """Return a cell as people read it."""
    if cell is None:
        return "–"
    if isinstance(cell, Interval):
        return f"{number(cell.mean)} [{number(cell.low)}, {number(cell.high)}]"
    return number(cell) if isinstance(cell, float) else str(cell)


def markdown_table(report: Report) -> str:
    """Return the table in Markdown, numbers to the right."""
    right = [all(not isinstance(row[index], str) for row in report.rows) for index in range(len(report.columns))]
    lines = [list(report.columns), ["---:" if flag else "---" for flag in right]]
    lines += [[shown(cell).replace("|", "\\|") for cell in row] for row in report.rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def csv_table(report: Report) -> str:
    """Return the table with all digits; an interval takes four columns."""
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
    """Return a paper as a link, or its title if it has no arXiv number."""
    if not paper.arxiv:
        return paper.title
    return f"[{paper.title}](https://arxiv.org/abs/{paper.arxiv})"
