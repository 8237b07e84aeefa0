"""Samples per second: our generation, the prompt once for n samples, against transformers' `generate` on repeated prompts.

    python benchmarks/generation.py            # n = 1, 8, 32 on the sandbox's base model, 5 interleaved rounds
    python benchmarks/generation.py --quick    # n = 32, 3 rounds
    python benchmarks/generation.py --model FOLDER --long 256    # another checkpoint; prompts of 256 tokens
    python benchmarks/generation.py --model FOLDER --prompts 8 --samples 8 --rounds 3

Both sides draw the same number of samples of at most 64 tokens at temperature 1 from the same prompts, in batches of the same
number of rows, on one thread. Each round runs both, in turn; a ratio is taken within a round. Before anything is timed, greedy
answers of both sides are compared.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from harness.api.types import Sampling
from harness.models.checkpoint import checkpoint_folder
from harness.models.generate import generate_ids
from harness.models.load import load
from harness.models.tokenization import ChatTemplate
from harness.sandbox import build_dataset

ROWS_PER_BATCH, MAX_TOKENS = 256, 64


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="sandbox")
    options.add_argument("--prompts", type=int, default=16)
    options.add_argument("--long", type=int, default=0, help="pad prompts with their own words to this many tokens")
    options.add_argument("--samples", type=int, nargs="+", help="n, in place of 1, 8 and 32")
    options.add_argument("--rounds", type=int)
    options.add_argument("--quick", action="store_true")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load(checkpoint_folder(given.model))
    template = ChatTemplate(tokenizer)
    examples = build_dataset({"sft": 1, "train": given.prompts, "tuning": 0, "heldout": 1}, 0.12, 0)["train"]
    encoded = [_lengthened(template.prompt_ids(example.prompt), given.long) for example in examples]
    _check(model, tokenizer, encoded, template.end_id)
    rows = []
    rounds = given.rounds or (3 if given.quick else 5)
    for n in given.samples or ((32,) if given.quick else (1, 8, 32)):
        rows.append(measure(model, tokenizer, encoded, template.end_id, n, rounds))
        print(json.dumps(rows[-1]))
    if given.out:
        device = str(model.device)
        given.out.write_text(
            json.dumps({"model": given.model, "long": given.long, "device": device, "rows": rows}, indent=1) + "\n"
        )


def measure(model: Any, tokenizer: Any, encoded: list[list[int]], end_id: int, n: int, rounds: int) -> dict[str, float]:
    """Medians over rounds; tokens differ a little between the sides, since both draw."""
    sides: dict[str, Callable[[int], int]] = {
        "ours": lambda seed: _ours(model, tokenizer, encoded, end_id, Sampling(n, 1.0, 1.0, MAX_TOKENS, seed)),
        "plain": lambda seed: _plain(model, encoded, end_id, n, seed),
    }
    for side in sides.values():
        side(0)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    tokens = dict.fromkeys(sides, 0)
    for number in range(rounds):
        for name in sorted(sides, reverse=bool(number % 2)):
            began = time.perf_counter()
            tokens[name] += sides[name](number)
            seconds[name].append(time.perf_counter() - began)
    samples = len(encoded) * n
    ratios = [plain / ours for plain, ours in zip(seconds["plain"], seconds["ours"], strict=True)]
    return {
        "n": n,
        "samples": samples,
        "ours_per_second": round(samples / median(seconds["ours"]), 1),
        "plain_per_second": round(samples / median(seconds["plain"]), 1),
        "ratio": round(median(ratios), 2),
        "ratio_low": round(min(ratios), 2),
        "ratio_high": round(max(ratios), 2),
        "ours_tokens": tokens["ours"] // rounds,
        "plain_tokens": tokens["plain"] // rounds,
    }


def _ours(model: Any, tokenizer: Any, encoded: list[list[int]], end_id: int, sampling: Sampling) -> int:
    answers = generate_ids(model, ChatTemplate(tokenizer), encoded, sampling, [end_id], rows_per_batch=ROWS_PER_BATCH)
    return sum(response.tokens or 0 for row in answers for response in row)


def _plain(model: Any, encoded: list[list[int]], end_id: int, n: int, seed: int, greedy: bool = False) -> int:
    return sum(len(ids) for ids in _plain_ids(model, encoded, end_id, n, seed, greedy))


def _plain_ids(model: Any, encoded: list[list[int]], end_id: int, n: int, seed: int, greedy: bool) -> list[list[int]]:
    """Tokens said, the end included, by prompt and sample; prompts of like length share a batch, as ours do."""
    torch.manual_seed(seed)
    repeated = [ids for ids in sorted(encoded, key=len) for _ in range(n)]
    choice: dict[str, Any] = (
        {"do_sample": False} if greedy else {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    )
    said = []
    for start in range(0, len(repeated), ROWS_PER_BATCH):
        batch = repeated[start : start + ROWS_PER_BATCH]
        width = max(len(ids) for ids in batch)
        ids = torch.tensor([[end_id] * (width - len(row)) + row for row in batch], device=model.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch], device=model.device)
        with torch.inference_mode():
            out = model.generate(
                ids, attention_mask=mask, max_new_tokens=MAX_TOKENS, eos_token_id=end_id, pad_token_id=end_id, **choice
            )
        for row in out[:, width:].tolist():
            said.append(row[: row.index(end_id) + 1] if end_id in row else row)
    return said


def _check(model: Any, tokenizer: Any, encoded: list[list[int]], end_id: int) -> None:
    ordered, template = sorted(encoded, key=len), ChatTemplate(tokenizer)
    ours = generate_ids(model, template, ordered, Sampling(1, 0.0, 1.0, MAX_TOKENS), [end_id])
    plain = _plain_ids(model, ordered, end_id, 1, 0, greedy=True)
    words = [template.text_of(ids) for ids in plain]
    assert [row[0].text for row in ours] == words, "the two sides answer differently"


def _lengthened(ids: list[int], tokens: int) -> list[int]:
    return ids[:1] + (ids[1:-1] * (tokens // max(1, len(ids) - 2) + 1))[: tokens - 2] + ids[-1:] if tokens > len(ids) else ids


if __name__ == "__main__":
    main()
