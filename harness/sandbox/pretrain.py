"""Train the sandbox's base model from nothing: `harness sandbox train`.

The recipe is data (`Recipe`), so that the shipped weights can be made again: the same recipe on the same torch build and
one thread gives the same weights. Every dialogue starts at position 0 (no packing), batches hold dialogues of like length,
and the loss is on the assistant's tokens.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from harness.sandbox.corpus import dialogues
from harness.sandbox.tokenizer import build_tokenizer
from harness.store.atomic import write_atomically

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

POOL = 4096  # dialogues sorted by length at a time


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the base model's weights."""

    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    intermediate_size: int = 384
    initializer_range: float = 0.08
    steps: int = 12000
    tokens_per_step: int = 3072
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    weight_decay: float = 0.01
    seed: int = 0


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained Llama of the recipe's size with tied embeddings."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=recipe.initializer_range,
        attention_dropout=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        return LlamaForCausalLM(config)


def batches(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (input ids, labels), both [rows, tokens]; labels are -100 outside the assistant's turn."""
    import random

    import torch

    rng = random.Random(recipe.seed)
    stream = dialogues(recipe.seed)
    pad = tokenizer.pad_token_id
    while True:
        pool = list(islice(stream, POOL))
        prompts = tokenizer([f"<s> <user> {d.user} <end> <assistant>" for d in pool])["input_ids"]
        answers = tokenizer([f"{d.assistant} <end>" for d in pool])["input_ids"]
        rows = sorted(zip(prompts, answers, strict=True), key=lambda row: len(row[0]) + len(row[1]))
        cuts: list[list[tuple[list[int], list[int]]]] = [[]]
        for row in rows:
            if (len(cuts[-1]) + 1) * (len(row[0]) + len(row[1])) > recipe.tokens_per_step:
                cuts.append([])
            cuts[-1].append(row)
        rng.shuffle(cuts)
        for cut in cuts:
            width = max(len(prompt) + len(reply) for prompt, reply in cut)
            ids = torch.full((len(cut), width), pad)
            labels = torch.full((len(cut), width), -100)
            for index, (prompt, reply) in enumerate(cut):
                end = len(prompt) + len(reply)
                ids[index, :end] = torch.tensor(prompt + reply)
                labels[index, len(prompt) : end] = torch.tensor(reply)
            yield ids, labels


def _learning_rate(recipe: Recipe, step: int) -> float:
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


def train_base(recipe: Recipe, folder: Path, report: Callable[[int, float, float], None] | None = None) -> None:
    """Train a base model and save it (bf16 safetensors), its tokenizer and its recipe under `folder`.

    Args:
        recipe: what to train.
        folder: where to write; created, files in it overwritten.
        report: called every 50 steps with (step, mean loss in nats, seconds so far).
    """
    import torch

    tokenizer = build_tokenizer()
    model = build_model(recipe, tokenizer)
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    started, losses = time.monotonic(), []
    for step, (ids, labels) in enumerate(islice(batches(recipe, tokenizer), recipe.steps)):
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(recipe, step)
        loss = model(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long(), labels=labels).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if report is not None and (step + 1) % 50 == 0:
            report(step + 1, sum(losses[-50:]) / 50, time.monotonic() - started)
    model.eval().to(torch.bfloat16).save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    facts = {**asdict(recipe), "torch": torch.__version__, "threads": torch.get_num_threads(), "seconds": None}
    facts["seconds"] = round(time.monotonic() - started)
    facts["final_loss"] = round(sum(losses[-200:]) / len(losses[-200:]), 4)
    write_atomically(folder / "recipe.json", json.dumps(facts, indent=2, sort_keys=True) + "\n")
