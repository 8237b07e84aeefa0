"""The prompt p, the augmented view and the refinement Δ of Sr-DPO and Sr-IPO (Section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from harness import GroupLogps, Logps, Objective, Prompt, SearchSpace

if TYPE_CHECKING:
    from torch import Tensor

# Section 3.2.2's prompt p, which goes before the query: p ⊕ x.
USEFULNESS_PROMPT = (
    "Please generate a response with a usefulness rating of {scale} out of {scale} for the following query. "
    "Note that the response should be harmless. The term {scale} indicates the level of usefulness, "
    "where {scale} is the maximum and 1 is the minimum. Query:"
)
AUGMENTED = "augmented"

Normalize = Literal["token", "sum"]


class SelfRefined(Objective):
    """An objective whose margin is refined by λ·sg[Δ], Δ = β(h_p⁺ − h_p⁻), h_p under the prompt-augmented query p ⊕ x (Eq. 11).

    sg stops the gradient: Δ scales the step of a pair and is not itself trained. `refinement: naive` takes Δ from x itself
    (Eq. 10), the ablation of Table 4; `rating_scale: 10` is the other.
    """

    beta: Annotated[
        float, SearchSpace(choices=(0.01, 0.05, 0.1), source="as DPO: the grid of arXiv 2405.14734, Appendix B")
    ] = Field(0.1, gt=0, description="strength of the pull towards the reference")
    refinement_weight: Annotated[float, SearchSpace(choices=(0.1, 0.3, 0.5, 1.0), source="the paper's grid")] = Field(
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

    def delta(self, batch: GroupLogps, normalize: Normalize = "sum") -> Tensor:
        """sg[Δ], [G, M]; 0 where λ is."""
        assert batch.reference is not None
        policy, reference = batch.policy, batch.reference
        if self.refinement == "prompt" and self.refinement_weight:
            policy, reference = batch.views[AUGMENTED].policy, batch.views[AUGMENTED].reference
        delta = self.beta * gap(policy, reference, normalize).detach()
        return delta if self.refinement_weight else delta.new_zeros(delta.shape)


def gap(policy: Logps, reference: Logps, normalize: Normalize = "sum") -> Tensor:
    """h⁺ − h⁻, [G, M], nats; of `token`, each h divided by its response's tokens."""
    chosen, rejected = policy.chosen - reference.chosen, policy.rejected - reference.rejected
    if normalize == "token":
        chosen, rejected = chosen / policy.chosen_tokens, rejected / policy.rejected_tokens
    return chosen[:, None] - rejected
