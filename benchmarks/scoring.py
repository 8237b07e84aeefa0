"""Scores of SmolLM2-135M's responses by padded rows and by the shared-prefix layout, side by side in one run.

    harness fetch smollm2
    python benchmarks/scoring.py                # 4 prompts, 1 and 8 responses each, three interleaved rounds
    python benchmarks/scoring.py --rounds 1

Token ids are drawn at random; prompts have 50 to 250 tokens, responses 20 to 110. Both sides are compared before anything is
timed. In each round both score the same rows in turn, every other round the other way round. A ratio is taken within a round,
of the processor's seconds of one thread, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import PreTrainedModel

from harness.models.batched import computed
from harness.models.checkpoint import checkpoint_folder
from harness.models.load import load_model
from harness.models.logps import score
from harness.training.layouts.layout import Bundle
from harness.training.layouts.scores import SharedScores
from harness.training.layouts.shared_prefix import SharedPrefix

RESULTS = Path(__file__).parent / "results"
TOLERANCE = 1e-5  # relative, of log-probabilities in float32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--responses", type=int, nargs="+", default=[1, 8], help="of each prompt")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(checkpoint_folder("smollm2"), use="scoring")
    cases = [measure(model, bundles(options.prompts, count), options.rounds) for count in options.responses]
    about = {"model": "SmolLM2-135M, float32", "threads": 1, "rounds": options.rounds, "torch": version("torch")}
    text = json.dumps({**about, "cases": cases}, indent=1) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "scoring.json").write_text(text, encoding="utf-8")
    print(text)


def bundles(prompts: int, responses: int) -> list[Bundle]:
    """Prompts of 50 to 250 tokens, responses of 20 to 110."""
    rng = random.Random(0)

    def ids(least: int, most: int) -> tuple[int, ...]:
        return tuple(rng.choices(range(100, 49_000), k=rng.randint(least, most)))

    return [Bundle(ids(50, 250), tuple(ids(20, 110) for _ in range(responses))) for _ in range(prompts)]


def measure(model: PreTrainedModel, asked: list[Bundle], rounds: int) -> dict[str, Any]:
    """Equality first, which also warms both up, then the seconds of each round."""
    rows = [row for bundle in asked for row in bundle.rows()]
    sides = {"padded": lambda: score(model, rows), "shared": lambda: computed(SharedScores(model, asked), len(rows)).tolist()}
    padded, shared = (compute() for compute in sides.values())
    difference = max(abs(a - b) / abs(a) for a, b in zip(padded, shared, strict=True))
    if difference > TOLERANCE:
        sys.exit(f"the two layouts do not compute the same: {difference}")
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            began = time.process_time()
            sides[name]()
            seconds[name].append(time.process_time() - began)
    ratios = [a / b for a, b in zip(seconds["padded"], seconds["shared"], strict=True)]
    return {
        "prompts": len(asked),
        "responses": len(asked[0].responses),
        "tokens": {"rows": sum(row.tokens for row in rows), "shared": SharedPrefix().tokens(asked)},
        "difference": difference,
        "seconds": seconds,
        "speedup": {"median": median(ratios), "low": min(ratios), "high": max(ratios)},
    }


if __name__ == "__main__":
    main()
