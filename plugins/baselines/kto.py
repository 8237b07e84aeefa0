"""Kahneman-Tversky optimisation."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from harness import GroupLogps, Loss, Objective, Paper, SearchSpace


class KTO(Objective):
    """½λ_D(1 − σ(β(h⁺ − z₀))) + ½λ_U(1 − σ(β(z₀ − h⁻))), z₀ = max(0, mean h(y′) under prompts y′ does not answer).

    z₀ estimates the policy's divergence from the reference and gets no gradient. The paper's loss is a mean over responses;
    the halves make the mean over pairs equal to it, with one negative to a prompt. With m, the chosen response weighs as much
    as the m rejected ones together, in z₀ too, as in the m pairs that they stand for.
    """

    name: ClassVar[str] = "kto"
    paper: ClassVar[Paper | None] = Paper("KTO: Model Alignment as Prospect Theoretic Optimization", "2402.01306", "Eq. 7")
    needs_mismatched: ClassVar[bool] = True

    beta: Annotated[float, SearchSpace(choices=(0.01, 0.05, 0.1), source="the grid of arXiv 2405.14734, Appendix B")] = Field(
        0.1, gt=0, description="strength of the pull towards the reference; the paper's risk aversion"
    )
    desirable_weight: float = Field(1.0, ge=0, description="λ_D, weight of the chosen responses")
    undesirable_weight: float = Field(1.0, ge=0, description="λ_U, weight of the rejected responses")

    def loss(self, batch: GroupLogps) -> Loss:
        assert batch.reference is not None and batch.mismatched is not None
        chosen = batch.policy.chosen - batch.reference.chosen  # [G], nats
        rejected = batch.policy.rejected - batch.reference.rejected  # [G, M], nats
        z0 = (batch.mismatched.policy - batch.mismatched.reference).mean().clamp(min=0).detach()
        # 1 − σ(x) = σ(−x)
        desirable = self.desirable_weight * (self.beta * (z0 - chosen)).sigmoid()
        undesirable = self.undesirable_weight * (self.beta * (rejected - z0)).sigmoid()
        metrics = {**batch.pair_metrics(self.beta * (chosen[:, None] - rejected)), "z0": z0.expand_as(chosen)}
        return Loss(per_pair=(desirable[:, None] + undesirable) / 2, metrics=metrics)
