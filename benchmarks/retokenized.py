"""How often a model's own samples, tokenized again from their text, are other ids than were sampled, and what that changes.

    python benchmarks/retokenized.py --model FOLDER --data hh-rlhf.jsonl.gz    # 64 prompts, 2 samples of at most 48 tokens
    python benchmarks/retokenized.py --model FOLDER --data FILE --prompts 16 --samples 4 --out results.json

Prompts are HH-RLHF's in Anthropic's format, the first of its `train` split that are short enough. Samples are drawn at
temperature 1. Each is scored twice by the model that drew it: by the ids it was sampled as, and by the ids of its text in its
place in the rendered dialogue. Differences are told apart: the text alone cannot give back special tokens and the white space
around an answer, and a tokenizer that reads a text may cut it otherwise than the model did.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from harness.api.types import Prompt, Response, Sampling
from harness.models.generate import generate
from harness.models.load import load
from harness.models.logps import TokenRow, score
from harness.models.tokenization import ChatTemplate
from harness_plugins.sources.hh_rlhf import HHRLHF


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, required=True, help="a checkpoint folder")
    options.add_argument("--data", type=Path, required=True, help="a file in HH-RLHF's format")
    options.add_argument("--prompts", type=int, default=64)
    options.add_argument("--longest", type=int, default=256, help="tokens of a prompt")
    options.add_argument("--samples", type=int, default=2)
    options.add_argument("--tokens", type=int, default=48, help="of a sample, at most")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load(given.model)
    template = ChatTemplate(tokenizer)
    rows = HHRLHF(path=str(given.data)).load()["train"]
    short = (row.prompt for row in rows if len(template.prompt_ids(row.prompt)) <= given.longest)
    prompts = [prompt for prompt, _ in zip(short, range(given.prompts), strict=False)]
    sampling = Sampling(given.samples, 1.0, 1.0, given.tokens, given.seed)
    result = {**compare(model, template, prompts, sampling), "prompts": len(prompts), "samples_per_prompt": given.samples}
    print(json.dumps(result, indent=1, ensure_ascii=False))
    if given.out:
        given.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def compare(model: Any, template: ChatTemplate, prompts: Sequence[Prompt], sampling: Sampling) -> dict[str, Any]:
    """Return how many samples differ when they are tokenized again, why, and by how much their log-probabilities do."""
    drawn = [
        (prompt, response)
        for prompt, row in zip(prompts, generate(model, template.tokenizer, prompts, sampling, rows_per_batch=32), strict=True)
        for response in row
    ]
    kinds: Counter[str] = Counter()
    pairs, examples = [], []
    for prompt, response in drawn:
        again = template.response_ids(prompt, replace(response, ids=None))
        sampled = list(response.ids or ())
        kind = difference(template, response, again)
        kinds[kind] += 1
        if again != sampled:
            pairs.append((prompt, sampled, again))
            examples.append(_example(template, kind, sampled, again))
    values = (
        [score(model, [_row(template, prompt, pair[side]) for prompt, *pair in pairs]) for side in (0, 1)]
        if pairs
        else [[], []]
    )
    gaps = [after - before for before, after in zip(*values, strict=True)]
    tokens = sum(len(response.ids or ()) for _, response in drawn)
    return {
        "samples": len(drawn),
        "tokens": tokens,
        "finished": sum(response.finished for _, response in drawn),
        "differ": len(pairs),
        "share": round(len(pairs) / len(drawn), 4),
        "kinds": dict(kinds),
        "nats_of_those": {
            "mean": round(fmean(gaps), 3),
            "sd": round(stdev(gaps), 3) if len(gaps) > 1 else None,
            "mean_absolute": round(fmean(map(abs, gaps)), 3),
            "lowest": round(min(gaps), 3),
            "highest": round(max(gaps), 3),
            "tokens_fewer": round(fmean(len(before) - len(after) for _, before, after in pairs), 3),
        }
        if gaps
        else None,
        "examples": examples[:6],
    }


def difference(template: ChatTemplate, response: Response, again: Sequence[int]) -> str:
    """Return why tokenizing a sample's text again gives other ids, in one word or two."""
    sampled = list(response.ids or ())
    if sampled == list(again):
        return "none"
    words = sampled[:-1] if response.finished else sampled
    whole = template.tokenizer.decode(words, skip_special_tokens=False)
    if response.finished and sampled[-1] != template.end_id and words == list(again)[:-1]:
        return "another end token"
    if whole != template.tokenizer.decode(words, skip_special_tokens=True):
        return "special tokens"
    if "\ufffd" in response.text:
        return "half a character"
    return "other cuts" if whole == response.text else "white space around it"


def _example(template: ChatTemplate, kind: str, sampled: Sequence[int], again: Sequence[int]) -> dict[str, Any]:
    """The tokens from the first that differs, three of each side."""
    shorter = min(len(sampled), len(again))
    first = next((place for place in range(shorter) if sampled[place] != again[place]), shorter)
    decode = template.tokenizer.decode
    return {
        "kind": kind,
        **{n: [decode([t]) for t in ids[first : first + 3]] for n, ids in (("sampled", sampled), ("again", again))},
    }


def _row(template: ChatTemplate, prompt: Prompt, ids: Sequence[int]) -> TokenRow:
    return TokenRow(tuple(template.prompt_ids(prompt)), tuple(ids))


if __name__ == "__main__":
    main()
