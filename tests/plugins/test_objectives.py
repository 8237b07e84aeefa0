"""Losses on hand-computed numbers in float64, gradients checked, and the invariances that define each."""

from __future__ import annotations

import math

import pytest
import torch

from harness import GroupLogps, Logps, Objective, View
from harness_plugins.baselines.dpo import DPO
from harness_plugins.baselines.nll import SFT
from harness_plugins.only_prompting.simpo import SimPO
from harness_plugins.self_refined.sr_dpo import AUGMENTED, SrDPO

CHOSEN, REJECTED = [-4.0, -6.0], [[-5.0, -9.0], [-6.5, 0.0]]  # the second group has one negative
MASK = torch.tensor([[True, True], [True, False]])


def logps(chosen=CHOSEN, rejected=REJECTED, shift: float = 0.0) -> Logps:
    return Logps(
        torch.tensor(chosen, dtype=torch.float64) + shift,
        torch.tensor(rejected, dtype=torch.float64) + shift,
        torch.tensor([4, 3]),
        torch.tensor([[5, 6], [2, 1]]),
        MASK,
    )


REFERENCE = logps([-5.0, -5.0], [[-5.5, -8.0], [-6.0, 0.0]])
VIEW = View(logps([-3.0, -5.5], [[-5.0, -7.0], [-6.0, 0.0]]), logps([-3.5, -5.0], [[-4.0, -7.5], [-6.5, 0.0]]))
BATCH = GroupLogps(logps(), REFERENCE, {AUGMENTED: VIEW})


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def valid(per_pair: torch.Tensor) -> list[float]:
    return per_pair[MASK].tolist()


# h⁺ − h⁻ by hand: (−4+5) − (−5+5.5) = 0.5; (−4+5) − (−9+8) = 2; (−6+5) − (−6.5+6) = −0.5
GAPS = [0.5, 2.0, -0.5]
# under the view: (−3+3.5) − (−5+4) = 1.5; (−3+3.5) − (−7+7.5) = 0; (−5.5+5) − (−6+6.5) = −1
VIEW_GAPS = [1.5, 0.0, -1.0]


def test_dpo() -> None:
    assert valid(DPO(beta=0.3).loss(BATCH).per_pair) == pytest.approx([-log_sigmoid(0.3 * gap) for gap in GAPS], abs=1e-12)


def test_dpo_with_label_smoothing() -> None:
    expected = [-0.8 * log_sigmoid(0.1 * gap) - 0.2 * log_sigmoid(-0.1 * gap) for gap in GAPS]
    assert valid(DPO(label_smoothing=0.2).loss(BATCH).per_pair) == pytest.approx(expected, abs=1e-12)


def test_dpo_margin_is_zero_at_the_reference() -> None:
    loss = DPO().loss(GroupLogps(REFERENCE, REFERENCE))
    assert valid(loss.per_pair) == pytest.approx([math.log(2)] * 3, abs=1e-12)
    assert valid(loss.metrics["margin"]) == [0.0] * 3


def test_simpo() -> None:
    # per token: −1; −1, −1.5 | −2; −3.25
    margins = [2.0 * (-1 + 1) - 1.0, 2.0 * (-1 + 1.5) - 1.0, 2.0 * (-2 + 3.25) - 1.0]
    assert valid(SimPO().loss(GroupLogps(logps())).per_pair) == pytest.approx([-log_sigmoid(m) for m in margins], abs=1e-12)


def test_sft_is_per_token() -> None:
    assert SFT().loss(GroupLogps(logps())).per_group.tolist() == pytest.approx([1.0, 2.0])


@pytest.mark.parametrize("weight", [0.1, 0.5, 1.0])
def test_sr_dpo(weight: float) -> None:
    margins = [0.2 * gap - weight * 0.2 * view for gap, view in zip(GAPS, VIEW_GAPS, strict=True)]
    loss = SrDPO(beta=0.2, refinement_weight=weight).loss(BATCH)
    assert valid(loss.per_pair) == pytest.approx([-log_sigmoid(margin) for margin in margins], abs=1e-12)


def test_sr_dpo_naive_scales_the_margin_but_not_its_gradient() -> None:
    policy = logps()
    policy.chosen.requires_grad_()
    naive = SrDPO(beta=0.2, refinement_weight=0.5, refinement="naive").loss(GroupLogps(policy, REFERENCE))
    assert valid(naive.per_pair) == pytest.approx([-log_sigmoid(0.5 * 0.2 * gap) for gap in GAPS], abs=1e-12)
    naive.per_pair[0, 0].backward()
    # d/dh⁺ of −log σ(βh − λ·sg[βh]) is −β·σ(−(1 − λ)βh): the gradient of β and not of (1 − λ)β
    assert policy.chosen.grad[0].item() == pytest.approx(-0.2 / (1 + math.exp(0.5 * 0.2 * GAPS[0])), abs=1e-12)


def test_sr_dpo_without_weight_is_dpo_and_asks_for_no_view() -> None:
    plain = SrDPO(refinement_weight=0)
    assert plain.views() == {}
    assert torch.equal(plain.loss(BATCH).per_pair, DPO().loss(BATCH).per_pair)


def test_sr_dpo_passes_no_gradient_through_the_view() -> None:
    view = logps([-3.0, -5.5], [[-5.0, -7.0], [-6.0, 0.0]])
    view.chosen.requires_grad_()
    policy = logps()
    policy.chosen.requires_grad_()
    SrDPO().loss(GroupLogps(policy, REFERENCE, {AUGMENTED: View(view, VIEW.reference)})).per_pair.sum().backward()
    assert view.chosen.grad is None
    assert policy.chosen.grad is not None


def test_sr_dpo_augments_with_the_papers_prompt() -> None:
    from harness import Prompt

    change = SrDPO(rating_scale=10).views()[AUGMENTED]
    assert change(Prompt.of("a", "why ?")).text == (
        "Please generate a response with a usefulness rating of 10 out of 10 for the following query. Note that the response "
        "should be harmless. The term 10 indicates the level of usefulness, where 10 is the maximum and 1 is the minimum. "
        "Query: why ?"
    )


OBJECTIVES = [DPO(), DPO(label_smoothing=0.1), SimPO(), SFT(), SrDPO(), SrDPO(refinement="naive", refinement_weight=0)]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{o.name}")
def test_gradients(objective: Objective) -> None:
    def total(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        policy = Logps(chosen, rejected, torch.tensor([4, 3]), torch.tensor([[5, 6], [2, 1]]), MASK)
        loss = objective.loss(GroupLogps(policy, REFERENCE, {AUGMENTED: VIEW}))
        pairs = loss.per_pair.masked_fill(~MASK, 0).sum() if loss.per_pair is not None else chosen.new_zeros(())
        return pairs + (loss.per_group.sum() if loss.per_group is not None else 0)

    start = logps()
    assert torch.autograd.gradcheck(total, (start.chosen.requires_grad_(), start.rejected.requires_grad_()))


@pytest.mark.parametrize("objective", [DPO(), SrDPO()], ids=lambda o: o.name)
def test_a_shift_of_a_prompts_log_probabilities_changes_nothing(objective: Objective) -> None:
    shifted = GroupLogps(logps(shift=-3.0), REFERENCE, {AUGMENTED: VIEW})
    assert valid(objective.loss(shifted).per_pair) == pytest.approx(valid(objective.loss(BATCH).per_pair), abs=1e-12)


@pytest.mark.parametrize("objective", [DPO(), SrDPO(), SimPO()], ids=lambda o: o.name)
def test_a_likelier_chosen_response_lowers_the_loss(objective: Objective) -> None:
    better = GroupLogps(logps(chosen=[-3.0, -5.0]), REFERENCE, {AUGMENTED: VIEW})
    pairs = zip(valid(objective.loss(better).per_pair), valid(objective.loss(BATCH).per_pair), strict=True)
    assert all(after < before for after, before in pairs)
