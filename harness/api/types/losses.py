"""The log-probabilities that an objective gets, and the loss that it returns.

Log-probabilities are sums over a response's tokens in nats, its end-of-turn token included, the prompt's tokens excluded.
Shapes: G groups (prompts) in a batch, M the most rejected responses of any group in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Logps:
    """Sequence log-probabilities of a batch of groups under one model.

    Attributes:
        chosen: [G], nats.
        rejected: [G, M], nats; anything where `mask` is False.
        chosen_tokens: [G], response tokens counted in `chosen`.
        rejected_tokens: [G, M].
        mask: [G, M], True where a rejected response exists.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    mask: Tensor


@dataclass(frozen=True)
class View:
    """The same responses under another prompt: policy (without gradient) and reference."""

    policy: Logps
    reference: Logps


@dataclass(frozen=True)
class Mismatched:
    """Responses under prompts that they do not answer, of the whole batch however it is cut; no gradient.

    Attributes:
        policy: [K], nats.
        reference: [K], nats.
    """

    policy: Tensor
    reference: Tensor


@dataclass(frozen=True)
class GroupLogps:
    """All an objective sees. `reference` and `mismatched` are None unless the objective needs them.

    Attributes:
        ranked: whether rejected responses are in order, best first; only an objective that `ranks_rejected` may care.
    """

    policy: Logps
    reference: Logps | None = None
    views: Mapping[str, View] = field(default_factory=dict)
    mismatched: Mismatched | None = None
    ranked: bool = True

    def pair_metrics(self, margin: Tensor) -> dict[str, Tensor]:
        """Return the metrics to log of any pairwise loss: `margin` [G, M], the share of pairs above 0, log-probabilities."""
        return {
            "margin": margin,
            "accuracy": (margin > 0).double(),
            "chosen_logp": self.policy.chosen,
            "rejected_logp": self.policy.rejected,
        }


@dataclass(frozen=True)
class Loss:
    """The loss of a micro-batch, and metrics to log.

    The trainer adds the mean of `per_pair` over all valid pairs of the batch and the mean of `per_group` over its groups
    (or over its chosen tokens, see `Objective.group_mean`), however the batch is cut into micro-batches.

    Attributes:
        per_pair: [G, M], or None.
        per_group: [G], or None.
        metrics: named [G] or [G, M] tensors, logged as means.
    """

    per_pair: Tensor | None = None
    per_group: Tensor | None = None
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
