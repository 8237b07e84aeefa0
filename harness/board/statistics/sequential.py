"""Add seeds, or prompts, only where they decide: p-values that stay valid when one looks after every addition.

A comparison looks at its rows after `start` seeds and again after every further one, up to `most`. The level of each look
is what an alpha-spending function leaves it (Lan & DeMets 1983, Biometrika 70(3)), on the scale of p-values, so that Student's
t with its few degrees of freedom takes the normal's place (Jennison & Turnbull 2000, 'Group Sequential Methods', section 3.8).
`repeated` turns the p-value of a look into one that holds whatever the look, so that Holm's correction and every other use
of p-values stay as they are.

A row is open while seeds can still change its verdict: it is not yet significantly different from the baseline, or not yet
excluded from the rows that may be the best, and the chance that `most` seeds would decide it is not below `futility`. To stop
for futility adds no error of the first kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from harness.board.statistics.best import Pairs, may_be_best
from harness.board.statistics.correction import both
from harness.board.statistics.intervals import one_sided
from harness.board.statistics.values import Floats
from harness.board.statistics.variance import Squares, errors, mean_squares

Bools = NDArray[np.bool_]
NODES = 96  # of the quadrature over the continuation region
GRID = np.concatenate([np.logspace(-12, -3, 28), np.geomspace(0.0015, 0.9, 30), [1.0]])  # p-values are interpolated between
NEVER = 40.0  # standard errors
ROUNDS = 25  # of alternating projections: rows nest in seeds, so that they converge fast


@dataclass(frozen=True)
class Rule:
    """When to look and when to stop.

    Attributes:
        looks: numbers of seeds or of questions at which the comparison looks, rising; the last is the most there will be.
        adds: of which of the two.
        alpha: family-wise error over all looks.
        futility: the chance of a decision below which a row gets no more seeds.
        spending: ρ of the spending function α·fraction^ρ (Kim & DeMets 1987, Biometrika 74(1)); 1 spends evenly, 3 late.
        spending_own: share of α that the test with a row's own variance has spent after each look; as α if empty. Two seeds
            get nothing, because Student's t with one degree of freedom rejects nearly nothing at any level they could have.
            None where questions are added: the test is there for rows whose own seeds lie far apart, and these are the same
            seeds at every look, so that it says nearly the same each time: it has three tenths of its level at the first
            look, and nine tenths at the last.
    """

    looks: tuple[int, ...]
    adds: Literal["seeds", "questions"] = "seeds"
    alpha: float = 0.05
    futility: float = 0.35
    spending: float = 3.0
    spending_own: tuple[float, ...] | None = ()

    def __post_init__(self) -> None:
        if not self.looks or list(self.looks) != sorted(set(self.looks)) or self.looks[0] < 1:
            raise ValueError(f"looks = {self.looks}: give rising whole numbers from 1 on")
        if not 0 < self.alpha < 1 or not 0 <= self.futility < 1:
            raise ValueError(f"alpha = {self.alpha}, futility = {self.futility}: give numbers between 0 and 1")

    @classmethod
    def of_seeds(cls, start: int = 2, most: int = 8, **fields: Any) -> Rule:
        """Look after every seed from `start` to `most`."""
        looks = tuple(range(start, most + 1))
        shares = (*(_share_of_own(look, most) for look in looks[:-1]), 1.0)
        return cls(looks, **{"spending_own": shares, **fields})

    @classmethod
    def of_prompts(cls, start: int = 100, most: int = 805, **fields: Any) -> Rule:
        """Look whenever the number of prompts has doubled: each look loads every open row's model again."""
        looks = [start]
        while 2 * looks[-1] < most / 1.25:
            looks.append(2 * looks[-1])
        return cls(tuple(dict.fromkeys((*looks, most))), "questions", **{"spending": 1.5, "spending_own": None, **fields})

    @property
    def fractions(self) -> tuple[float, ...]:
        return tuple(look / self.looks[-1] for look in self.looks)

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of α that is spent after each look."""
        return tuple(fraction**self.spending for fraction in self.fractions)


def _share_of_own(look: int, most: int) -> float:
    """The share of the own test's level spent by a look: most at three and four, as early as Student's t has power."""
    if look < 3:
        return 0.0
    return 0.3 if look == 3 else 0.6 + 0.4 * ((look - 4) / max(most - 4, 1)) ** 0.7


@cache
def levels(alpha: float, fractions: tuple[float, ...], shares: tuple[float, ...]) -> tuple[float, ...]:
    """Return the two-sided nominal level of each look, so that all looks together reject a true null with `alpha`.

    Rows that share prompts have looks that are correlated more than these fractions say, which makes the error smaller.

    Args:
        fractions: of the information at each look, rising to 1.
        shares: of alpha that is spent after each look, rising to 1.
    """
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    nominal: list[float] = []
    points, density = np.zeros(1), np.ones(1)  # of the sum of increments where no look has rejected yet
    before = spent = 0.0
    for fraction, share in zip(fractions, shares, strict=True):
        step, scale = sqrt(fraction - before), sqrt(fraction)
        limit = _limit(points, density, step, scale, alpha * share - spent)
        nominal.append(float(2.0 * special.ndtr(-limit)))
        edge = min(limit, 12.0) * scale
        fresh = nodes * edge
        kernel = np.exp(-0.5 * ((fresh[:, None] - points) / step) ** 2) / (step * sqrt(2.0 * np.pi))
        points, density = fresh, (kernel @ density) * weights * edge
        before, spent = fraction, alpha * share
    return tuple(nominal)


def _limit(points: Floats, density: Floats, step: float, scale: float, target: float) -> float:
    """The normal limit that a path which has not been rejected yet passes, now, with probability `target`."""
    if target <= 0:
        return NEVER

    def excess(limit: float) -> float:
        outside = special.ndtr((points - limit * scale) / step) + special.ndtr((-points - limit * scale) / step)
        return float(density @ outside) - target

    return float(optimize.brentq(excess, 0.0, NEVER))


@cache
def _table(fractions: tuple[float, ...], shares: tuple[float, ...]) -> Floats:
    """Nominal levels, [levels of GRID, looks]."""
    rows = [levels(float(alpha), fractions, shares) for alpha in GRID[:-1]]
    return np.array([*rows, (1.0,) * len(fractions)])


def repeated(p: Floats, look: int, rule: Rule, *, own: bool = False) -> Floats:
    """Return the p-values of one look as ones that are valid at whichever look they are read: the smallest overall level
    at which this look alone rejects (Jennison & Turnbull 2000, section 9.2).

    Args:
        p: of any shape, at the look with this number, counted from 0.
    """
    if own and rule.spending_own is None:
        return np.minimum(1.0, p / (0.3 + 0.6 * look / max(len(rule.looks) - 1, 1)))
    shares = (rule.spending_own if own else ()) or rule.shares
    nominal = np.maximum.accumulate(_table(rule.fractions, shares)[:, look])
    logs = np.interp(np.log(np.clip(p, 1e-300, 1.0)), np.log(np.maximum(nominal, 1e-300)), np.log(GRID))
    return np.asarray(np.where(p <= nominal[0], GRID[0], np.exp(logs)))


@dataclass(frozen=True)
class State:
    """The state after a look; arrays [..., rows], of many boards at once or of one.

    Attributes:
        look: how many looks there were.
        p: two-sided, of each row against the baseline: the smallest of its repeated p-values so far.
        p_own: the same with the row's own variance between seeds.
        p_pair: one-sided, [..., rows, rows], that the row is not above the column; `p_pair_own` with the pair's own variance.
        open: the rows that get another seed.
        significant: after Holm's correction at the rule's alpha; the baseline never.
        may_be_best: the rows that may be the best.
    """

    look: int
    p: Floats
    p_own: Floats
    p_pair: Floats
    p_pair_own: Floats
    open: Bools
    significant: Bools
    may_be_best: Bools

    @property
    def stop(self) -> Bools:
        """Whether no row gets another seed, [...]."""
        return np.asarray(~self.open.any(axis=-1))

    @classmethod
    def start(cls, rows: int, boards: tuple[int, ...] = ()) -> State:
        """Nothing is known and every row is open."""
        shape, yes = (*boards, rows), np.ones((*boards, rows), dtype=bool)
        pair = np.ones((*shape, rows))
        return cls(0, np.ones(shape), np.ones(shape), pair, pair, yes, ~yes, yes)


def decide(
    tables: Floats,
    state: State,
    rule: Rule,
    *,
    baseline: int = 0,
    tests: int | None = None,
    best: bool = True,
    competing: Bools | None = None,
) -> State:
    """Return the state after one more look.

    Args:
        tables: [..., rows, seeds, questions], higher is better, with the seeds or the questions of this look; the values of
            rows that were no longer open are NaN from where they stopped.
        state: after the look before.
        tests: corrected together; the rows without the baseline if None, more where there are several primary metrics.
        best: whether the first place is to be decided too.
        competing: [rows], those that can be the best; all if None.
    """
    rows, seeds, questions = tables.shape[-3:]
    active = state.open & np.isfinite(tables).all(axis=(-2, -1))
    whole = np.where(active[..., None, None], tables, 0.0)
    variance, freedom = _pooled_over_gaps(np.nan_to_num(tables).mean(axis=-1), np.asarray(np.isfinite(tables).all(axis=-1)))
    tests = rows - 1 if tests is None else tests
    p_pair, p_pair_own = state.p_pair.copy(), state.p_pair_own.copy()
    reach = np.zeros(p_pair.shape)
    rivals = rows if competing is None else int(competing.sum())
    for i in range(rows - 1) if best else [baseline]:
        others = np.arange(i + 1, rows) if best else np.delete(np.arange(rows), baseline)
        gap = whole[..., i : i + 1, :, :] - whole[..., others, :, :]
        present = active[..., i : i + 1] & active[..., others]
        mean, squares = gap.mean(axis=(-2, -1)), mean_squares(gap)
        own = errors(squares)
        shared = own if variance is None else errors(squares, variance[..., None], freedom[..., None], always=True)
        t = [np.divide(mean, error.size, out=np.zeros_like(mean), where=error.size > 0) for error in (shared, own)]
        for target, value, error, alone in ((p_pair, t[0], shared, False), (p_pair_own, t[1], own, True)):
            for sign, (x, y) in ((1.0, (i, others)), (-1.0, (others, i))):
                # repeated() is two-sided: a one-sided test at level a is the two-sided one at level 2a in its direction
                one = 0.5 * repeated(np.minimum(1.0, 2.0 * one_sided(sign * value, error.freedom)), state.look, rule, own=alone)
                target[..., x, y] = np.where(present, np.minimum(target[..., x, y], one), target[..., x, y])
        at_end = _size_at_end(squares, shared.size, rule, state.look, seeds, questions)
        for level, kind in ((rule.alpha / max(tests, 1), "two"), (2 * rule.alpha / max(rivals - 1, 1), "one")):
            limit = -special.ndtri(min(1.0, levels(level, rule.fractions, rule.shares)[-1]) / 2.0)
            drift = np.sqrt(np.maximum(shared.size**2 - at_end**2, 1e-300))
            chance = special.ndtr((np.abs(mean) - limit * at_end) / drift)
            if kind == "two":
                if i == baseline or baseline in others:
                    column = chance if i == baseline else chance[..., baseline - i - 1 : baseline - i]
                    where = others if i == baseline else np.array([i])
                    reach[..., where, where] = np.where(active[..., where], column, 0.0)
            elif best:
                reach[..., i, others] = reach[..., others, i] = np.where(present, chance, 0.0)
    place = np.arange(rows)
    p = np.minimum(1.0, 2.0 * np.minimum(p_pair[..., baseline, :], p_pair[..., :, baseline]))
    p_own = np.minimum(1.0, 2.0 * np.minimum(p_pair_own[..., baseline, :], p_pair_own[..., :, baseline]))
    compared = np.delete(place, baseline)
    extra = np.ones((*p.shape[:-1], max(0, tests - len(compared))))  # tests of other metrics, none of them decided yet
    corrected = np.ones(p.shape)
    corrected[..., compared] = both(
        np.concatenate([p[..., compared], extra], axis=-1), np.concatenate([p_own[..., compared], 0.0 * extra], axis=-1)
    )[..., : len(compared)]
    significant = corrected < rule.alpha
    significant[..., baseline] = False
    last = state.look + 1 >= len(rule.looks)
    undecided = active & active[..., [baseline]] & ~significant & (reach[..., place, place] >= rule.futility)
    undecided[..., baseline] = False
    undecided[..., baseline] = undecided.any(axis=-1) & active[..., baseline]
    may = np.ones(p.shape, dtype=bool)
    if best:
        may = may_be_best(Pairs(p_pair, p_pair_own), rule.alpha, competing)
        # A row of the set is worth a seed where another of the set may exclude it; both of them get the seed.
        pairs = may[..., :, None] & may[..., None, :] & (place[:, None] != place) & (reach >= rule.futility)
        undecided |= active & pairs.any(axis=-1)
    opened = undecided
    if last:
        opened = np.zeros_like(opened)
    return State(state.look + 1, p, p_own, p_pair, p_pair_own, opened, significant, may)


def _size_at_end(squares: Squares, size: Floats, rule: Rule, look: int, seeds: int, questions: int) -> Floats:
    """The standard error at the last look, if variances stay what they are."""
    share = rule.looks[look] / rule.looks[-1]
    if rule.adds == "questions":
        by_seed = np.maximum(0.0, squares.seed - squares.rest) / (seeds * questions)
        return np.sqrt(by_seed + np.maximum(size**2 - by_seed, 0.0) * share)
    by_question = np.maximum(0.0, squares.question - squares.rest) / (seeds * questions)  # more seeds do not help here
    return np.sqrt(by_question + np.maximum(size**2 - by_question, 0.0) * share)


def _pooled_over_gaps(means: Floats, present: Bools) -> tuple[Floats | None, Floats]:
    """`variance.pooled` of a difference where rows have different numbers of seeds: the residual of rows + seeds.

    Args:
        means: [..., rows, seeds]; `present` says which of them there are.
    """
    rows, seeds = means.shape[-2:]
    if seeds < 2 or rows < 2:
        return None, np.zeros(means.shape[:-2])
    weight = present.astype(np.float64)
    left = means * weight
    of_rows, of_seeds = np.maximum(weight.sum(axis=-1, keepdims=True), 1.0), np.maximum(weight.sum(axis=-2, keepdims=True), 1.0)
    for _ in range(ROUNDS):
        left = (left - left.sum(axis=-1, keepdims=True) / of_rows) * weight
        left = (left - left.sum(axis=-2, keepdims=True) / of_seeds) * weight
    freedom = weight.sum(axis=(-2, -1)) - present.any(axis=-1).sum(axis=-1) - present.any(axis=-2).sum(axis=-1) + 1.0
    freedom = np.maximum(freedom, 1.0)
    return 2.0 * (left**2).sum(axis=(-2, -1)) / freedom, freedom
