"""Length-regularised DPO."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from harness import GroupLogps, Loss, Objective, Paper, SearchSpace


class RDPO(Objective):
    """−log σ(β(h⁺ − h⁻) + α(n⁺ − n⁻)), n(y) the response's tokens: a longer chosen response is pushed less.

    The reward is penalised by α for each token, so that h has to explain only what length does not: a longer chosen response
    has part of its margin given, and σ(−margin), the weight of its gradient, falls. With the other sign, which is found in
    other descriptions of it, the loss would reward length.
    """

    name: ClassVar[str] = "rdpo"
    paper: ClassVar[Paper | None] = Paper("Disentangling Length from Quality in Direct Preference Optimization", "2403.19159")

    beta: Annotated[float, SearchSpace(choices=(0.01, 0.05, 0.1), source="the grid of arXiv 2405.14734, Appendix B")] = Field(
        0.1, gt=0, description="strength of the pull towards the reference"
    )
    alpha: Annotated[float, SearchSpace(0.001, 0.1, log=True, source="a decade below and above the default")] = Field(
        0.01, ge=0, description="α, penalty for each response token; 0 is DPO"
    )

    def loss(self, batch: GroupLogps) -> Loss:
        from torch.nn.functional import logsigmoid

        assert batch.reference is not None
        chosen = batch.policy.chosen - batch.reference.chosen  # [G], nats
        rejected = batch.policy.rejected - batch.reference.rejected  # [G, M], nats
        margin = self.beta * (chosen[:, None] - rejected)
        longer = batch.policy.chosen_tokens[:, None] - batch.policy.rejected_tokens  # [G, M], tokens
        # to(margin): a whole number times a float would be float32
        return Loss(per_pair=-logsigmoid(margin + self.alpha * longer.to(margin)), metrics=batch.pair_metrics(margin))
