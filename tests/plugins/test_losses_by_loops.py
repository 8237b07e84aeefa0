"""Every loss once more, by plain Python loops over random groups of unequal m: value after reduction, and gradient.

The loops know nothing of tensors, masks or broadcasting: they go over the pairs that exist, and differentiate numerically. So
they would not share a mistake of shape, padding or reduction with what they check.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
import torch

from harness import GroupLogps, Logps, Mismatched, Objective, View
from harness.training.batch import PLAIN, TokenGroup
from harness.training.reduction import Totals, reduce_loss
from harness_plugins.baselines.cpo import CPO
from harness_plugins.baselines.dpo import DPO
from harness_plugins.baselines.hinge import Hinge
from harness_plugins.baselines.ipo import IPO
from harness_plugins.baselines.kto import KTO
from harness_plugins.baselines.orpo import ORPO
from harness_plugins.baselines.rdpo import RDPO
from harness_plugins.baselines.rrhf import RRHF
from harness_plugins.baselines.sft import SFT
from harness_plugins.baselines.slic_hf import SLiCHF
from harness_plugins.only_prompting.simpo import SimPO
from harness_plugins.self_refined.refinement import AUGMENTED
from harness_plugins.self_refined.sr_dpo import SrDPO
from harness_plugins.self_refined.sr_ipo import SrIPO

JUNK = 1e3  # what slots hold that no response fills
STEP = 1e-5  # of central differences


@dataclass(frozen=True)
class Numbers:
    """One group: of each response, chosen first, its tokens and log-probabilities under every model and view; nats."""

    n: tuple[int, ...]
    lp: tuple[float, ...]
    lr: tuple[float, ...]
    view_lp: tuple[float, ...]
    view_lr: tuple[float, ...]

    def h(self, k: int) -> float:
        return self.lp[k] - self.lr[k]

    def view_h(self, k: int) -> float:
        return self.view_lp[k] - self.view_lr[k]


@dataclass(frozen=True)
class World:
    """A batch, and h of its mismatched pairs."""

    groups: tuple[Numbers, ...]
    mismatched: tuple[tuple[float, float], ...]

    @property
    def z0(self) -> float:
        return max(0.0, sum(lp - lr for lp, lr in self.mismatched) / len(self.mismatched))

    @property
    def pairs(self) -> list[tuple[Numbers, int]]:
        return [(group, k) for group in self.groups for k in range(1, len(group.n))]

    def over_pairs(self, loss: Callable[[Numbers, int], float]) -> float:
        return sum(loss(group, k) for group, k in self.pairs) / len(self.pairs)

    def nll(self, by_token: bool) -> float:
        """Of the chosen responses: over all their tokens, or the mean of each one's mean."""
        if by_token:
            return -sum(group.lp[0] for group in self.groups) / sum(group.n[0] for group in self.groups)
        return -sum(group.lp[0] / group.n[0] for group in self.groups) / len(self.groups)


def world(seed: int) -> World:
    """One to five groups of one to four rejected responses."""
    rng = random.Random(seed)

    def numbers(m: int) -> Numbers:
        n = tuple(rng.randint(1, 12) for _ in range(m + 1))
        lp = tuple(-rng.uniform(0.05, 3) * count for count in n)
        near = [tuple(value + rng.gauss(0, 2) for value in lp) for _ in range(3)]
        return Numbers(n, lp, near[0], near[1], near[2])

    groups = tuple(numbers(rng.randint(1, 4)) for _ in range(rng.randint(1, 5)))
    return World(groups, tuple((value, value + rng.gauss(0.5 * (-1) ** seed, 1)) for value in (-9.0, -4.0, -7.0)))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def penalty(margin: float) -> float:
    """−log σ(margin)."""
    return -math.log(sigmoid(margin))


def log_odds(group: Numbers, k: int) -> float:
    probability = math.exp(group.lp[k] / group.n[k])
    return math.log(probability / (1 - probability))


def gap(group: Numbers, k: int) -> float:
    return group.h(0) - group.h(k)


def token_gap(group: Numbers, k: int) -> float:
    return group.h(0) / group.n[0] - group.h(k) / group.n[k]


def view_gap(group: Numbers, k: int) -> float:
    return group.view_h(0) - group.view_h(k)


def view_token_gap(group: Numbers, k: int) -> float:
    return group.view_h(0) / group.n[0] - group.view_h(k) / group.n[k]


def mean_gap(group: Numbers, k: int) -> float:
    return group.lp[0] / group.n[0] - group.lp[k] / group.n[k]


def ranking(group: Numbers) -> float:
    means = [lp / n for lp, n in zip(group.lp, group.n, strict=True)]
    return sum(max(0.0, means[j] - means[i]) for i in range(len(means)) for j in range(i + 1, len(means)))


def kto(world: World) -> float:
    """The paper's own form, over responses: each pair brings its chosen and its rejected one."""
    values = [
        value
        for group, k in world.pairs
        for value in (
            1.5 * (1 - sigmoid(0.2 * (group.h(0) - world.z0))),
            0.5 * (1 - sigmoid(0.2 * (world.z0 - group.h(k)))),
        )
    ]
    return sum(values) / len(values)


CASES: list[tuple[Objective, Callable[[World], float]]] = [
    (DPO(beta=0.2), lambda w: w.over_pairs(lambda g, k: penalty(0.2 * gap(g, k)))),
    (
        DPO(beta=0.2, label_smoothing=0.1),
        lambda w: w.over_pairs(lambda g, k: 0.9 * penalty(0.2 * gap(g, k)) + 0.1 * penalty(-0.2 * gap(g, k))),
    ),
    (IPO(beta=0.2), lambda w: w.over_pairs(lambda g, k: (token_gap(g, k) - 2.5) ** 2)),
    (IPO(beta=0.2, normalize="sum"), lambda w: w.over_pairs(lambda g, k: (gap(g, k) - 2.5) ** 2)),
    (Hinge(beta=0.2), lambda w: w.over_pairs(lambda g, k: max(0.0, 1 - 0.2 * gap(g, k)))),
    (RDPO(beta=0.2, alpha=0.05), lambda w: w.over_pairs(lambda g, k: penalty(0.2 * gap(g, k) + 0.05 * (g.n[0] - g.n[k])))),
    (SimPO(beta=1.5, gamma=0.7), lambda w: w.over_pairs(lambda g, k: penalty(1.5 * mean_gap(g, k) - 0.7))),
    (
        CPO(beta=0.2, alpha=0.6),
        lambda w: w.over_pairs(lambda g, k: penalty(0.2 * (g.lp[0] - g.lp[k]))) + 0.6 * w.nll(by_token=True),
    ),
    (
        ORPO(odds_ratio_weight=0.3),
        lambda w: 0.3 * w.over_pairs(lambda g, k: penalty(log_odds(g, 0) - log_odds(g, k))) + w.nll(by_token=True),
    ),
    (KTO(beta=0.2, desirable_weight=1.5, undesirable_weight=0.5), kto),
    (
        RRHF(ranking_weight=2.0),
        lambda w: 2.0 * sum(ranking(group) for group in w.groups) / len(w.groups) + w.nll(by_token=False),
    ),
    (
        SLiCHF(delta=1.5, regularization=0.3),
        lambda w: w.over_pairs(lambda g, k: max(0.0, 1.5 - g.lp[0] + g.lp[k])) + 0.3 * w.nll(by_token=False),
    ),
    (SFT(), lambda w: w.nll(by_token=True)),
    (
        SrDPO(beta=0.2, refinement_weight=0.3),
        lambda w: w.over_pairs(lambda g, k: penalty(0.2 * gap(g, k) - 0.3 * 0.2 * view_gap(g, k))),
    ),
    (SrDPO(beta=0.2, refinement_weight=0.0), lambda w: w.over_pairs(lambda g, k: penalty(0.2 * gap(g, k)))),
    (
        SrIPO(beta=0.2, refinement_weight=0.3, normalize="sum"),
        lambda w: w.over_pairs(lambda g, k: (gap(g, k) - 0.3 * 0.2 * view_gap(g, k) - 2.5) ** 2),
    ),
    (
        SrIPO(beta=0.2, refinement_weight=0.3, normalize="token"),
        lambda w: w.over_pairs(lambda g, k: (token_gap(g, k) - 0.3 * 0.2 * view_token_gap(g, k) - 2.5) ** 2),
    ),
]


def tensors(groups: Sequence[Numbers], of: str) -> Logps:
    """One model's numbers as the trainer lays them out, junk where there is no response."""
    most = max(len(group.n) for group in groups) - 1

    def row(values: Sequence[float], fill: float) -> list[float]:
        return [*values[1:], *[fill] * (most - len(values) + 1)]

    return Logps(
        torch.tensor([getattr(group, of)[0] for group in groups], dtype=torch.float64),
        torch.tensor([row(getattr(group, of), JUNK) for group in groups], dtype=torch.float64),
        torch.tensor([group.n[0] for group in groups]),
        torch.tensor([row(group.n, 1) for group in groups]).long(),
        torch.tensor([row([1] * len(group.n), 0) for group in groups]).bool(),
    )


def total(objective: Objective, world: World, cuts: int) -> tuple[float, list[list[float]]]:
    """The whole batch's loss by the objective in so many micro-batches, and its gradient in every log-probability."""
    tokens = [TokenGroup({PLAIN: (1,)}, tuple((1,) * n for n in group.n)) for group in world.groups]
    lp, lr = (torch.tensor(side, dtype=torch.float64) for side in zip(*world.mismatched, strict=True))
    value, gradient = 0.0, []
    size = math.ceil(len(world.groups) / cuts)
    for start in range(0, len(world.groups), size):
        part = world.groups[start : start + size]
        policy = tensors(part, "lp")
        policy.chosen.requires_grad_()
        policy.rejected.requires_grad_()
        view = View(tensors(part, "view_lp"), tensors(part, "view_lr"))
        batch = GroupLogps(policy, tensors(part, "lr"), {AUGMENTED: view}, Mismatched(lp, lr))
        share = reduce_loss(objective.loss(batch), batch, objective, Totals.of(tokens))
        found = torch.autograd.grad(share, [policy.chosen, policy.rejected], materialize_grads=True)
        value += float(share.detach())
        for index, group in enumerate(part):
            gradient.append([float(found[0][index]), *found[1][index, : len(group.n) - 1].tolist()])
        assert not found[1][~policy.mask].any()  # nothing reaches a slot without a response
    return value, gradient


def nudged(world: World, index: int, k: int, by: float) -> World:
    """The batch with one log-probability moved; neither views nor mismatched pairs move with it."""
    group = world.groups[index]
    moved = replace(group, lp=(*group.lp[:k], group.lp[k] + by, *group.lp[k + 1 :]))
    return replace(world, groups=(*world.groups[:index], moved, *world.groups[index + 1 :]))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("objective", "by_hand"), CASES, ids=[f"{number}-{o.name}" for number, (o, _) in enumerate(CASES)])
def test_loss_and_gradient_are_those_of_the_loops(objective: Objective, by_hand: Callable[[World], float], seed: int) -> None:
    made = world(seed)
    for cuts in (1, 2, len(made.groups)):
        value, gradient = total(objective, made, cuts)
        assert value == pytest.approx(by_hand(made), rel=1e-11, abs=1e-12)
        for index, group in enumerate(made.groups):
            for k in range(len(group.n)):
                slope = (by_hand(nudged(made, index, k, STEP)) - by_hand(nudged(made, index, k, -STEP))) / (2 * STEP)
                assert gradient[index][k] == pytest.approx(slope, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_a_naive_refinement_is_a_constant_of_the_pair(seed: int) -> None:
    """Eq. 10 under the stop-gradient: the value of (1 − λ)β, and β's slope at it."""
    made = world(seed)
    value, gradient = total(SrDPO(beta=0.2, refinement_weight=0.3, refinement="naive"), made, 1)
    assert value == pytest.approx(made.over_pairs(lambda g, k: penalty(0.7 * 0.2 * gap(g, k))), rel=1e-12)
    pairs = len(made.pairs)
    for index, group in enumerate(made.groups):
        slopes = [0.2 * sigmoid(-0.7 * 0.2 * gap(group, k)) / pairs for k in range(1, len(group.n))]
        assert gradient[index] == pytest.approx([-sum(slopes), *slopes], rel=1e-12)


def test_the_worlds_differ_where_it_matters() -> None:
    """Unequal m and lengths, and both sides of KTO's clamp."""
    worlds = [world(seed) for seed in range(8)]
    assert any(len({len(group.n) for group in made.groups}) > 2 for made in worlds)
    assert {made.z0 > 0 for made in worlds} == {True, False}
