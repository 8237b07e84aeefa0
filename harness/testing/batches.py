"""Hand-made batches for objectives, and the changes that must not matter to them.

Shapes: G groups, M rejected responses at most; the mask is ragged, so that a loss that overlooks it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.api.interfaces import Objective
from harness.api.types import GroupLogps, Logps, Mismatched, View

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LONGEST = 24  # tokens of a response


def example_batch(objective: Objective, *, groups: int = 4, negatives: int = 3, seed: int = 0) -> GroupLogps:
    """A batch with all that `objective` asks for, in float64: group g has `negatives` − (g mod `negatives`) rejected responses.

    What it does not ask for is None, as in training. Slots without a response hold 0 nats and one token, as in training.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    there = [negatives - (group % max(negatives, 1)) for group in range(groups)]
    mask = torch.tensor([[slot < count for slot in range(negatives)] for count in there], dtype=torch.bool)
    mask = mask.reshape(groups, negatives)
    tokens = torch.randint(2, LONGEST, (groups, negatives + 1), generator=generator)

    def scored() -> Logps:
        per_token = 0.2 + 1.6 * torch.rand(tokens.shape, generator=generator, dtype=torch.float64)
        return shaped(-per_token * tokens, tokens, mask)

    policy, reference = scored(), scored() if objective.needs_reference else None
    views = {name: View(scored(), scored()) for name in objective.views()}
    mismatched = None
    if objective.needs_mismatched:
        pairs = [-30.0 * torch.rand(groups, generator=generator, dtype=torch.float64) for _ in range(2)]
        mismatched = Mismatched(*pairs)
    return GroupLogps(policy, reference, views, mismatched)


def shaped(logps: Tensor, tokens: Tensor, mask: Tensor) -> Logps:
    """[G, 1 + M], chosen first -> `Logps` whose empty slots hold 0 nats and one token."""
    return Logps(
        logps[:, 0].clone(),
        logps[:, 1:].masked_fill(~mask, 0.0),
        tokens[:, 0].clone(),
        tokens[:, 1:].masked_fill(~mask, 1),
        mask,
    )


def mapped(batch: GroupLogps, change: Callable[[Logps], Logps]) -> GroupLogps:
    """`change` applied to the policy, the reference and both sides of every view."""
    return replace(
        batch,
        policy=change(batch.policy),
        reference=None if batch.reference is None else change(batch.reference),
        views={name: View(change(view.policy), change(view.reference)) for name, view in batch.views.items()},
    )


def filled(batch: GroupLogps, nats: float, tokens: int) -> GroupLogps:
    """Other contents in the slots without a response."""
    return mapped(
        batch,
        lambda logps: replace(
            logps,
            rejected=logps.rejected.masked_fill(~logps.mask, nats),
            rejected_tokens=logps.rejected_tokens.masked_fill(~logps.mask, tokens),
        ),
    )


def widened(batch: GroupLogps) -> GroupLogps:
    """One more slot without a response: [G, M] -> [G, M + 1]."""

    def change(logps: Logps) -> Logps:
        import torch

        slot = torch.zeros_like(logps.rejected[:, :1] if logps.rejected.shape[1] else logps.chosen[:, None])
        return replace(
            logps,
            rejected=torch.cat([logps.rejected, slot], dim=1),
            rejected_tokens=torch.cat([logps.rejected_tokens, slot.to(logps.rejected_tokens.dtype) + 1], dim=1),
            mask=torch.cat([logps.mask, slot.bool()], dim=1),
        )

    return mapped(batch, change)


def reordered(batch: GroupLogps, order: Sequence[int]) -> GroupLogps:
    """The rejected responses of every group in another order."""
    columns = list(order)
    return mapped(
        batch,
        lambda logps: replace(
            logps,
            rejected=logps.rejected[:, columns],
            rejected_tokens=logps.rejected_tokens[:, columns],
            mask=logps.mask[:, columns],
        ),
    )


def taken(batch: GroupLogps, group: int) -> GroupLogps:
    """One group alone, as a micro-batch; the mismatched pairs stay those of the whole batch."""
    one = slice(group, group + 1)
    return mapped(
        batch,
        lambda logps: Logps(
            logps.chosen[one], logps.rejected[one], logps.chosen_tokens[one], logps.rejected_tokens[one], logps.mask[one]
        ),
    )


def scaled(batch: GroupLogps, factor: float) -> GroupLogps:
    """All log-probabilities times `factor`: near 0 for certain responses, far from it for impossible ones."""
    return mapped(batch, lambda logps: replace(logps, chosen=logps.chosen * factor, rejected=logps.rejected * factor))


def in_precision(batch: GroupLogps, dtype: torch.dtype) -> GroupLogps:
    """The policy in another precision, as a model gives it; what was stored stays in float64."""
    policy = replace(batch.policy, chosen=batch.policy.chosen.to(dtype), rejected=batch.policy.rejected.to(dtype))
    return replace(batch, policy=policy)
