"""The trainer: what it minimises does not depend on how a batch is cut, and m negatives are m pairs."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from architectures import exact
from token_groups import VIEWS, groups

from harness.api.registry import Registry
from harness.api.types import GroupLogps
from harness.errors import StageError
from harness.models.logps import score
from harness.training.batch import PLAIN, UNIQUE, TokenGroup, cut_groups, group_logps, mismatched_logps
from harness.training.layouts.choose import choose_layout
from harness.training.layouts.layout import Layout
from harness.training.layouts.padded import ExpandedPairs
from harness.training.reduction import Totals, reduce_loss
from harness.training.settings import TrainingSettings
from harness.training.trainer import train
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


def whole_gradient(model, batch: list[TokenGroup], objective, tokens: int, layout: Layout = UNIQUE) -> dict[str, torch.Tensor]:
    """The batch's gradient with micro-batches of so many tokens."""
    model.zero_grad()
    totals = Totals.of(batch)
    mismatched = mismatched_logps(model, batch, tokens, layout) if objective.needs_mismatched else None
    for micro in cut_groups(batch, tokens, layout):
        logps = group_logps(model, micro, objective, mismatched, layout)
        reduce_loss(objective.loss(logps), logps, objective, totals).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """By the norm of the difference, in float64."""
    one, other = (torch.cat([gradient.flatten() for gradient in side.values()]) for side in (found, expected))
    assert one.dtype == torch.float64 and other.norm() > 0
    assert float((one - other).norm() / other.norm()) <= 1e-9


PAIRWISE = [
    CPO(), DPO(), Hinge(), IPO(), IPO(normalize="sum"), KTO(), ORPO(), RDPO(), SimPO(), SLiCHF(), SrDPO(), SrIPO(),
]  # fmt: skip


@pytest.mark.parametrize("objective", [*PAIRWISE, RRHF(), SFT()], ids=lambda o: o.name)
def test_neither_micro_batches_nor_layouts_change_the_gradient(tiny, objective) -> None:
    """Views, mismatched pairs and denominators included."""
    batch, model = groups(tiny[0]), exact(tiny[0])
    whole = whole_gradient(model, batch, objective, 10**9)
    for layout in (ExpandedPairs(), UNIQUE, choose_layout(model, "shared_prefix")):
        assert len(list(cut_groups(batch, 60, layout))) > 2
        assert_equal(whole_gradient(model, batch, objective, 60, layout), whole)


def test_token_counts_leave_the_prompt_out(tiny) -> None:
    """SimPO, ORPO and the others that divide by a length divide by the response's, whatever the prompt's."""
    responses = ((20, 21, 22), (30, 31))
    batch = [TokenGroup({PLAIN: prompt}, responses) for prompt in ((7,), (7, 8, 9, 10, 11))]
    policy = group_logps(tiny[0], batch, SimPO()).policy
    assert policy.chosen_tokens.tolist() == [3, 3]
    assert policy.rejected_tokens.tolist() == [[2], [2]]
    expected = 2.0 * (policy.chosen / 3 - policy.rejected[:, 0] / 2) - 1.0
    assert torch.allclose(SimPO().loss(GroupLogps(policy)).metrics["margin"][:, 0], expected)


@pytest.mark.parametrize("objective", PAIRWISE, ids=lambda o: o.name)
def test_m_equal_negatives_are_one(tiny, objective) -> None:
    batch, model = groups(tiny[0], 2, most=1), exact(tiny[0])
    triple = [
        replace(
            group,
            responses=(*group.responses, *group.responses[1:] * 2),
            reference={view: (*values, *values[1:] * 2) for view, values in group.reference.items()},
            mismatched=(*group.mismatched, *group.mismatched[1:] * 2),
        )
        for group in batch
    ]
    one, three = (whole_gradient(model, groups_, objective, 10**9) for groups_ in (batch, triple))
    assert_equal(three, one)


# CPO, ORPO and SLiC-HF add a likelihood of each prompt's chosen response, which is there once and not m times. For KTO, whose
# mismatched pairs are the data set's: test_mismatched.py.
OF_PAIRS_ALONE = [objective for objective in PAIRWISE if objective.name not in ("cpo", "kto", "orpo", "slic_hf")]


@pytest.mark.parametrize("objective", OF_PAIRS_ALONE, ids=lambda o: o.name)
def test_m_negatives_equal_the_expanded_pairs(tiny, objective) -> None:
    """Groups of unequal m give the gradient of as many groups of one negative."""
    batch, model = groups(tiny[0], 3, most=4, seed=2), exact(tiny[0])
    assert len({group.pairs for group in batch}) > 1
    expanded = [
        TokenGroup(
            group.prompts,
            (group.responses[0], group.responses[k]),
            {view: (group.reference[view][0], group.reference[view][k]) for view in (PLAIN, AUGMENTED)},
        )
        for group in batch
        for k in range(1, len(group.responses))
    ]
    apart = whole_gradient(model, expanded, objective, 10**9)
    assert_equal(whole_gradient(model, batch, objective, 10**9), apart)


SETTINGS = TrainingSettings(learning_rate=5e-3, prompts_per_batch=4, epochs=3, schedule="constant", warmup_share=0)


def test_training_lowers_the_loss_and_reports_each_step(tiny, tmp_path: Path) -> None:
    model = tiny[0]
    batch = groups(model)
    seen: list[tuple[int, int, str]] = []
    history = train(
        model, batch, DPO(), SETTINGS, seed=0, scratch=tmp_path, report=lambda *progress: seen.append(progress)
    ).history
    assert len(history) == 6
    assert history[-1]["loss"] < history[0]["loss"]
    assert [row["step"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert all(row["learning_rate"] == pytest.approx(5e-3) and row["gradient_norm"] > 0 for row in history)
    assert {"margin", "accuracy", "chosen_logp", "rejected_logp"} <= history[0].keys()
    assert seen[0][:2] == (0, 6) and seen[-1][:2] == (6, 6)


@pytest.mark.parametrize("name", Registry.load().names("objective"))
def test_every_installed_objective_trains(tiny, tmp_path: Path, name: str) -> None:
    objective = Registry.load().get("objective", name).component()
    history = train(tiny[0], groups(tiny[0]), objective, SETTINGS, seed=0, scratch=tmp_path).history
    assert len(history) == 6
    assert history[-1]["loss"] < history[0]["loss"]


@pytest.mark.parametrize("objective", [SrDPO(), KTO()], ids=lambda o: o.name)
def test_training_is_the_same_by_every_layout(tiny, tmp_path: Path, objective) -> None:
    """Views and mismatched pairs included, and micro-batches cut by each layout's own tokens."""
    batch, histories = groups(tiny[0]), {}
    for layout in ("expanded", "unique", "shared_prefix", "auto"):
        settings = SETTINGS.model_copy(update={"layout": layout, "tokens_per_micro_batch": 60})
        histories[layout] = train(copy.deepcopy(tiny[0]), batch, objective, settings, seed=0, scratch=tmp_path).history
    assert histories["auto"] == histories["shared_prefix"]
    for name in ("loss", "gradient_norm"):
        expected = [row[name] for row in histories["expanded"]]
        for layout in ("unique", "shared_prefix"):
            assert [row[name] for row in histories[layout]] == pytest.approx(expected, rel=1e-3)


def test_the_first_loss_is_log_two_at_the_reference(tiny, tmp_path: Path) -> None:
    model = tiny[0]
    exact = [
        TokenGroup(g.prompts, g.responses, {view: tuple(score(model, g.rows(view))) for view in VIEWS}) for g in groups(model)
    ]
    history = train(model, exact, SrDPO(), SETTINGS, seed=0, scratch=tmp_path).history
    assert history[0]["loss"] == pytest.approx(0.693147, abs=1e-5)


def test_same_seed_same_weights_and_another_seed_others(tiny, tmp_path: Path) -> None:
    model = tiny[0]
    batch = groups(model)
    trained = []
    for seed in (0, 0, 1):
        twin = copy.deepcopy(model)
        train(twin, batch, DPO(), SETTINGS, seed=seed, scratch=tmp_path)
        trained.append(torch.cat([parameter.flatten() for parameter in twin.parameters()]))
    assert torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[0], trained[2])


def test_rmsprop_divides_the_first_step_by_a_tenth_of_each_gradient(tiny, tmp_path: Path) -> None:
    """v = 0.01·g² then, so that a weight moves by 10 learning rates; of AdamW by one."""
    moved = {}
    for optimizer in ("rmsprop", "adamw_torch"):
        model = copy.deepcopy(tiny[0])
        settings = TrainingSettings(
            optimizer=optimizer,
            learning_rate=1e-4,
            prompts_per_batch=64,
            schedule="constant",
            warmup_share=0,
            max_gradient_norm=1e9,
        )
        train(model, groups(model), DPO(), settings, seed=0, scratch=tmp_path)
        pairs = zip(model.parameters(), tiny[0].parameters(), strict=True)
        moved[optimizer] = torch.cat([(after - before).abs().flatten() for after, before in pairs]).median().item()
    assert moved == {"rmsprop": pytest.approx(1e-3, rel=0.01), "adamw_torch": pytest.approx(1e-4, rel=0.01)}


def test_a_loss_that_is_no_number_stops_with_the_step_and_the_fix(tiny, tmp_path: Path) -> None:
    model = tiny[0]
    batch = groups(model)
    broken = [TokenGroup(g.prompts, g.responses, {view: (float("nan"),) * len(g.responses) for view in VIEWS}) for g in batch]
    with pytest.raises(StageError, match=r"loss of dpo is nan at step 1 of 6: lower training.learning_rate \(now 0.005\)"):
        train(model, broken, DPO(), SETTINGS, seed=0, scratch=tmp_path)
