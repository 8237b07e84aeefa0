"""The baselines' losses on hand-computed numbers in float64, and what defines each. Their gradients: test_objectives.py."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from two_groups import BATCH, CHOSEN, GAPS, MASK, MISMATCHED, REFERENCE, REJECTED, TOKEN_GAPS, log_sigmoid, logps, push, valid

from harness import GroupLogps, Logps, Mismatched, Objective
from harness_plugins.baselines.cpo import CPO
from harness_plugins.baselines.dpo import DPO
from harness_plugins.baselines.hinge import Hinge
from harness_plugins.baselines.ipo import IPO
from harness_plugins.baselines.kto import KTO
from harness_plugins.baselines.orpo import ORPO, log1mexp
from harness_plugins.baselines.rdpo import RDPO
from harness_plugins.baselines.rrhf import RRHF
from harness_plugins.baselines.slic_hf import SLiCHF

POLICY = GroupLogps(logps())  # no reference
LIKELIHOOD_GAPS = [1.0, 5.0, 0.5]  # lp⁺ − lp⁻: −4+5; −4+9; −6+6.5
NLL = [1.0, 2.0]  # 4/4, 6/3


@pytest.mark.parametrize(("normalize", "gaps"), [("token", TOKEN_GAPS), ("sum", GAPS)])
def test_ipo(normalize, gaps: list[float]) -> None:
    loss = IPO(beta=0.2, normalize=normalize).loss(BATCH)
    assert valid(loss.per_pair) == pytest.approx([(gap - 2.5) ** 2 for gap in gaps], abs=1e-12)


def test_ipo_is_per_token_by_default() -> None:
    assert torch.equal(IPO().loss(BATCH).per_pair, IPO(normalize="token").loss(BATCH).per_pair)


def test_hinge_stops_where_the_margin_is_one() -> None:
    assert valid(Hinge(beta=0.8).loss(BATCH).per_pair) == pytest.approx([0.6, 0.0, 1.4], abs=1e-12)


def test_rdpo_adds_alpha_for_each_token_that_the_chosen_is_longer() -> None:
    margins = [0.2 * 0.5 + 0.3 * (4 - 5), 0.2 * 2.0 + 0.3 * (4 - 6), 0.2 * -0.5 + 0.3 * (3 - 2)]
    expected = [-log_sigmoid(margin) for margin in margins]
    assert valid(RDPO(beta=0.2, alpha=0.3).loss(BATCH).per_pair) == pytest.approx(expected, abs=1e-12)


def test_rdpo_pushes_a_longer_chosen_response_less() -> None:
    """The sign of α: other descriptions of the loss have it the other way round."""
    objective = RDPO(alpha=0.05)
    pushes = [push(objective, GroupLogps(logps(chosen_tokens=[tokens, 3]), REFERENCE)) for tokens in (1, 5, 20)]
    assert pushes[0] > pushes[1] > pushes[2]
    assert pushes[1] == pytest.approx(push(DPO(), BATCH), abs=1e-15)  # as long as the rejected one: DPO's push
    assert torch.equal(RDPO(alpha=0).loss(BATCH).per_pair, DPO().loss(BATCH).per_pair)


def test_cpo() -> None:
    loss = CPO(beta=0.3, alpha=0.5).loss(POLICY)
    assert valid(loss.per_pair) == pytest.approx([-log_sigmoid(0.3 * gap) for gap in LIKELIHOOD_GAPS], abs=1e-12)
    assert loss.per_group.tolist() == pytest.approx([0.5 * nll for nll in NLL], abs=1e-12)


def test_cpo_is_dpo_under_a_uniform_reference() -> None:
    uniform = logps([-7.0, -7.0], [[-7.0, -7.0], [-7.0, -7.0]])
    assert valid(CPO().loss(POLICY).per_pair) == pytest.approx(valid(DPO().loss(GroupLogps(logps(), uniform)).per_pair))


def test_orpo() -> None:
    odds = {mean: math.log(math.exp(mean) / (1 - math.exp(mean))) for mean in (-1.0, -1.5, -2.0, -3.25)}
    gaps = [odds[-1.0] - odds[-1.0], odds[-1.0] - odds[-1.5], odds[-2.0] - odds[-3.25]]
    loss = ORPO(odds_ratio_weight=0.4).loss(POLICY)
    assert valid(loss.per_pair) == pytest.approx([-0.4 * log_sigmoid(gap) for gap in gaps], abs=1e-12)
    assert loss.per_group.tolist() == pytest.approx(NLL, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log1mexp_is_exact_near_zero_and_far_from_it(dtype: torch.dtype) -> None:
    x = torch.tensor([-1e-30, -1e-12, -1e-4, -0.5, -math.log(2), -1.0, -20.0, -800.0], dtype=dtype, requires_grad=True)
    value = log1mexp(x)
    expected = [math.log(-math.expm1(v)) if v > -1 else math.log1p(-math.exp(v)) for v in x.tolist()]
    assert value.tolist() == pytest.approx(expected, rel=1e-6 if dtype == torch.float32 else 1e-14)
    value.sum().backward()
    slopes = [-math.exp(v) / -math.expm1(v) for v in x.tolist()]
    assert x.grad.tolist() == pytest.approx(slopes, rel=1e-5)


def test_orpo_stays_finite_where_responses_are_certain_or_impossible() -> None:
    extreme = logps([0.0, -1e-300], [[-1e4, -1e-9], [0.0, 0.0]])
    extreme.chosen.requires_grad_()
    extreme.rejected.requires_grad_()
    loss = ORPO().loss(GroupLogps(extreme))
    (loss.per_pair.masked_fill(~MASK, 0).sum() + loss.per_group.sum()).backward()
    assert all(math.isfinite(value) for value in valid(loss.per_pair))
    assert torch.isfinite(extreme.chosen.grad).all()
    assert torch.isfinite(extreme.rejected.grad).all()
    assert extreme.rejected.grad[1, 1] == 0  # no response there


def test_kto() -> None:
    # z₀ = 0.5; h⁺ = 1, −1; h⁻ = 0.5, −1; −0.5
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    desirable = [2 * (1 - sigmoid(0.3 * (h - 0.5))) for h in (1.0, 1.0, -1.0)]
    undesirable = [3 * (1 - sigmoid(0.3 * (0.5 - h))) for h in (0.5, -1.0, -0.5)]
    expected = [(good + bad) / 2 for good, bad in zip(desirable, undesirable, strict=True)]
    loss = KTO(beta=0.3, desirable_weight=2, undesirable_weight=3).loss(BATCH)
    assert valid(loss.per_pair) == pytest.approx(expected, abs=1e-12)
    assert loss.metrics["z0"].tolist() == [0.5, 0.5]


def test_kto_clamps_its_reference_point_at_zero_and_passes_no_gradient_through_it() -> None:
    apart = Mismatched(MISMATCHED.policy - 5, MISMATCHED.reference)
    assert KTO().loss(replace(BATCH, mismatched=apart)).metrics["z0"].tolist() == [0.0, 0.0]
    policy = logps()
    policy.chosen.requires_grad_()
    tracked = Mismatched(MISMATCHED.policy.clone().requires_grad_(), MISMATCHED.reference)
    KTO().loss(GroupLogps(policy, REFERENCE, mismatched=tracked)).per_pair.sum().backward()
    assert tracked.policy.grad is None
    assert policy.chosen.grad is not None


def test_rrhf_sums_over_the_misranked_pairs_of_a_ranking() -> None:
    # p̄, best first: −1, −3, −0.5 | −2, −1; misranked: (1st, 3rd) by 0.5, (2nd, 3rd) by 2.5 | (1st, 2nd) by 1
    policy = logps([-4.0, -6.0], [[-15.0, -3.0], [-2.0, 0.0]])
    assert RRHF().loss(GroupLogps(policy)).per_group.tolist() == pytest.approx([0.5 + 2.5 + 1.0, 1.0 + 2.0], abs=1e-12)
    assert RRHF(ranking_weight=2).loss(GroupLogps(policy)).per_group.tolist() == pytest.approx([7.0, 4.0], abs=1e-12)


def test_rrhf_ranks_the_rejected_in_the_order_given() -> None:
    def ranking(rejected: list[list[float]]) -> float:
        return RRHF().loss(GroupLogps(logps(rejected=rejected))).metrics["ranking"][0].item()

    assert ranking([[-10.0, -18.0], [-6.5, 0.0]]) == 0.0  # p̄: −1 ≥ −2 ≥ −3
    assert ranking([[-15.0, -12.0], [-6.5, 0.0]]) == pytest.approx(1.0)  # −1, −3, −2


def test_rrhf_holds_rejected_ones_against_the_chosen_alone_where_nothing_ranks_them() -> None:
    # p̄: −1; −3, −0.5 | −2; −1: the chosen one is misranked by 0.5 | 1
    policy, swapped = logps([-4.0, -6.0], [[-15.0, -3.0], [-2.0, 0.0]]), logps([-4.0, -6.0], [[-2.5, -18.0], [-2.0, 0.0]])
    assert RRHF().loss(GroupLogps(policy, ranked=False)).per_group.tolist() == pytest.approx([0.5 + 1.0, 1.0 + 2.0], abs=1e-12)
    assert RRHF().loss(GroupLogps(swapped, ranked=False)).per_group.tolist() == pytest.approx([0.5 + 1.0, 3.0], abs=1e-12)


def test_rrhf_of_a_right_ranking_is_supervised_fine_tuning() -> None:
    policy = logps([-1.0, -1.0], [[-10.0, -18.0], [-6.5, 0.0]])
    policy.rejected.requires_grad_()
    loss = RRHF().loss(GroupLogps(policy))
    assert loss.per_group.tolist() == pytest.approx([0.25, 1 / 3], abs=1e-12)
    loss.per_group.sum().backward()
    assert policy.rejected.grad.abs().sum() == 0


def test_slic_hf() -> None:
    loss = SLiCHF(delta=2.0, regularization=0.5).loss(POLICY)
    assert valid(loss.per_pair) == pytest.approx([max(0.0, 2.0 - gap) for gap in LIKELIHOOD_GAPS], abs=1e-12)
    assert loss.per_group.tolist() == pytest.approx([0.5 * nll for nll in NLL], abs=1e-12)


@pytest.mark.parametrize("objective", [CPO(), ORPO(), RRHF(), SLiCHF()], ids=lambda o: o.name)
def test_without_a_reference_none_is_asked_for(objective: Objective) -> None:
    assert not objective.needs_reference
    with_one, without = objective.loss(BATCH), objective.loss(POLICY)
    assert with_one.per_group.tolist() == without.per_group.tolist()


# What each says of a pair at the reference, where every h is 0.
AT_THE_REFERENCE = [
    (IPO(), 25.0),
    (Hinge(), 1.0),
    (RDPO(alpha=0), math.log(2)),
    (KTO(), 0.5),
]


@pytest.mark.parametrize(("objective", "value"), AT_THE_REFERENCE, ids=lambda o: getattr(o, "name", ""))
def test_the_margin_is_zero_at_the_reference(objective: Objective, value: float) -> None:
    zero = torch.zeros(3, dtype=torch.float64)
    loss = objective.loss(GroupLogps(REFERENCE, REFERENCE, mismatched=Mismatched(zero, zero)))
    assert valid(loss.per_pair) == pytest.approx([value] * 3, abs=1e-12)
    assert valid(loss.metrics["margin"]) == [0.0] * 3


def test_a_tie_is_not_counted_as_preferred_and_is_still_pushed() -> None:
    """Equally likely responses: every pairwise loss asks for a margin, RRHF alone is content."""
    tie = GroupLogps(Logps(*[torch.tensor(v).double() for v in ([-4.0, -6.0], [[-4.0] * 2, [-6.0] * 2])], *[
        torch.tensor(v) for v in ([4, 3], [[4, 4], [3, 3]])], MASK))  # fmt: skip
    for objective in (CPO(), ORPO(), SLiCHF()):
        loss = objective.loss(tie)
        assert valid(loss.metrics["accuracy"]) == [0.0] * 3
        assert min(valid(loss.per_pair)) > 0
        assert push(objective, tie) > 0
    assert SLiCHF(delta=1.5).loss(tie).per_pair[0, 0] == 1.5
    assert RRHF().loss(tie).metrics["ranking"].tolist() == [0.0, 0.0]


def test_unused_numbers_do_not_matter() -> None:
    """The slot of a response that does not exist holds anything."""
    filled = logps(CHOSEN, [REJECTED[0], [REJECTED[1][0], -99.0]])
    for objective in (IPO(), Hinge(), RDPO(), CPO(), ORPO(), KTO(), RRHF(), SLiCHF()):
        one, other = objective.loss(BATCH), objective.loss(replace(BATCH, policy=filled))
        if one.per_pair is not None:
            assert valid(one.per_pair) == valid(other.per_pair)
        if one.per_group is not None:
            assert one.per_group.tolist() == other.per_group.tolist()
