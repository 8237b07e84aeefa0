"""Sequence likelihood calibration with human feedback."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from harness import GroupLogps, Loss, Objective, Paper, SearchSpace


class SLiCHF(Objective):
    """max(0, δ − lp⁺ + lp⁻) + λ·NLL(y⁺): sums of log-probabilities, no reference model.

    The paper regularises towards the SFT target y_ref, which a group does not hold; the chosen response takes its place (with
    builders whose chosen response is the target, it is the same). NLL is −lp⁺/n⁺ of each response, averaged over groups. The
    paper's regulariser is −λ·log P(y_ref|x), a sum over tokens: its λ is λ·n here, n the response's tokens.
    """

    name: ClassVar[str] = "slic_hf"
    paper: ClassVar[Paper | None] = Paper("SLiC-HF: Sequence Likelihood Calibration with Human Feedback", "2305.10425")
    needs_reference: ClassVar[bool] = False

    delta: Annotated[float, SearchSpace(choices=(0.1, 0.5, 1.0, 2.0), source="the grid of arXiv 2405.14734, Appendix B")] = (
        Field(1.0, gt=0, description="δ, the margin at which a pair is left alone, nats")
    )
    regularization: Annotated[
        float, SearchSpace(choices=(0.1, 0.5, 1.0, 10.0), source="the grid of arXiv 2405.14734, Appendix B")
    ] = Field(0.1, ge=0, description="λ, weight of the chosen response's negative log-likelihood")

    def loss(self, batch: GroupLogps) -> Loss:
        margin = batch.policy.chosen[:, None] - batch.policy.rejected  # [G, M], nats
        nll = -batch.policy.chosen / batch.policy.chosen_tokens  # [G], nats per token
        metrics = {**batch.pair_metrics(margin), "nll": nll}
        return Loss(per_pair=(self.delta - margin).relu(), per_group=self.regularization * nll, metrics=metrics)
