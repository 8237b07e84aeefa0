"""Whether two evaluators say the same: over rows (do they order the methods alike), and over examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from harness.board.statistics.values import Floats


@dataclass(frozen=True)
class Agreement:
    """Between two metrics.

    Attributes:
        kendall: τ-b over rows (Kendall 1945, 'The treatment of ties in ranking problems', Biometrika 33(3)).
        spearman: ρ over rows.
        rows: how many have both.
        per_example: Spearman's ρ over examples, averaged over rows; None where no row has both metrics on the same examples.
        examples: that both metrics have.
    """

    kendall: float
    spearman: float
    rows: int
    per_example: float | None
    examples: int


def agree(left: Floats, right: Floats) -> tuple[float, float] | None:
    """Kendall's τ-b and Spearman's ρ; None with fewer than three rows, or where one side is constant. [rows] each."""
    if len(left) < 3 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return None
    return float(stats.kendalltau(left, right).statistic), float(stats.spearmanr(left, right).statistic)


def ranked(values: Floats) -> Floats:
    """Ranks of each row, centred and of length 1, so that products are Spearman's ρ; 0 for a constant. [rows, examples]"""
    ranks = stats.rankdata(values, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    length = np.sqrt((ranks * ranks).sum(axis=1, keepdims=True))
    return np.asarray(np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 0))


def per_example(left: Floats, right: Floats) -> float | None:
    """Spearman's ρ between two metrics over examples, averaged over rows. Both [rows, examples] from `ranked`."""
    moving = left.any(axis=1) & right.any(axis=1)
    return float(np.einsum("ij,ij->i", left, right)[moving].mean()) if moving.any() else None


@dataclass(frozen=True)
class Repeatability:
    """How far a judge agrees with itself on questions that it was asked again.

    Attributes:
        questions: asked more than once.
        repeats: mean number of verdicts per such question.
        agreement: share of pairs of verdicts on one question that are the same.
        correlation: intraclass correlation of single verdicts, ICC(1) (Shrout & Fleiss 1979, Psychological Bulletin 86(2));
            None where all verdicts are equal.
        variance: of one verdict about its question's mean.
        share: of the variance of one question's score that the judge's changes of mind make, 1 − ICC(1), from 0 to 1.
    """

    questions: int
    repeats: float
    agreement: float
    correlation: float | None
    variance: float
    share: float


def repeatability(verdicts: Sequence[Sequence[float]], *, tolerance: float = 1e-9) -> Repeatability | None:
    """Return how repeatable verdicts are; None where no question has two.

    Args:
        verdicts: per question its verdicts, of any number; those that could not be read are left out (NaN is too).
    """
    asked = [np.array([v for v in question if np.isfinite(v)]) for question in verdicts]
    again = [question for question in asked if len(question) > 1]
    if not again:
        return None
    counts = np.array([len(question) for question in again], dtype=np.float64)
    pairs_equal = sum(float((np.abs(q[:, None] - q) <= tolerance).sum() - len(q)) for q in again)
    within = sum(float(((q - q.mean()) ** 2).sum()) for q in again) / float((counts - 1).sum())
    means, total = np.array([q.mean() for q in again]), float(counts.sum())
    if len(again) < 2:
        between = 0.0
    else:
        grand = float((counts * means).sum() / total)
        # one-way analysis of variance with unequal group sizes
        square = float((counts * (means - grand) ** 2).sum()) / (len(again) - 1)
        size = (total - float((counts**2).sum()) / total) / (len(again) - 1)
        between = max(0.0, (square - within) / size)
    whole = within + between
    correlation = between / whole if whole > 0 and len(again) > 1 else None
    agreement = pairs_equal / float((counts * (counts - 1)).sum())
    return Repeatability(len(again), float(counts.mean()), agreement, correlation, within, within / whole if whole > 0 else 0.0)
