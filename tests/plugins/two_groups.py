"""Two groups of hand-made log-probabilities, on which losses are computed by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from harness import GroupLogps, Logps, Mismatched, Objective, View
from harness_plugins.self_refined.refinement import AUGMENTED

CHOSEN, REJECTED = [-4.0, -6.0], [[-5.0, -9.0], [-6.5, 0.0]]  # the second group has one negative
CHOSEN_TOKENS, REJECTED_TOKENS = [4, 3], [[5, 6], [2, 1]]
MASK = torch.tensor([[True, True], [True, False]])


def logps(
    chosen: Sequence[float] = CHOSEN,
    rejected: Sequence[Sequence[float]] = REJECTED,
    shift: float = 0.0,
    chosen_tokens: Sequence[int] = CHOSEN_TOKENS,
) -> Logps:
    return Logps(
        torch.tensor(chosen, dtype=torch.float64) + shift,
        torch.tensor(rejected, dtype=torch.float64) + shift,
        torch.tensor(chosen_tokens),
        torch.tensor(REJECTED_TOKENS),
        MASK,
    )


REFERENCE = logps([-5.0, -5.0], [[-5.5, -8.0], [-6.0, 0.0]])
VIEW = View(logps([-3.0, -5.5], [[-5.0, -7.0], [-6.0, 0.0]]), logps([-3.5, -5.0], [[-4.0, -7.5], [-6.5, 0.0]]))
# mean h of the mismatched pairs: ((−9 + 10) + (−8 + 7.5) + (−7 + 8)) / 3 = 0.5
MISMATCHED = Mismatched(torch.tensor([-9.0, -8.0, -7.0]).double(), torch.tensor([-10.0, -7.5, -8.0]).double())
BATCH = GroupLogps(logps(), REFERENCE, {AUGMENTED: VIEW}, MISMATCHED)

# h⁺ − h⁻ by hand: (−4+5) − (−5+5.5) = 0.5; (−4+5) − (−9+8) = 2; (−6+5) − (−6.5+6) = −0.5
GAPS = [0.5, 2.0, -0.5]
# h⁺/n⁺ − h⁻/n⁻: 1/4 − 0.5/5 = 0.15; 1/4 + 1/6; −1/3 + 0.5/2
TOKEN_GAPS = [0.15, 0.25 + 1 / 6, -1 / 3 + 0.25]
# h⁺ − h⁻ under the view: (−3+3.5) − (−5+4) = 1.5; (−3+3.5) − (−7+7.5) = 0; (−5.5+5) − (−6+6.5) = −1
VIEW_GAPS = [1.5, 0.0, -1.0]
# the same per token: 0.5/4 + 1/5; 0.5/4 − 0.5/6; −0.5/3 − 0.5/2
VIEW_TOKEN_GAPS = [0.325, 0.125 - 0.5 / 6, -0.5 / 3 - 0.25]


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def valid(per_pair: torch.Tensor | None) -> list[float]:
    """The pairs that exist: two of the first group, one of the second."""
    assert per_pair is not None
    return per_pair[MASK].tolist()


def push(objective: Objective, batch: GroupLogps, group: int = 0) -> float:
    """The size of a pair's gradient in its chosen response's log-probability: how hard the pair is pushed."""
    chosen = batch.policy.chosen.clone().requires_grad_()
    policy = Logps(chosen, batch.policy.rejected, batch.policy.chosen_tokens, batch.policy.rejected_tokens, batch.policy.mask)
    per_pair = objective.loss(GroupLogps(policy, batch.reference, batch.views, batch.mismatched)).per_pair
    assert per_pair is not None
    per_pair[group, 0].backward()
    assert chosen.grad is not None
    return abs(chosen.grad[group].item())
