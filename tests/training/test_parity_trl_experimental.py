"""CPO, SimPO and SLiC-HF's margin in float32 and float64, ORPO in float32, against the trainers that TRL keeps as experimental.

TRL casts ORPO's log-probabilities to float32; what that loss is in float64 is in tests/plugins.

Those tokenise strings by themselves; here they get our ids, so that only the loss is compared.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from trl_twin import Step, arguments, cast, ours, preference_groups, theirs

from harness.api.interfaces import Objective
from harness.models.tokenization import ChatTemplate
from harness.training.batch import PLAIN, TokenGroup, tokenize
from harness_plugins.baselines.cpo import CPO
from harness_plugins.baselines.orpo import ORPO
from harness_plugins.baselines.slic_hf import SLiCHF
from harness_plugins.only_prompting.simpo import SimPO

# Raised where the first import of `trl.experimental` in a process happens to be.
pytestmark = pytest.mark.filterwarnings("ignore:You are importing from 'trl.experimental'")
IGNORED = -100


def twin(trainer_class, config_class, model, tokenizer, folder: Path, **changes):
    """A TRL trainer of a copy of the model. Its data set is one row for its constructor's sake."""
    from datasets import Dataset

    row = {"prompt": "a", "chosen": " b", "rejected": " c"}
    return trainer_class(
        model=copy.deepcopy(model),
        args=arguments(config_class, folder, max_length=512, **changes),
        train_dataset=Dataset.from_list([row]),
        processing_class=tokenizer,
    )


def features(groups: Sequence[TokenGroup]) -> list[dict[str, list[int]]]:
    """Our ids as those trainers' collator takes them."""
    rows = []
    for group in groups:
        prompt = list(group.prompts[PLAIN])
        row = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
        for side, response in zip(("chosen", "rejected"), group.responses, strict=True):
            row[f"{side}_input_ids"] = [*prompt, *response]
            row[f"{side}_attention_mask"] = [1] * (len(prompt) + len(response))
            row[f"{side}_labels"] = [IGNORED] * len(prompt) + list(response)
        rows.append(row)
    return rows


def their_step(trainer, groups: Sequence[TokenGroup]) -> Step:
    return theirs(trainer, trainer.data_collator(features(groups)))


CPO_TWINS = [
    (CPO(beta=0.3, alpha=0.7), {"loss_type": "sigmoid", "beta": 0.3, "cpo_alpha": 0.7}),
    # TRL's simpo_gamma is γ itself, as ours.
    (SimPO(beta=1.5, gamma=0.6), {"loss_type": "simpo", "beta": 1.5, "simpo_gamma": 0.6, "cpo_alpha": 0.0}),
    # TRL's margin is 1/β of sums; its likelihood is per token of the batch and ours per response, so it is left out.
    (SLiCHF(delta=1.0, regularization=0.0), {"loss_type": "hinge", "beta": 1.0, "cpo_alpha": 0.0}),
]


@pytest.mark.parametrize(("objective", "settings"), CPO_TWINS, ids=["cpo", "simpo", "slic_hf"])
def test_cpo_simpo_and_slic_hf_equal_trl(models, tmp_path: Path, precision: str, objective: Objective, settings) -> None:
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    policy, _, tokenizer = models
    groups = tokenize(preference_groups(6), ChatTemplate(tokenizer), objective)
    trainer = twin(CPOTrainer, CPOConfig, policy, tokenizer, tmp_path, **settings)
    cast(precision, policy, trainer.model)
    assert ours(policy, policy, groups, objective).equals(their_step(trainer, groups), precision)


def orpo_twin(model, tokenizer, folder: Path):
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    return twin(ORPOTrainer, ORPOConfig, model, tokenizer, folder, beta=0.4)


def test_orpo_equals_trl_where_a_prompt_is_one_token(models, tmp_path: Path) -> None:
    """TRL's likelihood term counts the prompt's tokens too, but for the first, which nothing predicts."""
    policy, _, tokenizer = models
    objective = ORPO(odds_ratio_weight=0.4)
    groups = [
        replace(group, prompts={PLAIN: group.prompts[PLAIN][-1:]})
        for group in tokenize(preference_groups(6), ChatTemplate(tokenizer), objective)
    ]
    trainer = orpo_twin(policy, tokenizer, tmp_path)
    assert ours(policy, policy, groups, objective).equals(their_step(trainer, groups), "float32")


def test_orpos_odds_ratio_equals_trl_under_whole_prompts(models, tmp_path: Path) -> None:
    """The rest of the loss, once TRL's likelihood of prompt and response is taken off."""

    class OddsRatio(ORPO):
        def loss(self, batch):
            return replace(super().loss(batch), per_group=None)

    policy, _, tokenizer = models
    objective = OddsRatio(odds_ratio_weight=0.4)
    groups = tokenize(preference_groups(6), ChatTemplate(tokenizer), objective)
    trainer = orpo_twin(policy, tokenizer, tmp_path)
    batch = trainer.data_collator(features(groups))
    whole = trainer.compute_loss(trainer.model, batch)
    likelihood = trainer.concatenated_forward(trainer.model, batch)[4]
    trainer.model.zero_grad()
    (whole - likelihood).backward()
    gradient = {name: parameter.grad for name, parameter in trainer.model.named_parameters()}
    assert ours(policy, policy, groups, objective).equals(Step(float((whole - likelihood).detach()), gradient), "float32")
