"""Whether what is measured under one starting model holds under another: the order of rows, and their gains.

The questions are the same under every model and the seeds are numbered alike, so each model has a crossed table of rows, seeds
and questions, and every test here has the board's one error (`variance`).

Order. A pair of rows has the same order under both models if the same row is better under each, and is reversed if another
one is. Either is an intersection-union test: the larger of the two one-sided p-values (Gail & Simon 1985, 'Testing for
qualitative interactions between treatment effects and patient subsets', Biometrics 41(2)). How many pairs have the same order
at least, and how many are reversed at least, are bounds on the number of true discoveries (Goeman & Solari 2011, 'Multiple
testing for exploratory research', Statistical Science 26(4)). They bound Kendall's τ of the true order, since τ is a count of
pairs. A bootstrap interval of τ does not hold it where it is 1: noise can only lower it (docs/decisions.md has the numbers).

Gains. Methods and models interact if a method's difference from the others depends on the model. Rows and models are fixed,
seeds and questions random, so the mean square of the interaction is held against its own variation over both (Clark 1973,
'The language-as-fixed-effect fallacy', Journal of Verbal Learning and Verbal Behavior 12(4)). With two rows and two models
that is Student's test of the difference of two differences.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.board.statistics.best import Pairs
from harness.board.statistics.correction import ALPHA, scaled
from harness.board.statistics.values import Floats


@dataclass(frozen=True)
class PairTests:
    """Tests of every pair of rows under two models, [pairs] each, in the order of `numpy.triu_indices(rows, 1)`.

    Attributes:
        same: p-value that the pair has not the same order under both.
        reversed: p-value that it is not reversed; `reversed_own` with the pair's own variance between seeds.
    """

    same: Floats
    same_own: Floats
    reversed: Floats
    reversed_own: Floats


@dataclass(frozen=True)
class OrderBounds:
    """Bounds on the number of pairs, and on Kendall's τ of the true order, that hold together with probability 1 − α.

    Attributes:
        pairs: of rows, in all.
        same: have the same order under both models, at least.
        reversed: are reversed, at least.
    """

    pairs: int
    same: int
    reversed: int

    @property
    def low(self) -> float:
        """The least τ: all that is not shown to have the same order is reversed."""
        return (2 * self.same - self.pairs) / self.pairs

    @property
    def high(self) -> float:
        """The largest τ: nothing is reversed but what is shown to be."""
        return (self.pairs - 2 * self.reversed) / self.pairs


@dataclass(frozen=True)
class Interaction:
    """The F test of the interaction of rows and models; `rows_freedom` and `error_freedom` are its degrees of freedom."""

    f: float
    rows_freedom: int
    error_freedom: float
    p: float


def pair_tests(left: Pairs, right: Pairs) -> PairTests:
    """Test each pair of rows under two models, from all their differences under each (higher is better)."""
    above, below = np.triu_indices(left.p.shape[-1], 1)

    def both_ways(one: Floats, other: Floats, *, same: bool) -> Floats:
        """Return the smaller p-value of the two ways to have the same order, or to be reversed."""
        first, second = (above, below), (below, above)
        ways = [(first, first), (second, second)] if same else [(first, second), (second, first)]
        # At most one way can be true, so the smaller p-value needs no factor 2: it rejects falsely at the level at most.
        return np.minimum(*(np.maximum(one[here], other[there]) for here, there in ways))

    return PairTests(
        both_ways(left.p, right.p, same=True),
        both_ways(left.p_own, right.p_own, same=True),
        both_ways(left.p, right.p, same=False),
        both_ways(left.p_own, right.p_own, same=False),
    )


def order_bounds(tests: PairTests, alpha: float = ALPHA) -> OrderBounds:
    """Return how many pairs have the same order and how many are reversed, at least; half of `alpha` goes to each."""

    def shown(p: Floats, own: Floats) -> int:
        # A pair that its own variance does not show is none that counts, however calm the other rows are.
        return true_discoveries(np.where(scaled(own) < ALPHA, p, 1.0), alpha / 2)

    return OrderBounds(len(tests.same), shown(tests.same, tests.same_own), shown(tests.reversed, tests.reversed_own))


def true_discoveries(p: Floats, alpha: float) -> int:
    """Return a number of false null hypotheses that is not too large with probability 1 − `alpha`; [tests].

    Closed testing with Simes' test (Goeman, Meijer, Krebs & Solari 2019, 'Simultaneous control of all false discovery
    proportions in large-scale multiple hypothesis testing', Biometrika 106(4)).
    """
    ordered, count = np.sort(p), len(p)
    # Hommel's value: the size of the largest set of hypotheses that Simes' test does not reject.
    sizes = (
        size for size in range(count, 0, -1) if bool(np.all(size * ordered[count - size :] > alpha * np.arange(1, size + 1)))
    )
    hommel = next(sizes, 0)
    if hommel == 0:
        return count
    steps = np.arange(1, count + 1)
    below = (hommel * ordered[None, :] <= alpha * steps[:, None]).sum(axis=1)
    return max(0, int((1 - steps + below).max(initial=0)))


def interaction(tables: Floats) -> Interaction | None:
    """Test whether rows differ alike under all models; None with fewer than two of either, or without any spread.

    Args:
        tables: [models, rows, seeds, questions] without holes; with one seed the test is over questions alone.
    """
    models, rows, seeds, questions = tables.shape
    freedom = (models - 1) * (rows - 1)
    if freedom < 1 or questions < 2:
        return None
    residual = tables - tables.mean(axis=0, keepdims=True)
    residual = residual - residual.mean(axis=1, keepdims=True)
    effect = residual.mean(axis=(2, 3), keepdims=True)
    around = residual - effect
    by_seed, by_question = around.mean(axis=3), around.mean(axis=2)
    square = seeds * questions * float((effect**2).sum()) / freedom
    of_questions = seeds * float((by_question**2).sum()) / (freedom * (questions - 1))
    if seeds == 1:
        total, spent = of_questions, of_questions**2 / (freedom * (questions - 1))
    else:
        of_seeds = questions * float((by_seed**2).sum()) / (freedom * (seeds - 1))
        both_freedom = freedom * (seeds - 1) * (questions - 1)
        left = float((around**2).sum()) - freedom * ((seeds - 1) * of_seeds + (questions - 1) * of_questions)
        rest = max(0.0, left) / both_freedom
        # As in `variance.errors`: seeds that lie closer together than chance would have it still count with their freedom.
        floored = max(of_seeds, rest)
        total = floored + max(0.0, of_questions - rest)
        spent = floored**2 / (freedom * (seeds - 1)) + of_questions**2 / (freedom * (questions - 1)) + rest**2 / both_freedom
    # beyond rounding: rows that are equal at every seed and question leave squares in the last digits
    if total <= 1e-18 * max(1.0, float(np.abs(tables).max()) ** 2):
        return None
    error_freedom = total**2 / spent if spent > 0 else inf
    f = square / total
    return Interaction(f, freedom, error_freedom, float(special.fdtrc(freedom, error_freedom, f)))


def signs(means: Floats) -> NDArray[np.int_]:
    """Return for each pair of rows, in the order of `PairTests`, which is better: 1 the first, −1 the second; [rows]."""
    above, below = np.triu_indices(len(means), 1)
    return np.sign(means[above] - means[below]).astype(np.int_)
