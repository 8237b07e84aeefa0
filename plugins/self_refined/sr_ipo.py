"""Self-refined IPO (Algorithm 2)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from harness import GroupLogps, Loss, Paper
from harness_plugins.self_refined.refinement import Normalize, SelfRefined, gap


class SrIPO(SelfRefined):
    """((h⁺ − h⁻) − λ·sg[Δ] − 1/(2β))², Δ = β(h_p⁺ − h_p⁻), h_p under the prompt-augmented query p ⊕ x (Eq. 11, 14).

    `normalize: token` divides each h, in the margin and in Δ alike, by its response's tokens, as `ipo` does by default: the two
    rows differ in the refinement alone. The paper writes sums (Eq. 8, Algorithm 2): `normalize: sum`, for both rows.
    """

    name: ClassVar[str] = "sr_ipo"
    version: ClassVar[int] = 2
    paper: ClassVar[Paper | None] = Paper(
        "Direct Alignment of Language Models via Quality-Aware Self-Refinement", "2405.21040", "Eq. 10, 11, 14, Algorithm 2"
    )

    normalize: Normalize = Field("token", description="log-ratios per response token, or summed over them; as `ipo`'s")

    def loss(self, batch: GroupLogps) -> Loss:
        assert batch.reference is not None
        margin = gap(batch.policy, batch.reference, self.normalize)
        delta = self.delta(batch, self.normalize)
        per_pair = (margin - self.refinement_weight * delta - 1 / (2 * self.beta)) ** 2
        return Loss(per_pair=per_pair, metrics={**batch.pair_metrics(margin), "refinement": delta})
