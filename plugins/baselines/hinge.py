"""The hinge on DPO's margin."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from harness import GroupLogps, Loss, Objective, Paper, SearchSpace


class Hinge(Objective):
    """max(0, 1 − β(h⁺ − h⁻)), where h(y) = log π(y|x) − log π_ref(y|x).

    RSO's normalised form of SLiC's hinge, and what TRL calls `hinge`; SLiC-HF itself (`slic_hf`) has no reference.
    """

    name: ClassVar[str] = "hinge"
    paper: ClassVar[Paper | None] = Paper("Statistical Rejection Sampling Improves Preference Optimization", "2309.06657")

    beta: Annotated[
        float, SearchSpace(choices=(0.01, 0.05, 0.1), source="as DPO: the grid of arXiv 2405.14734, Appendix B")
    ] = Field(0.1, gt=0, description="1/β is the log-ratio at which a pair is left alone")

    def loss(self, batch: GroupLogps) -> Loss:
        assert batch.reference is not None
        chosen = batch.policy.chosen - batch.reference.chosen  # [G], nats
        rejected = batch.policy.rejected - batch.reference.rejected  # [G, M], nats
        margin = self.beta * (chosen[:, None] - rejected)
        return Loss(per_pair=(1 - margin).relu(), metrics=batch.pair_metrics(margin))
