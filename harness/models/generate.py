"""Sampling from a policy with a key-value cache: the prompt once for n samples, finished rows dropped as they end.

Reproducible: the same model, prompts and `Sampling` give the same responses on the same machine with one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from harness.api.interfaces import Chunks
from harness.api.types import Prompt, Response, Sampling
from harness.extras import require
from harness.models.load import model_eos
from harness.models.random_numbers import ByBatch, ByResponse, RandomNumbers, Uniform
from harness.models.tokenization import ChatTemplate

if TYPE_CHECKING:
    from torch import Generator, Tensor, device
    from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

Report = Callable[[int, int], None]
NOTHING = -1  # no token was said here
DROP_SHARE = 0.15  # ended rows are dropped from the cache together, once they are this share of it: each drop copies it


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    rows_per_batch: int = 256,
    random: RandomNumbers = "by_batch",
    report: Report | None = None,
    chunks: Chunks | None = None,
) -> list[list[Response]]:
    """Return `sampling.n` responses per prompt, with the ids they were sampled as.

    A response ends at any token of `ChatTemplate.stop_ids`: the template's, and those of the model's generation configuration.

    Args:
        prompts: answered in batches of like length; the order of the result is theirs.
        sampling: greedy where `temperature` is 0.
        rows_per_batch: how many sequences are decoded side by side.
        random: by_response: a response depends on its prompt's place in `prompts`, and on no other response.
        report: called with (responses done, responses in all).
        chunks: goes on from these, to the same responses; a chunk is one batch or several.

    Raises:
        MissingExtraError: torch is not installed.
    """
    require("torch", "transformers")
    template = ChatTemplate(tokenizer)
    encoded = [template.prompt_ids(prompt) for prompt in prompts]
    ends = template.stop_ids(model_eos(model))
    return generate_ids(
        model, template, encoded, sampling, ends, rows_per_batch=rows_per_batch, random=random, report=report, chunks=chunks
    )


def generate_ids(
    model: PreTrainedModel,
    template: ChatTemplate,
    encoded: Sequence[list[int]],
    sampling: Sampling,
    end_ids: Sequence[int],
    *,
    rows_per_batch: int = 256,
    random: RandomNumbers = "by_batch",
    report: Report | None = None,
    chunks: Chunks | None = None,
) -> list[list[Response]]:
    """Do as `generate` does, for prompts that are tokens already; each of `end_ids` ends a turn."""
    import torch

    answers = {} if chunks is None else dict(chunks.responses)
    stream = _generator(model.device, sampling.seed, b"" if chunks is None else chunks.state) if random == "by_batch" else None
    with torch.inference_mode():
        for batch in prompt_batches(encoded, sampling.n, rows_per_batch):
            if answers.keys() >= set(batch):
                continue  # an earlier process did it, and `stream` is as it was after it
            uniform = ByBatch(stream) if stream else ByResponse(sampling.seed, batch, sampling.n, model.device)
            sequences = _decode_batch(model, [encoded[place] for place in batch], sampling, end_ids, uniform)
            sampled = iter(template.sampled(ids, finished) for ids, finished in sequences)
            fresh = {place: list(islice(sampled, sampling.n)) for place in batch}
            answers |= fresh
            if chunks is not None:
                chunks.add(fresh, stream.get_state().numpy().tobytes() if stream else b"")
            if report is not None:
                report(len(answers) * sampling.n, len(encoded) * sampling.n)
    return [answers[place] for place in range(len(encoded))]


def prompt_batches(encoded: Sequence[list[int]], n: int, rows_per_batch: int) -> list[list[int]]:
    """Return the places of prompts in batches of similar length, so that little is padding.

    Args:
        n: samples of each prompt; a batch has them all.
    """
    size = max(1, rows_per_batch // n)
    order = sorted(range(len(encoded)), key=lambda place: (len(encoded[place]), place))
    return [order[start : start + size] for start in range(0, len(order), size)]


def _generator(device: device, seed: int, state: bytes) -> Generator:
    """Return random numbers from their beginning, or from a kept state."""
    import torch

    random = torch.Generator(device=device).manual_seed(seed)
    if state:
        random.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
    return random


def _decode_batch(
    model: PreTrainedModel, prompts: list[list[int]], sampling: Sampling, end_ids: Sequence[int], uniform: Uniform
) -> list[tuple[list[int], bool]]:
    """Return n samples of each prompt, next to each other: their ids with the one that ended it, and whether it ended."""
    import torch

    rows = _Rows.of(model, prompts, sampling.n)
    ends = torch.tensor(list(end_ids), device=model.device)
    count = len(rows.origin)
    tokens = torch.full((count, sampling.max_tokens), NOTHING, dtype=torch.long, device=model.device)
    finished = torch.zeros(count, dtype=torch.bool, device=model.device)
    for step in range(sampling.max_tokens):
        token = _choose(rows.logits, sampling, partial(uniform.draw, step, rows.origin))
        tokens[rows.origin, step] = torch.where(rows.live, token, NOTHING)
        ended = rows.live & torch.isin(token, ends)
        finished[rows.origin] |= ended
        rows.live = rows.live & ~ended
        if step + 1 == sampling.max_tokens:
            break
        live = int(rows.live.sum())  # the one number of a step that the device is waited for
        if not live:
            break
        # Copying the cache costs as much as a step or more, so ended rows ride along until enough of them can go at once.
        if live / len(rows.live) < 1 - DROP_SHARE:
            token = rows.drop(token)
        rows.advance(model, token)
    ids = [[token for token in row if token != NOTHING] for row in tokens.tolist()]
    return list(zip(ids, finished.tolist(), strict=True))


@dataclass
class _Rows:
    """Sequences being decoded side by side.

    Attributes:
        logits: of the next token, [rows, V].
        mask: [rows, tokens so far], 0 on left padding.
        positions: of the next token, [rows].
        origin: which sequence of the batch a row is, [rows].
        live: False for rows that ended and wait to be dropped, [rows].
    """

    logits: Tensor
    cache: Cache
    mask: Tensor
    positions: Tensor
    origin: Tensor
    live: Tensor

    @classmethod
    def of(cls, model: PreTrainedModel, prompts: list[list[int]], n: int) -> _Rows:
        """Read the prompts, padded on the left, once; then n rows of each."""
        import torch

        from harness.models.cache import make_room

        width = max(len(ids) for ids in prompts)
        ids = torch.zeros((len(prompts), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        ids, mask = ids.to(model.device), mask.to(model.device)
        # A position counts the tokens before it without padding; padding itself is masked, and 0 only keeps it in range.
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        output = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1)
        # The prompt was read once for all its samples: each of them continues from a copy of the same cache.
        if n > 1:
            output.past_key_values.batch_repeat_interleave(n)
        make_room(output.past_key_values)
        mask = mask.repeat_interleave(n, dim=0)
        origin = torch.arange(len(mask), device=model.device)
        logits = output.logits[:, -1].repeat_interleave(n, dim=0)
        return cls(logits, output.past_key_values, mask, mask.sum(1), origin, torch.ones_like(origin, dtype=torch.bool))

    def drop(self, token: Tensor) -> Tensor:
        """Drop the rows that ended; return `token` without theirs."""
        live = self.live
        self.cache.batch_select_indices(live.nonzero(as_tuple=True)[0])
        self.mask, self.positions, self.origin = self.mask[live], self.positions[live], self.origin[live]
        self.live = live[live]
        return token[live]

    def advance(self, model: PreTrainedModel, token: Tensor) -> None:
        """Read one more token of each row."""
        import torch

        self.mask = torch.cat([self.mask, self.mask.new_ones((len(self.mask), 1))], dim=1)
        self.logits = model(
            input_ids=token[:, None],
            attention_mask=self.mask,
            position_ids=self.positions[:, None],
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]
        self.positions = self.positions + 1


def _choose(logits: Tensor, sampling: Sampling, uniform: Callable[[], Tensor]) -> Tensor:
    """Return the next token of each row, [rows].

    Args:
        uniform: gives a number from [0, 1) for each row, [rows, 1]; not asked where decoding is greedy.
    """
    import torch

    if sampling.temperature == 0:
        return logits.argmax(-1)
    # In place where that gives the same numbers: [rows, V] in float64 is large, and new memory for it is slow.
    scaled = logits.double()
    if sampling.temperature != 1:
        scaled = scaled.div_(sampling.temperature) if scaled is not logits else scaled / sampling.temperature
    probabilities = torch.softmax(scaled, dim=-1)
    if sampling.top_p < 1.0:
        ordered, indices = probabilities.sort(dim=-1, descending=True)
        # The mass before a token, without its own: the token that crosses top_p stays, so at least one always does.
        outside = ordered.cumsum(-1) - ordered >= sampling.top_p
        probabilities = probabilities.scatter(-1, indices, ordered.masked_fill(outside, 0.0))
    # By the inverse of the distribution function, in float64; `right` skips tokens of probability 0.
    below = probabilities.cumsum_(-1)
    return torch.searchsorted(below, uniform() * below[:, -1:], right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


def block_sampling(sampling: Sampling, start: int, size: int) -> Sampling:
    """Return the sampling of samples `start` to `start + size` of each prompt: its own seed, so that 64 samples reuse 32."""
    return replace(sampling, n=size, seed=(sampling.seed * 1_000_003 + start) % 2**63)


def blocks(n: int) -> list[tuple[int, int]]:
    """Return (start, size) of blocks that double: 1, 1, 2, 4, …; requests for n samples share their beginning with others."""
    cuts, start, size = [], 0, 1
    while start < n:
        cuts.append((start, size))
        start, size = start + size, max(1, start + size)
    return cuts
