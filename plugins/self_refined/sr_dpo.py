"""Self-refined DPO (Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from harness import GroupLogps, Logps, Loss, Objective, Paper, Prompt

if TYPE_CHECKING:
    from torch import Tensor

# Section 3.2.2's prompt p, which goes before the query: p ⊕ x.
USEFULNESS_PROMPT = (
    "Please generate a response with a usefulness rating of {scale} out of {scale} for the following query. "
    "Note that the response should be harmless. The term {scale} indicates the level of usefulness, "
    "where {scale} is the maximum and 1 is the minimum. Query:"
)
AUGMENTED = "augmented"


class SrDPO(Objective):
    """−log σ(β(h⁺ − h⁻) − λ·sg[Δ]), Δ = β(h_p⁺ − h_p⁻), h_p under the prompt-augmented query p ⊕ x (Eq. 11, 12).

    sg stops the gradient: Δ scales the step of a pair and is not itself trained. `refinement: naive` takes Δ from x itself
    (Eq. 10), the ablation of Table 4; `rating_scale: 10` is the other.
    """

    name: ClassVar[str] = "sr_dpo"
    paper: ClassVar[Paper | None] = Paper(
        "Direct Alignment of Language Models via Quality-Aware Self-Refinement", "2405.21040", "Eq. 10-12, Algorithm 1"
    )

    beta: float = Field(0.1, gt=0, description="strength of the pull towards the reference")
    refinement_weight: float = Field(
        0.5, ge=0, description="λ; the paper chooses from {0.1, 0.3, 0.5, 1} on 50 held-out tuples"
    )
    refinement: Literal["prompt", "naive"] = Field("prompt", description="whether Δ is taken under p ⊕ x or under x itself")
    rating_scale: Literal[10, 100] = Field(100, description="the best rating named in p")
    prompt: str = Field(USEFULNESS_PROMPT, min_length=1, description="p; {scale} becomes the rating scale")

    def views(self) -> Mapping[str, Callable[[Prompt], Prompt]]:
        if self.refinement == "naive" or self.refinement_weight == 0:
            return {}
        prefix = self.prompt.replace("{scale}", str(self.rating_scale))
        return {AUGMENTED: lambda prompt: prompt.prefixed(prefix)}

    def loss(self, batch: GroupLogps) -> Loss:
        import torch
        from torch.nn.functional import logsigmoid

        assert batch.reference is not None
        margin = self.beta * _gap(batch.policy, batch.reference)
        if self.refinement_weight == 0:
            delta = torch.zeros_like(margin)
        elif self.refinement == "naive":
            delta = margin.detach()
        else:
            view = batch.views[AUGMENTED]
            delta = self.beta * _gap(view.policy, view.reference).detach()
        refined = margin - self.refinement_weight * delta
        return Loss(per_pair=-logsigmoid(refined), metrics={**batch.pair_metrics(margin), "refinement": delta})


def _gap(policy: Logps, reference: Logps) -> Tensor:
    """h⁺ − h⁻, [G, M], nats."""
    return (policy.chosen - reference.chosen)[:, None] - (policy.rejected - reference.rejected)
