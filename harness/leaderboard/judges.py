"""Who judged a row: marks of two judges, or of two versions of one, are no comparison of the rows."""

from __future__ import annotations

from collections.abc import Sequence

from harness.leaderboard.result import RowResult


def judged_apart(row: RowResult, base: RowResult, *, mixed: bool) -> tuple[set[str], list[str]]:
    """Evaluators whose scores of two rows come from different judges or versions, and are not compared for that.

    Args:
        mixed: compare them all the same, and say so.
    """
    found: set[str] = set()
    warnings = []
    for evaluator in (name for name in row.scores if row.scores[name] and base.scores.get(name)):
        one, other = (_judges_of(side, evaluator) for side in (row, base))
        if one == other:
            continue
        said = f"{row.label} was judged by {_named(one)} and {base.label} by {_named(other)} on {evaluator}"
        if mixed:
            warnings.append(f"{said}; they are compared because judge.allow_mixed_judges is set.")
            continue
        found.add(evaluator)
        warnings.append(f"{said}: they are not compared; set judge.allow_mixed_judges to compare all the same.")
    return found, warnings


def _judges_of(row: RowResult, evaluator: str) -> list[str]:
    """The judges of an evaluator's scores as `rows` notes them: models with the versions that their servers reported."""
    return sorted(row.provenance.get("judges", {}).get(evaluator, {}).get("versions", ()))


def _named(versions: Sequence[str]) -> str:
    return " and ".join(versions) or "nobody"
