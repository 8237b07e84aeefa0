"""Log-probabilities of responses: one function, with or without gradient.

Rows are laid out so that every response begins in the same column: prompts padded on the left, responses on the right. The
model then needs to compute logits for the response columns alone (`logits_to_keep`), for any architecture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.models.batched import computed, places_of, with_equal_rows

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedModel


LOGITS = 2**26  # elements of [tokens, vocabulary] that are made at once: 256 MiB of float32


@dataclass(frozen=True)
class TokenRow:
    """One sequence to score: the response's tokens given the prompt's."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return len(self.prompt) + len(self.response)


def unwrapped(model: Any) -> PreTrainedModel:
    """Return the model inside PEFT's wrapper; low-rank adapters are layers of that model, so a pass through it has them."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@dataclass(frozen=True)
class Head:
    """How a model's last hidden states become log-probabilities.

    Attributes:
        chunked: whether the output embedding alone gives the model's logits (it does not where a model scales or caps them
            afterwards); the vocabulary can then be worked on in chunks of rows, made again in backward.
        logits: elements of [tokens, vocabulary] above which that is done.
    """

    chunked: bool = False
    logits: int = LOGITS

    def chunks(self, model: PreTrainedModel, tokens: int) -> bool:
        """Whether the logits of so many tokens are made in chunks."""
        return self.chunked and tokens * vocabulary_size(model) > self.logits


def vocabulary_size(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config().vocab_size)


def response_logps(model: PreTrainedModel, rows: Sequence[TokenRow], head: Head | None = None) -> Tensor:
    """Return summed log-probabilities of the rows' responses, [N], nats, float64; differentiable in the model's weights.

    Token log-probabilities are computed in float32 (float64 for a float64 model) and summed in float64.
    """
    import torch

    from harness.models.vocabulary import TokenTargets, head_logps, token_logps

    model = unwrapped(model)

    width = max(len(row.prompt) for row in rows)
    length = max(len(row.response) for row in rows)
    ids = torch.zeros((len(rows), width + length), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, width - len(row.prompt) : width] = torch.tensor(row.prompt)
        ids[index, width : width + len(row.response)] = torch.tensor(row.response, dtype=torch.long)
        mask[index, width - len(row.prompt) : width + len(row.response)] = 1
    inputs = {
        "input_ids": ids.to(model.device),
        "attention_mask": mask.to(model.device),
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0).to(model.device),
        "use_cache": False,
    }
    # The logits are R + 1 columns of each of N sequences, since the column before a token predicts it.
    owners, columns = (mask[:, width:]).nonzero(as_tuple=True)  # both [L]
    targets = TokenTargets(owners * (length + 1) + columns, ids[owners, width + columns], owners, len(rows)).to(model.device)
    # With a large vocabulary the logits are the largest tensor of the step: the head is applied to chunks of hidden states.
    if head is not None and head.chunks(model, len(rows) * (length + 1)):
        hidden = model.base_model(**inputs).last_hidden_state[:, -length - 1 :].flatten(0, 1)
        return targets.sums(head_logps(model.get_output_embeddings(), hidden, targets))
    logits = model(**inputs, logits_to_keep=length + 1).logits.flatten(0, 1)
    return targets.sums(token_logps(logits, targets.rows, targets.labels))


def cut(rows: Sequence[TokenRow], tokens: int) -> Iterator[list[int]]:
    """Yield indices of rows in batches of at most `tokens` padded tokens (at least one row each), longest first."""
    # Longest first: similar lengths share a batch, and the batch that may run out of memory is the first one.
    order = sorted(range(len(rows)), key=lambda index: (-rows[index].tokens, index))
    batch: list[int] = []
    prompt = response = 0
    for index in order:
        wider = max(prompt, len(rows[index].prompt)), max(response, len(rows[index].response))
        # A batch is padded to its longest prompt and its longest response, which may be those of two rows.
        if batch and (len(batch) + 1) * sum(wider) > tokens:
            yield batch
            batch, wider = [], (len(rows[index].prompt), len(rows[index].response))
        batch.append(index)
        prompt, response = wider
    if batch:
        yield batch


@contextmanager
def exact_products() -> Iterator[None]:
    """Compute products of float32 numbers in float32 while the block runs: no autocast, no TF32, no bfloat16 in their place.

    TF32 keeps 10 binary digits of each factor, bfloat16 7. Either is more than a small update changes in a log-probability.
    """
    import torch

    matrices, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(matrices)
        torch.backends.cudnn.allow_tf32 = convolutions


class ScoredRows:
    """Log-probabilities of rows without gradient, nats, batch by batch (a `Batched`); equal rows are computed once.

    Args:
        tokens_per_batch: padded ones, at most.
    """

    def __init__(self, model: PreTrainedModel, rows: Sequence[TokenRow], tokens_per_batch: int = 8192) -> None:
        self.model, self.rows = model, rows
        self.tokens = min(tokens_per_batch, max(1, LOGITS // vocabulary_size(model)))

    def batches(self) -> list[list[int]]:
        places = places_of(self.rows)
        unique = [self.rows[first] for first, *_ in places.values()]
        return list(with_equal_rows(cut(unique, self.tokens), list(places.values())))

    def compute(self, batch: Sequence[int]) -> np.ndarray:
        import numpy as np
        import torch

        unique = list(dict.fromkeys(self.rows[place] for place in batch))
        with torch.inference_mode(), exact_products():
            values = dict(zip(unique, response_logps(self.model, unique).tolist(), strict=True))
        return np.array([values[self.rows[place]] for place in batch])


def score(model: PreTrainedModel, rows: Sequence[TokenRow], tokens_per_batch: int = 8192) -> list[float]:
    """Return log-probabilities without gradient, nats, in the rows' order; equal rows are computed once."""
    values: list[float] = computed(ScoredRows(model, rows, tokens_per_batch), len(rows)).tolist()
    return values
