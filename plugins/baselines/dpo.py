"""Direct preference optimisation."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from harness import GroupLogps, Loss, Objective, Paper, SearchSpace


class DPO(Objective):
    """−log σ(β(h⁺ − h⁻)), where h(y) = log π(y|x) − log π_ref(y|x); sums over tokens, not means.

    With `label_smoothing` ε: −(1 − ε) log σ(β(h⁺ − h⁻)) − ε log σ(−β(h⁺ − h⁻)).
    """

    name: ClassVar[str] = "dpo"
    paper: ClassVar[Paper | None] = Paper(
        "Direct Preference Optimization: Your Language Model is Secretly a Reward Model", "2305.18290", "Eq. 7"
    )

    beta: Annotated[float, SearchSpace(choices=(0.01, 0.05, 0.1), source="the grid of arXiv 2405.14734, Appendix B")] = Field(
        0.1, gt=0, description="strength of the pull towards the reference"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="assumed share of pairs labelled the wrong way round")

    def loss(self, batch: GroupLogps) -> Loss:
        from torch.nn.functional import logsigmoid

        assert batch.reference is not None
        chosen = batch.policy.chosen - batch.reference.chosen  # [G], nats
        rejected = batch.policy.rejected - batch.reference.rejected  # [G, M], nats
        margin = self.beta * (chosen[:, None] - rejected)
        kept, flipped = logsigmoid(margin), logsigmoid(-margin)
        per_pair = -(1 - self.label_smoothing) * kept - self.label_smoothing * flipped
        return Loss(per_pair=per_pair, metrics=batch.pair_metrics(margin))
