"""Losses on hand-computed numbers in float64, gradients checked, and the invariances that define each."""

from __future__ import annotations

import math

import pytest
import torch
from two_groups import (
    BATCH,
    GAPS,
    MASK,
    MISMATCHED,
    REFERENCE,
    REJECTED_TOKENS,
    TOKEN_GAPS,
    VIEW,
    VIEW_GAPS,
    VIEW_TOKEN_GAPS,
    log_sigmoid,
    logps,
    push,
    valid,
)

from harness import GroupLogps, Logps, Objective, View
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


def test_dpo() -> None:
    assert valid(DPO(beta=0.3).loss(BATCH).per_pair) == pytest.approx([-log_sigmoid(0.3 * gap) for gap in GAPS], abs=1e-12)


def test_dpo_with_label_smoothing() -> None:
    expected = [-0.8 * log_sigmoid(0.1 * gap) - 0.2 * log_sigmoid(-0.1 * gap) for gap in GAPS]
    assert valid(DPO(label_smoothing=0.2).loss(BATCH).per_pair) == pytest.approx(expected, abs=1e-12)


def test_dpo_margin_is_zero_at_the_reference() -> None:
    loss = DPO().loss(GroupLogps(REFERENCE, REFERENCE))
    assert valid(loss.per_pair) == pytest.approx([math.log(2)] * 3, abs=1e-12)
    assert valid(loss.metrics["margin"]) == [0.0] * 3


@pytest.mark.parametrize("objective", [DPO(beta=0.3), KTO(beta=0.3), RDPO(beta=0.3)], ids=lambda o: o.name)
def test_the_logged_margin_is_the_chosen_response_less_the_rejected(objective: Objective) -> None:
    metrics = objective.loss(BATCH).metrics
    assert valid(metrics["margin"]) == pytest.approx([0.3 * gap for gap in GAPS], abs=1e-12)
    assert valid(metrics["accuracy"]) == [1.0, 1.0, 0.0]


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


@pytest.mark.parametrize("objective", [SrDPO(), SrIPO()], ids=lambda o: o.name)
def test_no_gradient_passes_through_the_view(objective: Objective) -> None:
    view = logps([-3.0, -5.5], [[-5.0, -7.0], [-6.0, 0.0]])
    view.chosen.requires_grad_()
    policy = logps()
    policy.chosen.requires_grad_()
    objective.loss(GroupLogps(policy, REFERENCE, {AUGMENTED: View(view, VIEW.reference)})).per_pair.sum().backward()
    assert view.chosen.grad is None
    assert policy.chosen.grad is not None


@pytest.mark.parametrize(("normalize", "gaps", "views"), [("sum", GAPS, VIEW_GAPS), ("token", TOKEN_GAPS, VIEW_TOKEN_GAPS)])
def test_sr_ipo(normalize, gaps: list[float], views: list[float]) -> None:
    expected = [(gap - 0.5 * 0.2 * view - 2.5) ** 2 for gap, view in zip(gaps, views, strict=True)]
    loss = SrIPO(beta=0.2, refinement_weight=0.5, normalize=normalize).loss(BATCH)
    assert valid(loss.per_pair) == pytest.approx(expected, abs=1e-12)


def test_sr_ipo_and_ipo_are_normalised_alike_by_default() -> None:
    """Their rows are an ablation pair: with λ = 0 they are equal, and with λ they are not."""
    assert torch.equal(SrIPO(refinement_weight=0).loss(BATCH).per_pair, IPO().loss(BATCH).per_pair)
    assert not torch.equal(SrIPO().loss(BATCH).per_pair, IPO().loss(BATCH).per_pair)


@pytest.mark.parametrize("normalize", ["sum", "token"])
def test_sr_ipo_without_weight_is_ipo_and_asks_for_no_view(normalize) -> None:
    plain = SrIPO(refinement_weight=0, normalize=normalize)
    assert plain.views() == {}
    assert torch.equal(plain.loss(BATCH).per_pair, IPO(normalize=normalize).loss(BATCH).per_pair)


def test_sr_ipo_naive_shifts_the_error_but_not_its_gradient() -> None:
    policy = logps()
    policy.chosen.requires_grad_()
    loss = SrIPO(beta=0.2, refinement_weight=0.5, refinement="naive", normalize="sum").loss(GroupLogps(policy, REFERENCE))
    assert valid(loss.per_pair) == pytest.approx([(0.9 * gap - 2.5) ** 2 for gap in GAPS], abs=1e-12)
    loss.per_pair[0, 0].backward()
    # d/dh⁺ of (h − λ·sg[βh] − 1/(2β))² is 2(0.9h − 2.5), without the factor 0.9 of the margin
    assert policy.chosen.grad[0].item() == pytest.approx(2 * (0.9 * GAPS[0] - 2.5), abs=1e-12)


@pytest.mark.parametrize("objective", [SrDPO(), SrIPO()], ids=lambda o: o.name)
def test_a_larger_refinement_pushes_harder(objective: Objective) -> None:
    better = View(logps([-1.0, -3.5], [[-5.0, -7.0], [-6.0, 0.0]]), VIEW.reference)
    for group in (0, 1):
        assert push(objective, GroupLogps(logps(), REFERENCE, {AUGMENTED: better}), group) > push(objective, BATCH, group)


def test_sr_dpo_augments_with_the_papers_prompt() -> None:
    from harness import Prompt

    change = SrDPO(rating_scale=10).views()[AUGMENTED]
    assert change(Prompt.of("a", "why ?")).text == (
        "Please generate a response with a usefulness rating of 10 out of 10 for the following query. Note that the response "
        "should be harmless. The term 10 indicates the level of usefulness, where 10 is the maximum and 1 is the minimum. "
        "Query: why ?"
    )


OBJECTIVES = [
    DPO(), DPO(label_smoothing=0.1), IPO(), IPO(normalize="sum"), Hinge(), RDPO(), CPO(), ORPO(), KTO(), RRHF(), SLiCHF(),
    SimPO(), SFT(), SrDPO(), SrDPO(refinement_weight=0), SrIPO(), SrIPO(normalize="token"),
]  # fmt: skip


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{o.name}")
def test_gradients(objective: Objective) -> None:
    def total(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        policy = Logps(chosen, rejected, torch.tensor([4, 3]), torch.tensor(REJECTED_TOKENS), MASK)
        loss = objective.loss(GroupLogps(policy, REFERENCE, {AUGMENTED: VIEW}, MISMATCHED))
        pairs = loss.per_pair.masked_fill(~MASK, 0).sum() if loss.per_pair is not None else chosen.new_zeros(())
        return pairs + (loss.per_group.sum() if loss.per_group is not None else 0)

    start = logps([-4.1, -6.2])  # off every kink of the hinges
    assert torch.autograd.gradcheck(total, (start.chosen.requires_grad_(), start.rejected.requires_grad_()))


@pytest.mark.parametrize(
    "objective",
    [DPO(), IPO(normalize="sum"), Hinge(), RDPO(), SLiCHF(), SrDPO(), SrIPO(normalize="sum")],
    ids=lambda o: o.name,
)
def test_a_shift_of_a_prompts_log_probabilities_changes_nothing(objective: Objective) -> None:
    shifted = GroupLogps(logps(shift=-3.0), REFERENCE, {AUGMENTED: VIEW})
    assert valid(objective.loss(shifted).per_pair) == pytest.approx(valid(objective.loss(BATCH).per_pair), abs=1e-12)


@pytest.mark.parametrize(
    "objective",
    [DPO(), IPO(), Hinge(), RDPO(), CPO(), ORPO(), KTO(), SLiCHF(delta=6.0), SimPO(), SrDPO(), SrIPO()],
    ids=lambda o: o.name,
)
def test_a_likelier_chosen_response_lowers_the_loss(objective: Objective) -> None:
    better = GroupLogps(logps(chosen=[-3.0, -5.0]), REFERENCE, {AUGMENTED: VIEW}, MISMATCHED)
    pairs = list(zip(valid(objective.loss(better).per_pair), valid(objective.loss(BATCH).per_pair), strict=True))
    assert pairs
    assert all(after < before for after, before in pairs)
