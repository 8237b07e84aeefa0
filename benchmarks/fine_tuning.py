"""A step of supervised fine-tuning of SmolLM2-135M by TRL's SFTTrainer and with our packed rows, side by side in one run.

    harness fetch smollm2
    python benchmarks/fine_tuning.py               # 8 examples a step, three interleaved rounds
    python benchmarks/fine_tuning.py --rounds 1

Token ids are drawn at random; prompts have 50 to 250 tokens, targets 20 to 110. One batch is random, as TRL's default order
makes them, the other of similar lengths, as `group_by_length` does, with hardly any padding. A step is forward, backward and
AdamW on one batch, TRL's on rows that its collator pads, ours as `sft.layout: packed`. Losses are compared before anything is
timed. In each round both take a step in turn, every other round the other way round. A ratio is taken within a round, of the
processor's seconds of one thread, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from harness.models.checkpoint import checkpoint_folder
from harness.models.load import load
from harness.training.layouts.choose import choose_layout
from harness.training.settings import SftSettings
from harness.training.sft_step import SftStep
from harness.training.sft_trainer import SftTrainer

RESULTS = Path(__file__).parent / "results"
TOLERANCE = 1e-5  # relative, of losses in float32


class Side:
    """One trainer with a model of its own, and the one batch that it trains on."""

    def __init__(self, rows: list[dict[str, Any]], folder: str, *, packed: bool) -> None:
        self.model, tokenizer = load(checkpoint_folder("smollm2"), use="training")
        arguments = SFTConfig(
            output_dir=folder, per_device_train_batch_size=len(rows), max_length=None, completion_only_loss=True, bf16=False,
            gradient_checkpointing=False, remove_unused_columns=False, report_to=[], use_cpu=True,
        )  # fmt: skip
        given: dict[str, Any] = {"model": self.model, "args": arguments, "processing_class": tokenizer}
        given["train_dataset"] = Dataset.from_list(rows)
        if packed:
            settings = SftSettings(batch_size=len(rows), layout="packed")
            self.trainer: Any = SftTrainer(step=SftStep(settings, layout=choose_layout(self.model)), **given)
        else:
            self.trainer = SFTTrainer(**given)
        self.batch = next(iter(self.trainer.get_train_dataloader()))
        self.tokens = (self.batch["labels"] != -100).sum()
        if not packed:
            self.batch.pop("id", None)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5)
        self.trainer.current_gradient_accumulation_steps = 1

    def step(self) -> tuple[float, float]:
        """Return the loss and the seconds of a step."""
        began = time.process_time()
        loss = self.trainer.training_step(self.model, self.batch, self.tokens)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss), time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lengths = drawn_lengths(options.batch)
    first, middle = lengths[: options.batch], sorted(lengths, key=sum)[24 * options.batch : 25 * options.batch]
    cases = {"random": measure(examples(first), options.rounds), "by length": measure(examples(middle), options.rounds)}
    about = {"model": "SmolLM2-135M, float32", "threads": 1, "torch": version("torch"), "trl": version("trl")}
    text = json.dumps({**about, "batch": options.batch, "cases": cases}, indent=1) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "fine_tuning.json").write_text(text, encoding="utf-8")
    print(text)


def measure(rows: list[dict[str, Any]], rounds: int) -> dict[str, Any]:
    """Equality first, which also makes the optimisers' states, then the seconds of each round."""
    with tempfile.TemporaryDirectory() as folder:
        sides = {"trl": Side(rows, folder, packed=False), "packed": Side(rows, folder, packed=True)}
        losses = {name: side.step()[0] for name, side in sides.items()}
        difference = abs(losses["packed"] - losses["trl"]) / losses["trl"]
        if difference > TOLERANCE:
            sys.exit(f"the two do not compute the same loss: {losses}")
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(rounds):
            for name in list(sides)[:: -1 if number % 2 else 1]:
                seconds[name].append(sides[name].step()[1])
    ratios = [a / b for a, b in zip(seconds["trl"], seconds["packed"], strict=True)]
    lengths = [len(row["input_ids"]) for row in rows]
    return {
        "tokens": {"real": sum(lengths), "padded": len(rows) * max(lengths)},
        "difference": difference,
        "seconds": seconds,
        "speedup": {"median": median(ratios), "low": min(ratios), "high": max(ratios)},
    }


def drawn_lengths(batch: int) -> list[tuple[int, int]]:
    """Return lengths of prompt and target for 50 batches, as many as `group_by_length` sorts at once."""
    rng = random.Random(0)
    return [(rng.randint(50, 250), rng.randint(20, 110)) for _ in range(50 * batch)]


def examples(lengths: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Rows of random tokens."""
    rng, rows = random.Random(0), []
    for number, (prompt, target) in enumerate(lengths):
        ids = rng.choices(range(100, 49_000), k=prompt + target)
        rows.append({"input_ids": ids, "completion_mask": [0] * prompt + [1] * target, "id": str(number)})
    return rows


if __name__ == "__main__":
    main()
