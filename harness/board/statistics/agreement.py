"""Whether two evaluators agree: over rows (do they order the methods alike), over examples, and answer by answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
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
class Estimate:
    """A coefficient with its interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class RaterAgreement:
    """How far two raters (judges, reward models) agree on the same answers.

    Attributes:
        spearman: ρ over answers; None where a rater gives all of them one value.
        alpha: Krippendorff's α for interval data ('Content Analysis', 4th ed. 2019, chapter 12), of raters with one scale; None
            where they have not, or all values are equal. 1 is perfect agreement, 0 that of chance.
        same: share of answers to which both give the same value; None without one scale.
        answers: with a value of both raters.
        questions: that they answer.
    """

    spearman: Estimate | None
    alpha: Estimate | None
    same: float | None
    answers: int
    questions: int


def rater_agreement(
    left: Floats, right: Floats, questions: NDArray[np.intp], *, one_scale: bool, draws: int = 2000, level: float = 0.95
) -> RaterAgreement | None:
    """Return the agreement of two raters, with intervals from a bootstrap over questions, each drawn with all its answers.

    Ranks are taken once, over all answers, and not again in every draw.

    Args:
        left, right: values of the same answers, [answers]; NaN where there is none.
        questions: number of the question that each answers, [answers].
        one_scale: whether a value means the same from both, so that values and not only ranks are compared.

    Returns:
        None where fewer than three answers have both values.
    """
    both = np.isfinite(left) & np.isfinite(right)
    a, b = left[both], right[both]
    if len(a) < 3:
        return None
    _, asked = np.unique(questions[both], return_inverse=True)
    count = int(asked.max()) + 1
    rng = np.random.default_rng(0)
    weights = rng.multinomial(count, np.full(count, 1.0 / count), size=draws).astype(np.float64)

    def estimate(coefficient: Callable[[Floats], Floats], *parts: Floats) -> Estimate | None:
        """Estimate a coefficient of sums of `parts` [answers], on the sample and on each draw."""
        sums = np.stack([np.bincount(asked, part, count) for part in (np.ones(len(a)), *parts)])  # [parts, questions]
        value = coefficient(sums.sum(axis=1, keepdims=True))[0]
        drawn = coefficient(sums @ weights.T)
        drawn = drawn[np.isfinite(drawn)]
        if not np.isfinite(value) or not len(drawn):
            return None
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
        return Estimate(float(value), float(low), float(high))

    ranks_a, ranks_b = (stats.rankdata(side) / len(side) for side in (a, b))
    # Centred values keep the digits of variances that are small beside the mean.
    middle = float(np.concatenate([a, b]).mean())
    x, y = a - middle, b - middle
    return RaterAgreement(
        spearman=estimate(_correlation, ranks_a, ranks_b, ranks_a**2, ranks_b**2, ranks_a * ranks_b),
        alpha=estimate(_alpha, x + y, x**2 + y**2, (x - y) ** 2) if one_scale else None,
        same=float((np.abs(a - b) < 1e-9).mean()) if one_scale else None,
        answers=len(a),
        questions=count,
    )


def _correlation(sums: Floats) -> Floats:
    """Pearson's r from [n, Σa, Σb, Σa², Σb², Σab], each [draws]; NaN where a side is constant."""
    n, a, b, aa, bb, ab = sums
    spread = (aa - a * a / n) * (bb - b * b / n)
    root = np.sqrt(np.maximum(spread, 0))
    return np.asarray(np.divide(ab - a * b / n, root, out=np.full(len(n), np.nan), where=spread > 1e-12))


def _alpha(sums: Floats) -> Floats:
    """Krippendorff's α of two raters, 1 − mean (a − b)² / 2s², with the variance s² of all values together.

    Args:
        sums: [n, Σ(a + b), Σ(a² + b²), Σ(a − b)²], each [draws].
    """
    n, total, squares, gaps = sums
    expected = 2 * (squares - total * total / (2 * n)) / (2 * n - 1)
    return 1.0 - np.asarray(np.divide(gaps / n, expected, out=np.full(len(n), np.nan), where=expected > 1e-12))


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
