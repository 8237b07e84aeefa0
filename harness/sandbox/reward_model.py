"""Train the sandbox's reward model: `harness sandbox train-reward`.

A sequence classifier on the base model's trunk, trained with Bradley and Terry's loss, -log sigmoid(r(preferred) - r(other)),
on preference pairs of the world as methods see them: labelled by gold, with label noise. It never sees a mark of gold, so a
row that maximises it knows no more than one that is trained on pairs. No tuning or held-out question is among its pairs.

The recipe is data (`RewardRecipe`), as the base model's is: the same recipe on the same torch build and one thread gives the
same weights.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.sandbox.world import build_dataset
from harness.store.atomic import write_atomically

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.api.types import Example


@dataclass(frozen=True)
class RewardRecipe:
    """Everything that decides the reward model's weights, beside the base model.

    Attributes:
        pairs: preference pairs, drawn with `seed`; another seed than the source's default, so other pairs than rows train on.
        label_noise: share of pairs labelled the wrong way round, as the source's default.
    """

    pairs: int = 1600
    label_noise: float = 0.12
    epochs: int = 3
    pairs_per_step: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    seed: int = 1


def train_reward_model(
    recipe: RewardRecipe, base: Path, folder: Path, report: Callable[[int, int, float], None] | None = None
) -> None:
    """Train a reward model and save it (bf16 safetensors), with the base's tokenizer and the recipe, under `folder`.

    Args:
        base: the checkpoint folder of the base model.
        folder: where to write; created, files in it overwritten.
        report: called after every step with (step, steps, loss in nats).
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_cosine_schedule_with_warmup

    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    torch.manual_seed(recipe.seed)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)
    torch.nn.init.zeros_(model.score.weight)  # all answers begin equal, as adapters begin at no change
    examples = build_dataset({"train": recipe.pairs}, recipe.label_noise, recipe.seed)["train"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * -(-len(examples) // recipe.pairs_per_step)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 10, steps)
    started, losses = time.monotonic(), list[float]()
    model.train()
    for step, batch in enumerate(_batches(examples, recipe), start=1):
        preferred, other = margins(model, tokenizer, batch)
        loss = -torch.nn.functional.logsigmoid(preferred - other).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if report is not None:
            report(step, steps, losses[-1])
    model.eval().to(torch.bfloat16).save_pretrained(folder, safe_serialization=True)
    # A fresh one: this one's file would ask for the padding of training.
    AutoTokenizer.from_pretrained(base, trust_remote_code=False).save_pretrained(folder)
    facts = {**asdict(recipe), "torch": torch.__version__, "seconds": round(time.monotonic() - started)}
    facts["final_loss"] = round(sum(losses[-20:]) / len(losses[-20:]), 4)
    write_atomically(folder / "recipe.json", json.dumps(facts, indent=2, sort_keys=True) + "\n")


def margins(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rewards of the preferred and the other answers, [N] each."""
    dialogues = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": example.prompt.text}, {"role": "assistant", "content": example.ranked[place]}],
            tokenize=False,
        )
        for place in (0, 1)
        for example in examples
    ]
    rows = tokenizer(dialogues, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt")
    rewards = model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"]).logits[:, 0]
    return rewards[: len(examples)], rewards[len(examples) :]


def agreement(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> float:
    """Return the share of pairs whose preferred answer has the higher reward."""
    import torch

    with torch.inference_mode():
        preferred, other = margins(model, tokenizer, examples)
    return float((preferred > other).double().mean())


def _batches(examples: Sequence[Example], recipe: RewardRecipe) -> Iterator[list[Example]]:
    rng = random.Random(recipe.seed)
    for _ in range(recipe.epochs):
        order = rng.sample(examples, len(examples))
        for first in range(0, len(order), recipe.pairs_per_step):
            yield order[first : first + recipe.pairs_per_step]
