"""SimPO, Only-prompting's objective."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from harness import GroupLogps, Loss, Objective, Paper, SearchSpace


class SimPO(Objective):
    """−log σ(β(lp⁺/n⁺ − lp⁻/n⁻) − γ): mean log-probabilities per response token, no reference."""

    name: ClassVar[str] = "simpo"
    paper: ClassVar[Paper | None] = Paper(
        "SimPO: Simple Preference Optimization with a Reference-Free Reward", "2405.14734", "Eq. 6"
    )
    needs_reference: ClassVar[bool] = False

    beta: Annotated[float, SearchSpace(2.0, 10.0, source="the README of the authors' code")] = Field(
        2.0, gt=0, description="scale of the per-token rewards"
    )
    gamma: Annotated[
        float, SearchSpace(choices=(0.3, 0.5, 1.0, 1.2, 1.4, 1.6), source="the grid of arXiv 2405.14734, Appendix B")
    ] = Field(1.0, ge=0, description="γ itself, the target margin after β (other code asks for γ/β)")

    def loss(self, batch: GroupLogps) -> Loss:
        from torch.nn.functional import logsigmoid

        chosen = batch.policy.chosen / batch.policy.chosen_tokens  # [G], nats per token
        rejected = batch.policy.rejected / batch.policy.rejected_tokens  # [G, M]
        margin = self.beta * (chosen[:, None] - rejected) - self.gamma
        return Loss(per_pair=-logsigmoid(margin), metrics=batch.pair_metrics(margin))
