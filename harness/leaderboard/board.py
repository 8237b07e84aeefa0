"""From scores to a board: what a run hands in, what a person gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import DataError, did_you_mean
from harness.leaderboard.comparison import DRAWS, FLIPS, LEVEL, Comparison, RowResult
from harness.leaderboard.schema import Board, ExampleRow, MetricEntry, RowEntry, StatisticsEntry
from harness.leaderboard.text import plain, signed
from harness.types import Metric
from harness.version import __version__

__all__ = ["Board", "ExampleRow", "RowResult", "build_board"]


def build_board(
    *,
    name: str,
    description: str,
    config: Mapping[str, Any],
    baseline: str,
    rows: Sequence[RowResult],
    metrics: Mapping[str, Sequence[Metric]],
    examples: Sequence[ExampleRow],
    sharing: Mapping[str, Any],
    created: str,
    warnings: Sequence[str],
    commit: str | None = None,
) -> Board:
    """Compare every row with the baseline and put the best first.

    Args:
        metrics: per evaluator name; the first primary one decides the order.
        commit: of the harness that ran, where known.

    Raises:
        DataError: two rows share a label, or no row is called `baseline`.
    """
    _check_labels(rows, baseline)
    entries = tuple(
        MetricEntry(
            key=f"{evaluator}/{metric.name}",
            description=metric.description,
            higher_is_better=metric.higher_is_better,
            primary=metric.primary,
        )
        for evaluator, listed in metrics.items()
        for metric in listed
    )
    comparison = Comparison(rows, entries, baseline)
    board = Board(
        name=plain(name),
        description=plain(description),
        created=created,
        harness={"version": __version__} | ({"commit": commit} if commit else {}),
        config=plain(config),
        baseline=plain(baseline),
        metrics=entries,
        rows=(),
        statistics=_methods(),
        sharing=plain(sharing),
    )
    ordered = _ordered([comparison.entry(row) for row in rows], board.primary[:1])
    said = (*warnings, *comparison.warnings, *_noise_warnings(ordered, board.primary))
    return board.model_copy(update={"rows": ordered, "warnings": tuple(plain(text) for text in said)}).with_examples(examples)


def _check_labels(rows: Sequence[RowResult], baseline: str) -> None:
    labels = [row.label for row in rows]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise DataError(f"two rows of the board are called {twice[0]!r}: give each its own label")
    if baseline not in labels:
        raise DataError(f"the baseline {baseline!r} is not a row of the board: {did_you_mean(baseline, labels)}")


def _ordered(rows: Sequence[RowEntry], first: Sequence[MetricEntry]) -> tuple[RowEntry, ...]:
    """By the first primary metric, best first; rows without it after that, failed rows last; ties keep their order."""

    def place(row: RowEntry) -> tuple[bool, bool, float]:
        score = row.scores.get(first[0].key) if first else None
        if score is None:
            return (row.failed is not None, True, 0.0)
        return (row.failed is not None, False, score.mean if first[0].higher_is_better is False else -score.mean)

    return tuple(sorted(rows, key=place))


def _noise_warnings(rows: Sequence[RowEntry], primary: Sequence[MetricEntry]) -> list[str]:
    """A null row is the baseline again: where its difference is sure, no small difference of another row means anything."""
    said = []
    for row in rows:
        for metric in primary if row.kind == "null" else ():
            delta = row.scores[metric.key].delta if metric.key in row.scores else None
            if delta is not None and (delta.low > 0 or delta.high < 0):
                said.append(
                    f"The null row {row.method} differs from the baseline on {metric.key} by {signed(delta.mean)} "
                    f"({signed(delta.low)} to {signed(delta.high)}) although only its seeds differ: "
                    "take no difference of that size seriously, and add seeds."
                )
    return said


def _methods() -> StatisticsEntry:
    return StatisticsEntry(
        interval="percentile interval of a hierarchical bootstrap: seeds, then prompts, which the seeds share; "
        "differences are paired by prompt, and by seed where both rows have as many",
        test="two-sided sign-flip permutation test over prompts of the difference averaged over seeds; "
        "it takes the trained models as given, so a difference counts only where its interval excludes 0 too "
        "and its size is not below the noise floor: what a change of seeds alone could show, "
        f"at the bound of its {LEVEL:.0%} interval (the larger bound, in size, of the null row's)",
        correction="Holm over all rows and primary metrics; the other metrics are a second family",
        draws=DRAWS,
        flips=FLIPS,
        level=LEVEL,
    )
