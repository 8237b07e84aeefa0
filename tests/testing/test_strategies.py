"""Strategies give what they promise, and are usable as a plugin's author would use them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import Group, GroupLogps
from harness.testing import strategies
from harness_plugins.baselines.dpo import DPO
from harness_plugins.baselines.kto import KTO
from harness_plugins.baselines.sft import SFT
from harness_plugins.self_refined.sr_dpo import SrDPO

FEW = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@FEW
@given(strategies.groups(least=0, most=3))
def test_groups_are_whole(group: Group) -> None:
    texts = [group.chosen.text, *(response.text for response in group.rejected)]
    assert len(set(texts)) == len(texts) <= 4
    assert all(text.strip() for text in texts)
    assert group.prompt.messages[-1].role == "user"


@pytest.mark.parametrize("objective", [DPO(), KTO(), SrDPO(), SFT()], ids=lambda objective: objective.name)
def test_batches_hold_what_an_objective_asks_for(objective: object) -> None:
    @FEW
    @given(strategies.group_logps(objective))  # type: ignore[arg-type]
    def holds(batch: GroupLogps) -> None:
        assert (batch.reference is not None) == objective.needs_reference  # type: ignore[attr-defined]
        assert (batch.mismatched is not None) == objective.needs_mismatched  # type: ignore[attr-defined]
        assert set(batch.views) == set(objective.views())  # type: ignore[attr-defined]
        assert bool((batch.policy.chosen < 0).all())
        assert not bool(batch.policy.rejected[~batch.policy.mask].any())

    holds()


@FEW
@given(strategies.group_logps(), st.floats(0.01, 2.0))
def test_dpo_is_lower_for_a_larger_margin(batch: GroupLogps, beta: float) -> None:
    loss = DPO(beta=beta).loss(batch)
    margin = loss.metrics["margin"][batch.policy.mask]
    order = margin.argsort()
    assert loss.per_pair is not None
    assert bool((torch.diff(loss.per_pair[batch.policy.mask][order]) <= 0).all())
