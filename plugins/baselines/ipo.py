"""Identity preference optimisation."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from harness import GroupLogps, Loss, Objective, Paper, SearchSpace


class IPO(Objective):
    """((h⁺/n⁺ − h⁻/n⁻) − 1/(2β))², where h(y) = log π(y|x) − log π_ref(y|x); `normalize: sum` leaves the divisions out.

    The paper calls β τ and writes sums (Eq. 17). TRL divides by the response's tokens and says that the paper's authors
    confirmed it; that is the default here. h holds policy and reference, so both are averaged or neither is.
    """

    name: ClassVar[str] = "ipo"
    paper: ClassVar[Paper | None] = Paper(
        "A General Theoretical Paradigm to Understand Learning from Human Preferences", "2310.12036", "Eq. 17"
    )

    beta: Annotated[float, SearchSpace(choices=(0.01, 0.1, 0.5, 1.0), source="the grid of arXiv 2405.14734, Appendix B")] = (
        Field(0.1, gt=0, description="τ of the paper: the margin aimed at is 1/(2β)")
    )
    normalize: Literal["token", "sum"] = Field("token", description="log-ratios per response token, or summed over them")

    def loss(self, batch: GroupLogps) -> Loss:
        assert batch.reference is not None
        chosen = batch.policy.chosen - batch.reference.chosen  # [G], nats
        rejected = batch.policy.rejected - batch.reference.rejected  # [G, M], nats
        if self.normalize == "token":
            chosen, rejected = chosen / batch.policy.chosen_tokens, rejected / batch.policy.rejected_tokens
        margin = chosen[:, None] - rejected
        return Loss(per_pair=(margin - 1 / (2 * self.beta)) ** 2, metrics=batch.pair_metrics(margin))
