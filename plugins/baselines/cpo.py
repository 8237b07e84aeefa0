"""Contrastive preference optimisation."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from harness import GroupLogps, Loss, Objective, Paper, SearchSpace


class CPO(Objective):
    """−log σ(β(lp⁺ − lp⁻)) + α·NLL(y⁺): DPO under a uniform reference, plus the chosen response's likelihood.

    The first term takes sums. The NLL is averaged over the batch's chosen tokens (`group_mean`), as TRL's CPOTrainer does. The
    paper's L_NLL is −log π(y⁺|x), a sum over tokens: with n⁺ tokens, its α of 1 is n⁺ here, and the preference term weighs n⁺
    times more than the paper's equation says.
    """

    name: ClassVar[str] = "cpo"
    paper: ClassVar[Paper | None] = Paper(
        "Contrastive Preference Optimization: Pushing the Boundaries of LLM Performance in Machine Translation",
        "2401.08417",
        "Eq. 3",
    )
    needs_reference: ClassVar[bool] = False
    group_mean: ClassVar[Literal["groups", "tokens"]] = "tokens"

    beta: Annotated[float, SearchSpace(choices=(0.01, 0.05, 0.1), source="the grid of arXiv 2405.14734, Appendix B")] = Field(
        0.1, gt=0, description="scale of the log-likelihood margin"
    )
    alpha: float = Field(1.0, ge=0, description="α, weight of the chosen response's negative log-likelihood")

    def loss(self, batch: GroupLogps) -> Loss:
        from torch.nn.functional import logsigmoid

        policy = batch.policy
        margin = self.beta * (policy.chosen[:, None] - policy.rejected)  # [G, M]
        nll = -policy.chosen / policy.chosen_tokens  # [G], nats per token
        metrics = {**batch.pair_metrics(margin), "nll": nll}
        return Loss(per_pair=-logsigmoid(margin), per_group=self.alpha * nll, metrics=metrics)
