"""Reduce a micro-batch's losses to its share of the whole batch's mean, so that the cut into micro-batches changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.api.interfaces import Objective
from harness.api.types import GroupLogps, Loss
from harness.training.batch import TokenGroup

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Totals:
    """The sizes of a whole batch: the denominators of its loss."""

    pairs: int
    groups: int
    chosen_tokens: int

    @classmethod
    def of(cls, groups: Sequence[TokenGroup]) -> Totals:
        return cls(sum(group.pairs for group in groups), len(groups), sum(len(group.responses[0]) for group in groups))


def reduce_loss(loss: Loss, batch: GroupLogps, objective: Objective, totals: Totals) -> Tensor:
    """Return a micro-batch's share of the batch's loss, a scalar; the shares of all micro-batches add up to the batch's mean.

    Args:
        loss: per valid pair, [G, M], or per group, [G], or both.
        totals: of the whole batch, over all micro-batches and processes.
    """
    # Divided by the whole batch's totals and not by the micro-batch's own: a mean of the micro-batches' means would weight a
    # pair in a small micro-batch more than one in a large micro-batch, and depend on the cut.
    value = batch.policy.chosen.new_zeros(())
    if loss.per_pair is not None and totals.pairs:
        value = value + loss.per_pair.masked_fill(~batch.policy.mask, 0.0).sum() / totals.pairs
    if loss.per_group is not None:
        if objective.group_mean == "tokens":
            value = value + (loss.per_group * batch.policy.chosen_tokens).sum() / totals.chosen_tokens
        else:
            value = value + loss.per_group.sum() / totals.groups
    return value


class MetricMeans:
    """Means of the objective's metrics over a whole batch's groups and valid pairs, however it is cut."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, loss: Loss, batch: GroupLogps) -> None:
        """Take in a micro-batch."""
        for name, values in loss.metrics.items():
            kept = values[batch.policy.mask] if values.dim() == 2 else values
            self._sums[name] = self._sums.get(name, 0.0) + float(kept.detach().double().sum())
            self._counts[name] = self._counts.get(name, 0) + kept.numel()

    def merge(self, other: MetricMeans) -> None:
        """Take in the sums of another process."""
        for name, total in other._sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + total
            self._counts[name] = self._counts.get(name, 0) + other._counts[name]

    def values(self) -> dict[str, float]:
        """Return the means by name; none of a metric without values."""
        return {name: total / self._counts[name] for name, total in self._sums.items() if self._counts[name]}
