"""The trainer: what it minimises does not depend on how a batch is cut, and m negatives are m pairs."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import pytest
import torch

from harness.errors import StageError
from harness.models.logps import score
from harness.training.batch import PLAIN, TokenGroup, cut_groups, group_logps
from harness.training.reduction import Totals, reduce_loss
from harness.training.settings import TrainingSettings
from harness.training.trainer import train
from harness_plugins.baselines.dpo import DPO
from harness_plugins.baselines.nll import SFT
from harness_plugins.only_prompting.simpo import SimPO
from harness_plugins.self_refined.sr_dpo import AUGMENTED, SrDPO

VIEWS = (PLAIN, AUGMENTED)


def ids(rng: random.Random, longest: int) -> tuple[int, ...]:
    return tuple(rng.choices(range(6, 400), k=rng.randint(2, longest)))


def groups(model, count: int = 8, most: int = 4, seed: int = 0) -> list[TokenGroup]:
    """Groups of unequal length and number of negatives, the reference being the model itself plus noise."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        prompt = ids(rng, 8)
        group = TokenGroup(
            {PLAIN: prompt, AUGMENTED: (7, 8, 9, *prompt)}, tuple(ids(rng, 6) for _ in range(rng.randint(2, most + 1)))
        )
        reference = {view: tuple(value + rng.gauss(0, 1) for value in score(model, group.rows(view))) for view in VIEWS}
        made.append(TokenGroup(group.prompts, group.responses, reference))
    return made


def whole_gradient(model, batch: list[TokenGroup], objective, tokens: int) -> dict[str, torch.Tensor]:
    """The batch's gradient with micro-batches of so many tokens."""
    model.zero_grad()
    totals = Totals.of(batch)
    for micro in cut_groups(batch, tokens):
        logps = group_logps(model, micro, objective)
        reduce_loss(objective.loss(logps), logps, objective, totals).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("objective", [DPO(), SimPO(), SrDPO(), SFT()], ids=lambda o: o.name)
def test_micro_batches_do_not_change_the_gradient(tiny, objective) -> None:
    model = tiny[0].double()
    batch = groups(model)
    whole = whole_gradient(model, batch, objective, 10**9)
    assert len(list(cut_groups(batch, 60))) > 3
    parts = whole_gradient(model, batch, objective, 60)
    for name in whole:
        assert torch.allclose(whole[name], parts[name], rtol=1e-5, atol=1e-8), name


def test_m_equal_negatives_are_one(tiny) -> None:
    model = tiny[0]
    (single,) = groups(model, 1, most=1)
    reference = {view: (*values, *values[1:], *values[1:]) for view, values in single.reference.items()}
    triple = TokenGroup(single.prompts, (*single.responses, single.responses[1], single.responses[1]), reference)
    one, three = (whole_gradient(model, [group], DPO(), 10**9) for group in (single, triple))
    for name in one:
        assert torch.allclose(one[name], three[name], rtol=1e-4, atol=1e-7), name


def test_m_negatives_equal_the_expanded_pairs(tiny) -> None:
    """One group of m negatives gives loss and gradient of m groups of one."""
    model = tiny[0]
    batch = groups(model, 3, most=4, seed=2)
    expanded = [
        TokenGroup(
            group.prompts,
            (group.responses[0], group.responses[k]),
            {view: (values[0], values[k]) for view, values in group.reference.items()},
        )
        for group in batch
        for k in range(1, len(group.responses))
    ]
    together, apart = (whole_gradient(model, groups_, SrDPO(), 10**9) for groups_ in (batch, expanded))
    for name in together:
        assert torch.allclose(together[name], apart[name], rtol=1e-3, atol=1e-6), name


SETTINGS = TrainingSettings(learning_rate=5e-3, prompts_per_batch=4, epochs=3, schedule="constant", warmup_share=0)


def test_training_lowers_the_loss_and_reports_each_step(tiny, tmp_path: Path) -> None:
    model = tiny[0]
    batch = groups(model)
    seen: list[tuple[int, int, str]] = []
    history = train(model, batch, DPO(), SETTINGS, seed=0, scratch=tmp_path, report=lambda *progress: seen.append(progress))
    assert len(history) == 6
    assert history[-1]["loss"] < history[0]["loss"]
    assert [row["step"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert all(row["learning_rate"] == pytest.approx(5e-3) and row["gradient_norm"] > 0 for row in history)
    assert {"margin", "accuracy", "chosen_logp", "rejected_logp"} <= history[0].keys()
    assert seen[0][:2] == (0, 6) and seen[-1][:2] == (6, 6)


def test_the_first_loss_is_log_two_at_the_reference(tiny, tmp_path: Path) -> None:
    model = tiny[0]
    exact = [
        TokenGroup(g.prompts, g.responses, {view: tuple(score(model, g.rows(view))) for view in VIEWS}) for g in groups(model)
    ]
    history = train(model, exact, SrDPO(), SETTINGS, seed=0, scratch=tmp_path)
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


def test_a_loss_that_is_no_number_stops_with_the_step_and_the_fix(tiny, tmp_path: Path) -> None:
    model = tiny[0]
    batch = groups(model)
    broken = [TokenGroup(g.prompts, g.responses, {view: (float("nan"),) * len(g.responses) for view in VIEWS}) for g in batch]
    with pytest.raises(StageError, match=r"loss of dpo is nan at step 1 of 6: lower training.learning_rate \(now 0.005\)"):
        train(model, broken, DPO(), SETTINGS, seed=0, scratch=tmp_path)
