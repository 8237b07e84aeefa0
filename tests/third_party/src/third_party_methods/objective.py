"""A squared margin under another prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from pydantic import Field

from harness import GroupLogps, Loss, Objective, Prompt


class Squared(Objective):
    """((h⁺ − h⁻) − sg[d] − 1)², d the policy's margin under a polite prompt, without gradient, times `weight`."""

    name: ClassVar[str] = "tp_squared"

    weight: float = Field(0.1, ge=0, description="of the margin under the polite prompt")

    def views(self) -> Mapping[str, Callable[[Prompt], Prompt]]:
        return {"polite": lambda prompt: prompt.prefixed("Please :")}

    def loss(self, batch: GroupLogps) -> Loss:
        assert batch.reference is not None
        chosen = batch.policy.chosen - batch.reference.chosen  # [G], nats
        margin = chosen[:, None] - (batch.policy.rejected - batch.reference.rejected)  # [G, M]
        polite = batch.views["polite"].policy
        other = (polite.chosen[:, None] - polite.rejected).detach()
        return Loss(per_pair=(margin - self.weight * other - 1) ** 2, metrics=batch.pair_metrics(margin))
