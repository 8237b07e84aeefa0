"""Sampling from a policy with a key-value cache: the prompt once for n samples, finished rows dropped as they end.

Reproducible: the same model, prompts and `Sampling` give the same responses on the same machine with one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.models.prompts import ChatTemplate
from harness.types import Prompt, Response, Sampling

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Report = Callable[[int, int], None]


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    rows_per_batch: int = 256,
    report: Report | None = None,
) -> list[list[Response]]:
    """`sampling.n` responses per prompt.

    Args:
        prompts: answered in batches of like length; the order of the result is theirs.
        sampling: greedy where `temperature` is 0.
        rows_per_batch: how many sequences are decoded side by side.
        report: called with (responses done, responses in all).
    """
    import torch

    template = ChatTemplate(tokenizer)
    encoded = [template.prompt_ids(prompt) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda index: (len(encoded[index]), index))
    per_batch = max(1, rows_per_batch // sampling.n)
    answers: list[list[Response]] = [[] for _ in prompts]
    random = torch.Generator(device=model.device).manual_seed(sampling.seed)
    with torch.inference_mode():
        for start in range(0, len(order), per_batch):
            chosen = order[start : start + per_batch]
            sequences = _decode_batch(model, [encoded[index] for index in chosen], sampling, template.end_id, random)
            texts = tokenizer.batch_decode([ids for ids, _ in sequences], skip_special_tokens=True)
            for row, (text, (ids, finished)) in enumerate(zip(texts, sequences, strict=True)):
                answers[chosen[row // sampling.n]].append(Response(text.strip(), finished, len(ids) + finished))
            if report is not None:
                report(min(len(order), start + per_batch) * sampling.n, len(order) * sampling.n)
    return answers


def _decode_batch(
    model: PreTrainedModel, prompts: list[list[int]], sampling: Sampling, end_id: int, random: Generator
) -> list[tuple[list[int], bool]]:
    """(ids without the end, whether it ended) for n samples of each prompt, a prompt's samples next to each other."""
    import torch

    width = max(len(ids) for ids in prompts)
    ids = torch.zeros((len(prompts), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        use_cache=True,
        logits_to_keep=1,
    )
    cache = output.past_key_values
    if sampling.n > 1:
        cache.batch_repeat_interleave(sampling.n)
    logits = output.logits[:, -1].repeat_interleave(sampling.n, dim=0)  # [rows, V]
    mask = mask.repeat_interleave(sampling.n, dim=0)
    positions = mask.sum(1)
    alive = torch.arange(len(logits), device=model.device)
    said = torch.full((len(logits), sampling.max_tokens), -1, dtype=torch.long, device=model.device)
    finished = torch.zeros(len(logits), dtype=torch.bool, device=model.device)
    for step in range(sampling.max_tokens):
        token = _choose(logits, sampling, random)
        ended = token == end_id
        finished[alive[ended]] = True
        keep = ~ended
        said[alive[keep], step] = token[keep]
        if step + 1 == sampling.max_tokens or not bool(keep.any()):
            break
        if bool(ended.any()):
            cache.batch_select_indices(keep.nonzero(as_tuple=True)[0])
            alive, token, mask, positions = alive[keep], token[keep], mask[keep], positions[keep]
        mask = torch.cat([mask, mask.new_ones((len(mask), 1))], dim=1)
        logits = model(
            input_ids=token[:, None],
            attention_mask=mask,
            position_ids=positions[:, None],
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
        positions = positions + 1
    rows = [[token for token in row if token >= 0] for row in said.tolist()]
    return list(zip(rows, finished.tolist(), strict=True))


def _choose(logits: Tensor, sampling: Sampling, random: Generator) -> Tensor:
    """The next token of each row, [rows]."""
    import torch

    if sampling.temperature == 0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits.float() / sampling.temperature, dim=-1)
    if sampling.top_p < 1.0:
        ordered, indices = probabilities.sort(dim=-1, descending=True)
        outside = ordered.cumsum(-1) - ordered >= sampling.top_p
        probabilities = probabilities.scatter(-1, indices, ordered.masked_fill(outside, 0.0))
    return torch.multinomial(probabilities, 1, generator=random)[:, 0]


def block_sampling(sampling: Sampling, start: int, size: int) -> Sampling:
    """The sampling of samples `start` to `start + size` of each prompt: its own seed, so that 64 samples reuse 32."""
    return replace(sampling, n=size, seed=(sampling.seed * 1_000_003 + start) % 2**63)


def blocks(n: int) -> list[tuple[int, int]]:
    """(start, size) of blocks that double: 1, 1, 2, 4, 8, …; every request for n samples shares its beginning with others."""
    cuts, start, size = [], 0, 1
    while start < n:
        cuts.append((start, size))
        start, size = start + size, max(1, start + size)
    return cuts
