"""Who judged a row: marks of two judges, or of two versions of one, are no comparison of the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harness.board.result import RowResult


def judged_apart(row: RowResult, base: RowResult, rows: Sequence[RowResult], *, mixed: bool) -> tuple[set[str], list[str]]:
    """Evaluators whose scores of two rows come from different judges or versions, and are not compared for that.

    A row that nobody had to be asked about, such as the baseline against itself, goes with any judge. Where the baseline is
    such a row, the judge of most of `rows` stands for its own.

    Args:
        mixed: compare them all the same, and say so.
    """
    found: set[str] = set()
    warnings = []
    for evaluator in (name for name in row.scores if row.scores[name] and base.scores.get(name)):
        held = _yardstick(base, rows, evaluator)
        one, other = judges_of(row, evaluator), judges_of(held, evaluator)
        if one == other or _unasked(row, evaluator):
            continue
        said = f"{row.label} was judged by {_named(one)} and {held.label} by {_named(other)} on {evaluator}"
        if mixed:
            warnings.append(f"{said}; they are compared because judge.allow_mixed_judges is set.")
            continue
        found.add(evaluator)
        warnings.append(f"{said}: they are not compared; set judge.allow_mixed_judges to compare all the same.")
    return found, warnings


def judges_of(row: RowResult, evaluator: str) -> list[str]:
    """The judges of an evaluator's scores as `rows` notes them: models with the versions that their servers reported."""
    return sorted(row.provenance.get("judges", {}).get(evaluator, {}).get("versions", ()))


def _yardstick(base: RowResult, rows: Sequence[RowResult], evaluator: str) -> RowResult:
    """The row whose judges an evaluator's others must have: the baseline, unless nobody was asked about it. Then one with the
    judges of most rows, whatever the rows' order."""
    if not _unasked(base, evaluator):
        return base
    marked = [row for row in rows if row.kind != "published" and row.scores.get(evaluator) and judges_of(row, evaluator)]
    judges = {row.label: tuple(judges_of(row, evaluator)) for row in marked}
    counts = Counter(judges.values())
    return min(marked, key=lambda row: (-counts[judges[row.label]], judges[row.label], row.label), default=base)


def _unasked(row: RowResult, evaluator: str) -> bool:
    """Whether a judge was at hand and nothing had to be asked of it."""
    return evaluator in row.provenance.get("judges", {}) and not judges_of(row, evaluator)


def _named(versions: Sequence[str]) -> str:
    return " and ".join(versions) or "nobody"
