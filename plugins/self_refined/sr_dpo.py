"""Self-refined DPO (Algorithm 1)."""

from __future__ import annotations

from typing import ClassVar

from harness import GroupLogps, Loss, Paper
from harness_plugins.self_refined.refinement import SelfRefined, gap


class SrDPO(SelfRefined):
    """−log σ(β(h⁺ − h⁻) − λ·sg[Δ]), Δ = β(h_p⁺ − h_p⁻), h_p under the prompt-augmented query p ⊕ x (Eq. 11, 12).

    sg stops the gradient: Δ scales the step of a pair and is not itself trained. `refinement: naive` takes Δ from x itself
    (Eq. 10), the ablation of Table 4; `rating_scale: 10` is the other.
    """

    name: ClassVar[str] = "sr_dpo"
    paper: ClassVar[Paper | None] = Paper(
        "Direct Alignment of Language Models via Quality-Aware Self-Refinement", "2405.21040", "Eq. 10-12, Algorithm 1"
    )

    def loss(self, batch: GroupLogps) -> Loss:
        from torch.nn.functional import logsigmoid

        assert batch.reference is not None
        margin = self.beta * gap(batch.policy, batch.reference)
        delta = self.delta(batch)
        per_pair = -logsigmoid(margin - self.refinement_weight * delta)
        return Loss(per_pair=per_pair, metrics={**batch.pair_metrics(margin), "refinement": delta})
