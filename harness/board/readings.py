"""What the evaluators read of a row: values per metric, and a word on those that are missing."""

from __future__ import annotations

from collections.abc import Sequence

from harness.board.entries import MetricEntry
from harness.board.result import RowResult
from harness.board.statistics import Values, by_metric
from harness.api.types import Score


def readings(row: RowResult, metrics: Sequence[MetricEntry]) -> tuple[dict[str, Values], list[str]]:
    """Values per metric key; why there are none of a metric, and where some are missing."""
    found: dict[str, Values] = {}
    warnings: list[str] = []
    silent: dict[str, list[str]] = {}
    sorted_out: dict[str, dict[str, dict[int, list[Score]]]] = {}
    for metric in metrics:
        evaluator, _, name = metric.key.partition("/")
        runs = row.scores.get(evaluator)
        if evaluator not in sorted_out:
            sorted_out[evaluator] = by_metric(runs or {})
        values = Values.from_scores(sorted_out[evaluator].get(name, dict.fromkeys(runs or {}, ())), name)
        kept = values.answered()
        if row.kind in ("published", "imported") and not kept.examples:
            continue  # others report what they report
        if not runs:
            silent.setdefault(evaluator, []).append(name)
            continue
        if not kept.examples:
            warnings.append(f"{row.label} has no {metric.key}: {evaluator} reported no finite value of it.")
            continue
        holes = values.values.size - kept.values.size
        if holes:
            warnings.append(
                f"{row.label}: {holes} of {values.values.size} values of {metric.key} are missing or not finite; "
                "the mean is over the others."
            )
        found[metric.key] = values
    for evaluator, names in silent.items():
        warnings.append(f"{row.label} has no {', '.join(names)} of {evaluator}, which gave it no scores.")
    return found, warnings


def aligned(rows: Sequence[Values]) -> list[Values]:
    """All on the examples that any has."""
    if all((row.examples, row.questions) == (rows[0].examples, rows[0].questions) for row in rows):
        return list(rows)
    question = {name: asked for row in rows for name, asked in zip(row.examples, row.questions, strict=True)}
    examples = tuple(sorted(question))
    if examples == rows[0].examples:
        examples = rows[0].examples
    questions = tuple(question[name] for name in examples)
    return [row.on(examples, questions) for row in rows]
