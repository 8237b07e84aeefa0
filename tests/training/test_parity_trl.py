"""The same tokens through TRL's own trainers, in float32 and float64: loss and gradient must agree."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from trl_twin import arguments, cast, collated, ours, preference_groups, theirs

from harness.api.types import Group
from harness.models.tokenization import ChatTemplate
from harness.training.batch import PLAIN, tokenize
from harness_plugins.baselines.dpo import DPO
from harness_plugins.baselines.hinge import Hinge
from harness_plugins.baselines.ipo import IPO
from harness_plugins.baselines.kto import KTO
from harness_plugins.baselines.sft import SFT

own_deprecation = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # TRL's own call

PAIRWISE = {
    "dpo": (DPO(beta=0.3), {"loss_type": ["sigmoid"]}),
    "ipo": (IPO(beta=0.3), {"loss_type": ["ipo"]}),
    "hinge": (Hinge(beta=0.3), {"loss_type": ["hinge"]}),
}


@own_deprecation
@pytest.mark.parametrize("name", PAIRWISE)
def test_dpo_and_its_kin_equal_trl(models, tmp_path: Path, precision: str, name: str) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    policy, reference, tokenizer = models
    objective, settings = PAIRWISE[name]
    groups = preference_groups(6)
    rows = [
        {
            "prompt": [{"role": "user", "content": g.prompt.text}],
            "chosen": [{"role": "assistant", "content": g.chosen.text}],
            "rejected": [{"role": "assistant", "content": g.rejected[0].text}],
        }
        for g in groups
    ]
    trainer = DPOTrainer(
        model=copy.deepcopy(policy),
        ref_model=copy.deepcopy(reference),
        args=arguments(DPOConfig, tmp_path, beta=0.3, **settings),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    cast(precision, policy, reference, trainer.model, trainer.ref_model)
    step = ours(policy, reference, tokenize(groups, ChatTemplate(tokenizer), objective), objective)
    assert step.equals(theirs(trainer, collated(trainer)), precision)


@own_deprecation
@pytest.mark.parametrize("swap", [False, True], ids=["clamped", "above zero"])
def test_kto_equals_trl(models, tmp_path: Path, precision: str, swap: bool) -> None:
    """TRL pairs each prompt with the completion before it. All chosen first, then all rejected, gives our pairs."""
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    *pair, tokenizer = models
    policy, reference = pair[::-1] if swap else pair
    groups = preference_groups(6)
    sides = [(g, g.chosen, True) for g in groups] + [(g, g.rejected[0], False) for g in groups]
    rows = [
        {
            "prompt": [{"role": "user", "content": g.prompt.text}],
            "completion": [{"role": "assistant", "content": response.text}],
            "label": label,
        }
        for g, response, label in sides
    ]
    weights = {"desirable_weight": 1.5, "undesirable_weight": 0.5}
    trainer = KTOTrainer(
        model=copy.deepcopy(policy),
        ref_model=copy.deepcopy(reference),
        args=arguments(KTOConfig, tmp_path, beta=0.3, per_device_train_batch_size=12, **weights),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    objective = KTO(beta=0.3, **weights)
    cast(precision, policy, reference, trainer.model, trainer.ref_model)
    step = ours(policy, reference, tokenize(groups, ChatTemplate(tokenizer), objective), objective)
    assert step.equals(theirs(trainer, collated(trainer)), precision)
    (estimate,) = trainer._metrics["eval"]["kl"]  # of the mode that the loaded model is in
    assert (estimate > 0) is swap


def test_sft_equals_trl(models, tmp_path: Path, precision: str) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    policy, _, tokenizer = models
    groups = [Group(g.prompt, g.chosen) for g in preference_groups(6)]
    tokenized = tokenize(groups, ChatTemplate(tokenizer), SFT())
    rows = [
        {
            "input_ids": [*g.prompts[PLAIN], *g.responses[0]],
            "completion_mask": [0] * len(g.prompts[PLAIN]) + [1] * len(g.responses[0]),
        }
        for g in tokenized
    ]
    trainer = SFTTrainer(
        model=copy.deepcopy(policy),
        args=arguments(SFTConfig, tmp_path, completion_only_loss=True),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    cast(precision, policy, trainer.model)
    assert ours(policy, policy, tokenized, SFT()).equals(theirs(trainer, collated(trainer)), precision)
