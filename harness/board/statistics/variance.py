"""Where the uncertainty of a mean comes from: seeds, questions, and what is left.

Every seed answers the same questions, so the design is crossed: y(s, q) = μ + seed(s) + question(q) + rest(s, q), all
random. The variance of the mean over S seeds and Q questions is σ²_seed/S + σ²_question/Q + σ²_rest/(S·Q); its parts come
from the mean squares of the two-way table (Searle, Casella & McCulloch 1992, 'Variance Components'), and Student's t with
Satterthwaite's degrees of freedom (1946, 'An approximate distribution of estimates of variance components', Biometrics
Bulletin 2(6)) pays for what few seeds cannot tell.

Two or three seeds of one row say next to nothing of how far seeds lie apart, but a board has many rows. What seeds do to the
difference of two rows is therefore taken from all rows together: the interaction of rows and seeds (`spreads`), which is
the error term of a two-way analysis of variance. A row that is itself more restless than that keeps its own, larger variance.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray

from harness.board.statistics.values import Floats


@dataclass(frozen=True)
class Components:
    """Variances of one seed, one question and one cell, and how many seeds and questions they were taken from.

    With one seed nothing is known of seeds: their variance is 0 here, and what is said holds for that one training.
    """

    seed: float
    question: float
    rest: float
    seeds: int
    questions: int
    freedom_per_seed: float = 1.0  # of the seeds' variance: more than 1 where many rows told of it

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
    """A standard error and its degrees of freedom."""

    size: float
    freedom: float


@dataclass(frozen=True)
class Spread:
    """Variance between seeds of a mean over all questions at one seed, and its degrees of freedom."""

    variance: float
    freedom: float


def spreads(means: Floats) -> tuple[Spread | None, Spread | None]:
    """Between seeds, of one row and of the difference of two, from a two-way table of rows and seeds.

    A seed moves all rows (they start from its SFT model) and each row. The second is the interaction of the table, with
    (rows − 1)(seeds − 1) degrees of freedom; a single row has both, a difference twice the second. (None, None) with fewer than
    two rows or seeds.

    Args:
        means: [rows, seeds], each over all questions; NaN drops the row.
    """
    whole = means[np.isfinite(means).all(axis=1)]
    rows, seeds = whole.shape
    if rows < 2 or seeds < 2:
        return None, None
    left = whole - whole.mean(axis=1, keepdims=True)
    together = left.mean(axis=0)
    apart = left - together
    common = float(together @ together) / (seeds - 1)
    free = (rows - 1) * (seeds - 1)
    own = float((apart * apart).sum()) / free
    inside = common + (rows - 1) / rows * own  # the variance inside rows, averaged over them
    spent = common**2 / (seeds - 1) + ((rows - 1) / rows * own) ** 2 / free
    return Spread(inside, inside**2 / spent if spent > 0 else float(free)), Spread(2.0 * own, float(free))


def components(
    values: Floats, question: NDArray[np.intp] | None = None, spread: Spread | None = None
) -> tuple[Components, Error]:
    """Variance components of a mean, and its standard error.

    Args:
        values: [seeds, examples]; NaN where a value is missing, which the linearised ratio mean allows for.
        question: [examples], the number of each example's question; each its own if None.
        spread: what all rows say of the seeds, if anything.
    """
    table = _linearised(values, question)
    seeds, questions = table.shape
    by_seed, by_question = table.mean(axis=1), table.mean(axis=0)
    square_question = _over(seeds * float(by_question @ by_question), questions - 1)
    if seeds == 1:
        found = Components(0.0, square_question, 0.0, 1, questions)
        return found, Error(sqrt(square_question / questions), questions - 1 or inf)
    left = table - by_seed[:, None] - by_question[None, :]
    free, free_seed = (seeds - 1) * (questions - 1), seeds - 1
    square_rest = _over(float((left * left).sum()), free)
    square_seed = questions * float(by_seed @ by_seed) / (seeds - 1)
    if spread is not None:
        square_seed, free_seed = max(square_seed, questions * spread.variance), spread.freedom
    found = Components(
        seed=max(0.0, square_seed - square_rest) / questions,
        question=max(0.0, square_question - square_rest) / seeds,
        rest=square_rest,
        seeds=seeds,
        questions=questions,
        freedom_per_seed=free_seed / (seeds - 1),
    )
    # Seeds that lie closer together than chance would have it add nothing, but their few degrees of freedom still count:
    # to drop the term where it comes out small is a test of its own, and errors of the first kind rise with it.
    square_seed = max(square_seed, square_rest)
    total = square_seed + max(0.0, square_question - square_rest)
    spent = square_seed**2 / free_seed + _over(square_question**2, questions - 1) + _over(square_rest**2, free)
    return found, Error(sqrt(total / (seeds * questions)), total**2 / spent if spent > 0 else inf)


def unpaired(row: Floats, base: Floats, question: NDArray[np.intp] | None = None) -> Error:
    """The standard error of a difference whose two sides share the questions and no seed."""
    from harness.board.statistics.values import mean_over_seeds

    gap = (mean_over_seeds(row) - mean_over_seeds(base))[None, :]
    parts = [components(gap, question)[1]]
    variances, freedoms = [parts[0].size ** 2], [parts[0].freedom]
    for side in (row, base):
        if len(side) > 1:
            variances.append(components(side, question)[0].seed / len(side))
            freedoms.append(len(side) - 1)
    spent = sum(variance**2 / free for variance, free in zip(variances, freedoms, strict=True))
    return Error(sqrt(sum(variances)), sum(variances) ** 2 / spent if spent > 0 else inf)


def _linearised(values: Floats, question: NDArray[np.intp] | None) -> Floats:
    """[seeds, questions] of what each cell adds to the error of the mean, whatever is missing."""
    present = np.isfinite(values)
    cells = int(present.sum())
    centred = np.where(present, values - values[present].mean(), 0.0)
    if question is not None and len(question) and question.max() + 1 < len(question):
        summed = np.zeros((len(values), int(question.max()) + 1))
        np.add.at(summed.T, question, centred.T)
        centred = summed
    return np.asarray(centred * (centred.size / cells), dtype=np.float64)


def _over(total: float, count: float) -> float:
    return total / count if count > 0 else 0.0
