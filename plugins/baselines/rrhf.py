"""Rank responses to align language models with human feedback."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from harness import GroupLogps, Loss, Objective, Paper, SearchSpace


class RRHF(Objective):
    """Σ max(0, p̄ⱼ − p̄ᵢ) over pairs where i ranks above j, + NLL(best), p̄ = lp/n; no reference model.

    The chosen response ranks above every rejected one, and the rejected ones rank in the order given, best first, where the
    data builder ranks them, as `preference` does; of any other builder's, the chosen one alone is held against each. A group is
    one ranking, so both terms are per group: the pairs of a ranking are summed, as in the paper, and rankings are averaged. m
    negatives are therefore not m pairs here.

    The paper's L_ft sums over the best response's tokens, its code averages; here NLL is −lp/n, on p̄'s scale.
    """

    name: ClassVar[str] = "rrhf"
    paper: ClassVar[Paper | None] = Paper(
        "RRHF: Rank Responses to Align Language Models with Human Feedback without tears", "2304.05302"
    )
    needs_reference: ClassVar[bool] = False
    ranks_rejected: ClassVar[bool] = True

    ranking_weight: Annotated[
        float, SearchSpace(1.0, 100.0, log=True, source="from the paper's weight to that of the authors' code")
    ] = Field(1.0, ge=0, description="weight of the ranking term; 1 is the paper's, 100 the authors' code's")

    def loss(self, batch: GroupLogps) -> Loss:
        import torch

        policy = batch.policy
        chosen = policy.chosen / policy.chosen_tokens  # [G], nats per token
        rejected = policy.rejected / policy.rejected_tokens  # [G, M]
        ranked = torch.cat([chosen[:, None], rejected], dim=1)  # [G, 1 + M], best first
        there = torch.cat([torch.ones_like(policy.mask[:, :1]), policy.mask], dim=1)
        misranked = (ranked[:, None, :] - ranked[:, :, None]).relu()  # [G, i, j]: by how much j is the likelier
        pairs = (there[:, :, None] & there[:, None, :]).triu(diagonal=1)  # i ranks above j
        if not batch.ranked:
            pairs[:, 1:] = False
        ranking = misranked.masked_fill(~pairs, 0.0).sum((1, 2))  # [G]
        metrics = {**batch.pair_metrics(chosen[:, None] - rejected), "ranking": ranking, "nll": -chosen}
        return Loss(per_group=self.ranking_weight * ranking - chosen, metrics=metrics)
