"""Odds ratio preference optimisation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from harness import GroupLogps, Loss, Objective, Paper, SearchSpace

if TYPE_CHECKING:
    from torch import Tensor


class ORPO(Objective):
    """NLL(y⁺) − λ·log σ(logodds⁺ − logodds⁻), logodds(y) = p̄ − log(1 − exp p̄), p̄ = lp/n.

    The NLL is averaged over the batch's chosen tokens (`group_mean`), as TRL's ORPOTrainer does. TRL, after the authors' code,
    also counts the prompt's tokens in it; here, as in Eq. 6's L_SFT of the response given the prompt, they are left out.
    """

    name: ClassVar[str] = "orpo"
    paper: ClassVar[Paper | None] = Paper(
        "ORPO: Monolithic Preference Optimization without Reference Model", "2403.07691", "Eq. 4, 6, 7"
    )
    needs_reference: ClassVar[bool] = False
    group_mean: ClassVar[Literal["groups", "tokens"]] = "tokens"

    odds_ratio_weight: Annotated[
        float, SearchSpace(choices=(0.1, 0.5, 1.0, 2.0), source="the grid of arXiv 2405.14734, Appendix B")
    ] = Field(0.1, ge=0, description="λ, weight of the odds ratio (TRL's beta)")

    def loss(self, batch: GroupLogps) -> Loss:
        from torch.nn.functional import logsigmoid

        chosen = batch.policy.chosen / batch.policy.chosen_tokens  # [G], nats per token
        # A slot without a response holds anything, 0 mostly, where the log-odds are infinite and their gradient is not a
        # number, even under a mask; any other value does.
        rejected = (batch.policy.rejected / batch.policy.rejected_tokens).masked_fill(~batch.policy.mask, -1.0)  # [G, M]
        margin = log_odds(chosen)[:, None] - log_odds(rejected)
        metrics = {**batch.pair_metrics(margin), "nll": -chosen}
        return Loss(per_pair=-self.odds_ratio_weight * logsigmoid(margin), per_group=-chosen, metrics=metrics)


def log_odds(logp: Tensor) -> Tensor:
    """log(p / (1 − p)) of log p < 0. One that rounds to 0 counts as the nearest number below it: no odds are infinite."""
    import torch

    return logp - log1mexp(logp.clamp(max=-torch.finfo(logp.dtype).tiny))


def log1mexp(x: Tensor) -> Tensor:
    """log(1 − exp x) of x < 0 without cancellation, for x near 0 and far from it, and with a finite gradient in both."""
    import torch

    near = x > -math.log(2)
    # Each branch sees only arguments for which it is finite: `where` alone would pass on the other one's gradient, 0 · ∞.
    small, large = torch.where(near, x, -1.0), torch.where(near, -1.0, x)
    return torch.where(near, (-torch.expm1(small)).log(), torch.log1p(-large.exp()))
