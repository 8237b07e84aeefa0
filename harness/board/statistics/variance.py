"""The error of a mean over seeds and questions: the model that every interval and test of a board uses.

Every seed answers the same questions, so the design is crossed: y(s, q) = μ + seed(s) + question(q) + rest(s, q), all
random. The variance of the mean over S seeds and Q questions is σ²_seed/S + σ²_question/Q + σ²_rest/(S·Q). Its parts come
from the mean squares of the two-way table (Searle, Casella & McCulloch 1992, 'Variance Components'), and Student's t with
Satterthwaite's degrees of freedom (1946, 'An approximate distribution of estimates of variance components', Biometrics
Bulletin 2(6)) allows for few seeds and few questions.

Two or three seeds of one row say little about the variance between seeds, but a board has many rows. The variance is
therefore pooled over rows (`spreads`): for a difference it is the interaction of rows and seeds, the error term of a two-way
analysis of variance. A row whose seeds lie further apart than the pool explains is tested with its own variance and its own
few degrees of freedom (`RESTLESS`).

All functions whose names are plural work on whole arrays of tables, [..., seeds, questions], at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.board.statistics.values import Floats, mean_over_seeds

# In an interval a row leaves the pool where an F-test of its variance between seeds against the pool has p below these. They
# are large on purpose: with two seeds a row ten times as restless hides in the pool with probability √(F/100), and each time
# its mean is far from the truth. With these the interval of such a row covers its mean 93 % of the time.
RESTLESS, RESTLESS_OF_TWO = 0.45, 0.7
UPPER = 0.975  # of the 95 % interval

# A sample's third moment is too small on average where the tail is heavy: an outlier that would show it is mostly absent.
HEAVY = 1.5


@dataclass(frozen=True)
class Components:
    """Variances of one seed, one question and one cell, and how many seeds and questions they were taken from.

    With one seed nothing is known of seeds: their variance is 0 here, and every statement holds for that one training.
    """

    seed: float
    question: float
    rest: float
    seeds: int
    questions: int
    freedom_per_seed: float = 1.0  # of the seeds' variance: more than 1 where it was pooled over rows

    def error(self, seeds: int | None = None, questions: int | None = None) -> Error:
        """The standard error of a mean over so many seeds and questions, as many as there are by default."""
        s, q = seeds or self.seeds, questions or self.questions
        if s == 1:
            within = (self.question + self.rest) / q
            return Error(sqrt(within), q - 1 or inf)
        by_seed, by_question = q * self.seed + self.rest, s * self.question + self.rest  # expected mean squares
        total = by_seed + by_question - self.rest
        spent = by_seed**2 / (self.freedom_per_seed * (s - 1)) + _over(by_question**2, q - 1)
        spent += _over(self.rest**2, (s - 1) * (q - 1))
        return Error(sqrt(total / (s * q)), total**2 / spent if spent > 0 else inf)


@dataclass(frozen=True)
class Error:
    """A standard error, its degrees of freedom, and the skewness of the estimate (third cumulant over size³)."""

    size: float
    freedom: float
    skew: float = 0.0


@dataclass(frozen=True)
class Spread:
    """Variance between seeds of a mean over all questions at one seed, and its degrees of freedom."""

    variance: float
    freedom: float


@dataclass(frozen=True)
class Squares:
    """Mean squares of many crossed tables, an array of any shape [...] each.

    Attributes:
        seed: between seeds; with one seed 0.
        question: between questions.
        rest: what is left; with one seed 0.
        third: third cumulant of the mean, as far as questions cause it.
    """

    seed: Floats
    question: Floats
    rest: Floats
    third: Floats
    seeds: int
    questions: int


@dataclass(frozen=True)
class Errors:
    """Standard errors of many means: `Error` and the mean squares' own degrees of freedom as arrays, [...] each."""

    size: Floats
    freedom: Floats
    skew: Floats
    square_seed: Floats
    freedom_seed: Floats


def mean_squares(tables: Floats) -> Squares:
    """Mean squares of crossed tables without holes, [..., seeds, questions]."""
    seeds, questions = tables.shape[-2:]
    centred = tables - tables.mean(axis=(-2, -1), keepdims=True)
    by_seed, by_question = centred.mean(axis=-1), centred.mean(axis=-2)
    many = max(questions - 1, 1)
    square_question = seeds * np.einsum("...q,...q->...", by_question, by_question) / many
    third = np.einsum("...q,...q,...q->...", by_question, by_question, by_question)
    third = HEAVY * third / (questions * many * max(questions - 2, 1))
    if seeds == 1:
        none = np.zeros_like(square_question)
        return Squares(none, square_question, none, third, 1, questions)
    square_seed = questions * np.einsum("...s,...s->...", by_seed, by_seed) / (seeds - 1)
    total = np.einsum("...sq,...sq->...", centred, centred)
    rest = (total - (seeds - 1) * square_seed - (questions - 1) * square_question) / ((seeds - 1) * many)
    return Squares(square_seed, square_question, np.maximum(rest, 0.0), third, seeds, questions)


def errors(
    squares: Squares,
    variance: Floats | float | None = None,
    freedom: Floats | float = inf,
    *,
    always: bool = False,
    interval: bool = False,
) -> Errors:
    """Standard errors of the means of crossed tables.

    Args:
        variance: between seeds of a mean at one seed, pooled over rows, and its `freedom`; None: of each table alone.
        always: use it for restless rows too, for a test that a second one with their own variance stands beside.
        interval: for an interval of 95 %: where seeds stand for themselves, the freedom is no larger than Howe's limit takes.
    """
    seeds, questions = squares.seeds, squares.questions
    free_question = questions - 1 or inf
    if seeds == 1:
        size = np.sqrt(squares.question / questions)
        free = np.full_like(size, free_question)
        return Errors(size, free, _skewness(squares.third, size), squares.seed, np.zeros_like(size))
    square_seed, free_seed, alone = squares.seed, np.full_like(squares.seed, seeds - 1), np.ones(squares.seed.shape, dtype=bool)
    if variance is not None:
        shared = questions * np.asarray(variance, dtype=np.float64)
        level = RESTLESS_OF_TWO if seeds == 2 else RESTLESS
        limit = special.fdtri(seeds - 1, np.asarray(freedom, dtype=np.float64), 1.0 - level)
        calm = (squares.seed <= limit * shared) | always
        square_seed, free_seed, alone = np.where(calm, shared, squares.seed), np.where(calm, freedom, free_seed), ~calm
    # Seeds that lie closer together than chance would have it add nothing, but their few degrees of freedom still count:
    # to drop the term where it comes out small is a test of its own, and errors of the first kind rise with it.
    floored = np.maximum(square_seed, squares.rest)
    total = floored + np.maximum(0.0, squares.question - squares.rest)
    spent = floored**2 / free_seed + squares.question**2 / free_question
    spent = spent + squares.rest**2 / max((seeds - 1) * (questions - 1), 1)
    free = np.divide(total**2, spent, out=np.full_like(total, inf), where=spent > 0)
    if interval:
        free = np.where(alone, np.minimum(free, _freedom_of_howe(floored, free_seed, total - floored, free_question)), free)
    size = np.sqrt(total / (seeds * questions))
    return Errors(size, free, _skewness(squares.third, size), square_seed, free_seed)


def _freedom_of_howe(seed: Floats, free_seed: Floats, question: Floats, free_question: float) -> Floats:
    """Return the freedom with which Student's limit of a sum of two variances is √(t₁²·v₁ + t₂²·v₂).

    Two or three seeds that happen to lie close together say that they vary little, and Satterthwaite's freedom, which goes by
    the estimates, then forgets how few they are: the mean of a row ten times as restless was covered 88 % of the time. Here
    each part keeps its own quantile (Howe 1974, 'Approximate confidence limits on the mean of X + Y', JASA 69(347)).
    """
    total, upper = seed + question, special.ndtri(UPPER)
    of_question = special.stdtrit(free_question, UPPER) if np.isfinite(free_question) else upper
    squared = special.stdtrit(free_seed, UPPER) ** 2 * seed + of_question**2 * question
    limit = np.sqrt(np.divide(squared, total, out=np.full_like(total, upper**2), where=total > 0))
    return np.asarray(np.where(limit > upper, special.stdtridf(UPPER, np.maximum(limit, upper + 1e-9)), inf))


def with_pseudo_questions(gaps: Floats) -> Floats:
    """Differences of proportions, [..., seeds, questions], with two questions more: one won and one lost, at one seed each.

    Few or no questions on which two rows differ say little of how many there are (Bonett & Price 2012, 'Adjusted Wald
    confidence interval for a difference of binomial proportions based on paired data', JEBS 37(4)).
    """
    each = np.full((*gaps.shape[:-1], 1), 1.0 / gaps.shape[-2])
    return np.concatenate([gaps, each, -each], axis=-1)


def _skewness(third: Floats, size: Floats) -> Floats:
    return np.asarray(np.divide(third, size**3, out=np.zeros_like(size), where=size > 0))


def pooled(means: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """`spreads` for many boards at once: variance and freedom of one row, variance and freedom of a difference.

    Args:
        means: [..., rows, seeds], at least two of each and no holes.
    """
    rows, seeds = means.shape[-2:]
    centred = means - means.mean(axis=-1, keepdims=True)
    together = centred.mean(axis=-2)
    apart = centred - together[..., None, :]
    common = (together**2).sum(axis=-1) / (seeds - 1)
    free = (rows - 1) * (seeds - 1)
    own = (apart**2).sum(axis=(-2, -1)) / free
    inside = common + (rows - 1) / rows * own  # the variance inside rows, averaged over them
    spent = common**2 / (seeds - 1) + ((rows - 1) / rows * own) ** 2 / free
    freedom = np.divide(inside**2, spent, out=np.full_like(inside, float(free)), where=spent > 0)
    return inside, freedom, 2.0 * own, np.full_like(own, float(free))


def spreads(means: Floats) -> tuple[Spread | None, Spread | None]:
    """Between seeds, of one row and of the difference of two, from a two-way table of rows and seeds.

    A seed moves all rows (they start from its SFT model) and each row. The second is the interaction of the table, with
    (rows − 1)(seeds − 1) degrees of freedom; a single row has both, a difference twice the second. (None, None) with fewer than
    two rows or seeds.

    Args:
        means: [rows, seeds], each over all questions; NaN drops the row.
    """
    whole = means[np.isfinite(means).all(axis=1)]
    if min(whole.shape) < 2:
        return None, None
    inside, inside_free, apart, apart_free = pooled(whole)
    return Spread(float(inside), float(inside_free)), Spread(float(apart), float(apart_free))


def components(
    values: Floats,
    question: NDArray[np.intp] | None = None,
    spread: Spread | None = None,
    *,
    always: bool = False,
    interval: bool = False,
) -> tuple[Components, Error]:
    """Variance components of a mean, and its standard error.

    Args:
        values: [seeds, examples]; NaN where a value is missing, which the linearised ratio mean allows for.
        question: [examples], the number of each example's question; each its own if None.
        spread: the variance between seeds pooled over rows, if it is known; used for a restless row too if `always`.
        interval: the error is for an interval, as in `errors`.
    """
    squares = mean_squares(linearised(values, question))
    seeds, questions = squares.seeds, squares.questions
    pool = (spread.variance, spread.freedom) if spread is not None else ()
    found = errors(squares, *pool, always=always, interval=interval)
    rest = float(squares.rest)
    parts = Components(
        seed=max(0.0, float(found.square_seed) - rest) / questions,
        question=max(0.0, float(squares.question) - rest) / seeds,
        rest=rest,
        seeds=seeds,
        questions=questions,
        freedom_per_seed=float(found.freedom_seed) / (seeds - 1) if seeds > 1 else 1.0,
    )
    return parts, Error(float(found.size), float(found.freedom), float(found.skew))


def unpaired(row: Floats, base: Floats, question: NDArray[np.intp] | None = None) -> Error:
    """The standard error of a difference whose two sides share the questions and no seed."""
    gap = (mean_over_seeds(row) - mean_over_seeds(base))[None, :]
    within = components(gap, question)[1]
    variances, freedoms = [within.size**2], [within.freedom]
    for side in (row, base):
        if len(side) > 1:
            variances.append(components(side, question)[0].seed / len(side))
            freedoms.append(len(side) - 1)
    spent = sum(variance**2 / free for variance, free in zip(variances, freedoms, strict=True))
    size = sqrt(sum(variances))
    skew = within.skew * (within.size / size) ** 3 if size > 0 else 0.0
    return Error(size, sum(variances) ** 2 / spent if spent > 0 else inf, skew)


def linearised(values: Floats, question: NDArray[np.intp] | None = None) -> Floats:
    """[seeds, questions] of what each cell adds to the error of the mean, whatever is missing."""
    present = np.isfinite(values)
    cells = int(present.sum())
    centred = np.where(present, values - values[present].mean(), 0.0)
    if question is not None and len(question) and question.max() + 1 < len(question):
        summed = np.zeros((len(values), int(question.max()) + 1))
        np.add.at(summed.T, question, centred.T)
        centred = summed
    return np.asarray(centred * (centred.size / cells), dtype=np.float64)


def without_holes(values: Floats, question: NDArray[np.intp] | None = None) -> Floats:
    """[seeds, questions] with the same mean and the same error as values with holes, for functions that take whole tables.

    Args:
        values: [seeds, examples]; NaN where a value is missing.
        question: [examples], the number of each example's question; each its own if None.
    """
    return linearised(values, question) + float(np.nanmean(values))


def _over(total: float, count: float) -> float:
    return total / count if count > 0 else 0.0
