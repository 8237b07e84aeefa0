"""Tokens a second of our transformers backend against transformers' `generate`, 32 samples of each of 8 prompts.

A model of 1.14 B parameters with weights in bfloat16, prompts of 146 tokens, 256 sequences side by side on both sides. *whole*:
all responses have the most tokens. *ending*: one token in 128 ends a response, so that lengths differ as real ones do. Medians
of three rounds, sides in turn. Before, the share of greedy tokens that are equal up to the first difference of a response: the
sides add in another order, and in bfloat16 that decides some ties.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness import Prompt

ROWS_PER_BATCH = 256


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from gpu.models import attempt

    sides = Sides(options)
    yield attempt({"setting": "greedy"}, lambda: sides.equality(8 if options.small else 64))
    settings = {
        "whole": (0, 8 if options.small else 96),
        "ending": (32 if options.small else 128, 16 if options.small else 192),
    }
    for name, (one_in, most) in settings.items():
        yield attempt({"setting": name}, lambda one_in=one_in, most=most: sides.measure(one_in, most))


class Sides:
    """Both ways to draw, of one model and the same prompts."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch

        from gpu.models import build
        from harness.models.tokenization import ChatTemplate

        self.options, self.n = options, 4 if options.small else 32
        self.model = build(options, 0).to(torch.bfloat16).eval()
        self.tokenizer = tokenizer(self.model.config.vocab_size)
        self.template = ChatTemplate(self.tokenizer)
        self.prompts = prompts(2 if options.small else 8, 10 if options.small else 142, self.model.config.vocab_size)
        self.encoded = [self.template.prompt_ids(prompt) for prompt in self.prompts]

    def measure(self, one_in: int, most: int) -> dict[str, Any]:
        """Args: one_in: of how many tokens one ends a response; 0: almost none. most: tokens of a response."""
        from gpu.machine import synchronize

        words = self.model.config.vocab_size
        ends = [self.template.end_id, *(range(16, words, one_in) if one_in else ())]
        self.model.generation_config.eos_token_id = ends
        sides: dict[str, Callable[[int, int], int]] = {"ours": self.ours, "generate": self.plain}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for draw in sides.values():
            draw(4, 0)
        for number in range(1 if self.options.small else 3):
            for name in sorted(sides, reverse=bool(number % 2)):
                synchronize(self.options.device)
                began = time.perf_counter()
                tokens = sides[name](most, number)
                synchronize(self.options.device)
                rates[name].append(tokens / (time.perf_counter() - began))
        return {f"{name}_per_second": median(values) for name, values in rates.items()}

    def ours(self, most: int, seed: int) -> int:
        from harness import Sampling, generate

        sampling = Sampling(self.n, 1.0, 1.0, most, seed)
        answers = generate(self.model, self.tokenizer, self.prompts, sampling, rows_per_batch=ROWS_PER_BATCH)
        return sum(response.tokens or 0 for row in answers for response in row)

    def plain(self, most: int, seed: int) -> int:
        import torch

        torch.manual_seed(seed)
        return sum(len(ids) for ids in self.plain_ids(self.n, most, do_sample=True, temperature=1.0, top_k=0, top_p=1.0))

    def plain_ids(self, n: int, most: int, **choice: Any) -> list[list[int]]:
        """Ids of `generate`, up to the one that ended each; all prompts have one length, so there is no padding."""
        import torch

        ids = torch.tensor(self.encoded, device=self.model.device).repeat_interleave(n, dim=0)
        ends = set(self.model.generation_config.eos_token_id)
        lists = []
        for batch in ids.split(ROWS_PER_BATCH):
            with torch.inference_mode():
                out = self.model.generate(
                    batch,
                    attention_mask=torch.ones_like(batch),
                    max_new_tokens=most,
                    pad_token_id=self.tokenizer.pad_token_id,
                    **choice,
                )
            for row in out[:, batch.shape[1] :].tolist():
                length = next((place + 1 for place, token in enumerate(row) if token in ends), len(row))
                lists.append(row[:length])
        return lists

    def equality(self, most: int) -> dict[str, Any]:
        from harness import Sampling, generate

        self.model.generation_config.eos_token_id = [self.template.end_id]
        answers = generate(self.model, self.tokenizer, self.prompts, Sampling(1, 0.0, 1.0, most, 0))
        ours = [list(row[0].ids or ()) for row in answers]
        theirs = self.plain_ids(1, most, do_sample=False)
        equal = [next((i for i, (a, b) in enumerate(zip(*pair)) if a != b), len(pair[1])) for pair in zip(ours, theirs)]  # noqa: B905
        return {"equal_share": sum(equal) / sum(map(len, theirs))}


def tokenizer(words: int) -> Any:
    """One token a word, `w17`, for every id of the model but the sandbox's special ones, with the sandbox's chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from harness.sandbox.tokenizer import ASSISTANT, BEGIN, CHAT_TEMPLATE, END, PADDING, SPECIAL, UNKNOWN, USER

    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *(f"w{index}" for index in range(len(SPECIAL), words))])}
    built = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    built.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=built,
        unk_token=UNKNOWN,
        pad_token=PADDING,
        bos_token=BEGIN,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def prompts(count: int, words: int, vocabulary: int) -> list[Prompt]:
    """Prompts of random words; the template adds four tokens."""
    from harness import Prompt

    rng = random.Random(0)
    texts = (" ".join(f"w{rng.randrange(16, vocabulary)}" for _ in range(words)) for _ in range(count))
    return [Prompt.of(str(number), text) for number, text in enumerate(texts)]


def report(rows: list[dict[str, Any]], machine: dict[str, Any]) -> list[str]:
    lines = []
    for row in rows:
        if "equal_share" in row:
            lines += [f"Greedy tokens that are equal up to the first difference of a response: {row['equal_share']:.1%}.", ""]
    lines += ["| setting | tokens a second, ours | `generate` | ours over it |", "|---|---|---|---|"]
    for row in rows:
        if "ours_per_second" in row:
            ours, plain = row["ours_per_second"], row["generate_per_second"]
            lines.append(f"| {row['setting']} | {ours:,.0f} | {plain:,.0f} | {ours / plain:.2f} |")
        elif "equal_share" not in row:
            lines.append(f"| {row['setting']} | {'out of memory' if row.get('out_of_memory') else 'failed'} | | |")
    return lines
