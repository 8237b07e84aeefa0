"""Log-probabilities of tokens from logits, keeping as little of [tokens, vocabulary] as can be.

Imports torch; import it where numbers are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK = 2**24  # elements of [tokens, vocabulary] worked on at a time: 64 MiB of float32


@dataclass(frozen=True)
class TokenTargets:
    """The tokens to score, and where their logits are.

    Attributes:
        rows: the row of logits that predicts each token, [L]; one row may predict several tokens.
        labels: the tokens, [L].
        owners: the response that each token belongs to, [L].
        responses: how many responses there are; one may own no token.
    """

    rows: Tensor
    labels: Tensor
    owners: Tensor
    responses: int

    def to(self, device: torch.device) -> TokenTargets:
        return TokenTargets(self.rows.to(device), self.labels.to(device), self.owners.to(device), self.responses)

    def sums(self, token_logps: Tensor) -> Tensor:
        """Sum token values by response, [L] -> [responses], in float64."""
        zeros = torch.zeros(self.responses, dtype=torch.float64, device=token_logps.device)
        return zeros.index_add(0, self.owners, token_logps.double())


class _TokenLogps(torch.autograd.Function):
    """log softmax(logits)[rows, labels]: the softmax is made again in backward, a chunk at a time, and never kept.

    Shapes: logits [K, V], rows and labels [L] -> [L], in float32 or the logits' own type if that is wider.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        wide = torch.promote_types(logits.dtype, torch.float32)
        totals = [torch.logsumexp(logits[part].to(wide), 1) for part in _parts(len(logits), logits.shape[1])]
        normaliser = torch.cat(totals) if totals else logits.new_zeros(0, dtype=wide)
        ctx.save_for_backward(logits, rows, labels, normaliser)
        return logits[rows, labels].to(wide) - normaliser[rows]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        logits, rows, labels, normaliser = ctx.saved_tensors
        (given,) = gradients
        # d logp[l] / d logits[k] = onehot(label) − softmax(logits[k]). A row that predicts several tokens (a prefix shared by
        # responses) collects all of their gradients before its softmax, which is then made once.
        weights = torch.zeros_like(normaliser).index_add_(0, rows, given)  # [K]
        result = torch.empty_like(logits, memory_format=torch.contiguous_format)
        for part in _parts(len(logits), logits.shape[1]):
            softmax = (logits[part].to(normaliser.dtype) - normaliser[part, None]).exp_()
            result[part] = softmax.mul_(-weights[part, None])
        result.view(-1).index_add_(0, rows * logits.shape[1] + labels, given.to(result.dtype))
        return result, None, None


def token_logps(logits: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
    """Return log softmax(logits)[rows, labels]; logits [K, V], rows and labels [L] -> [L], float32 or wider."""
    return _TokenLogps.apply(logits, rows, labels)  # type: ignore[no-any-return, no-untyped-call]


def head_logps(head: Callable[[Tensor], Tensor], hidden: Tensor, targets: TokenTargets) -> Tensor:
    """Return token log-probabilities [L] from last hidden states [K, H]; logits exist for one chunk of rows at a time.

    Backward computes each chunk's logits again. `targets.rows` must not decrease.
    """
    size = max(1, CHUNK // int(getattr(head, "out_features", CHUNK)))
    # Targets are sorted by row, so those of a chunk of rows are one slice; its ends are found for all chunks at once.
    bounds = torch.searchsorted(targets.rows.contiguous(), torch.arange(0, len(hidden) + size, size, device=hidden.device))
    edges = bounds.tolist()

    def part_logps(states: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        return token_logps(head(states), rows, labels)

    values = []
    for number, start in enumerate(range(0, len(hidden), size)):
        chosen = slice(edges[number], edges[number + 1])
        arguments = (hidden[start : start + size], targets.rows[chosen] - start, targets.labels[chosen])
        if torch.is_grad_enabled():
            # Keep the hidden states alone, and make the chunk's logits again in backward.
            values.append(checkpoint(part_logps, *arguments, use_reentrant=False, preserve_rng_state=False))
        else:
            values.append(part_logps(*arguments))
    return torch.cat(values)


def _parts(rows: int, columns: int) -> Iterator[slice]:
    size = max(1, CHUNK // max(1, columns))
    for start in range(0, rows, size):
        yield slice(start, min(rows, start + size))
