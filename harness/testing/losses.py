"""Checks of what a loss returns: shapes and types, its views, and the reduced value with gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.api.interfaces import Objective
from harness.api.types import GroupLogps, Loss, Prompt
from harness.testing.batches import example_batch
from harness.testing.verdict import Fault
from harness.training.reduction import Totals, reduce_loss

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ReducedLoss:
    """A reduced loss and its gradients in the policy's log-probabilities: a scalar, [G] and [G, M] (0 where masked)."""

    value: Tensor
    chosen: Tensor
    rejected: Tensor

    def differs(self, other: ReducedLoss, tolerance: float) -> str:
        """Return which part differs, in words; empty if none does."""
        import torch

        for name in ("value", "chosen", "rejected"):
            mine, its = getattr(self, name).double(), getattr(other, name).double()
            if not torch.allclose(mine, its, rtol=tolerance, atol=tolerance * 1e-1, equal_nan=True):
                return "the loss" if name == "value" else f"the gradient in the {name} responses' log-probabilities"
        return ""


def reduced(objective: Objective, batch: GroupLogps) -> ReducedLoss:
    """Return the loss as the trainer reduces it, with its gradients; raise `Fault` if it has none."""
    import torch

    chosen, rejected = (tensor.detach().clone().requires_grad_() for tensor in (batch.policy.chosen, batch.policy.rejected))
    leaves = replace(batch, policy=replace(batch.policy, chosen=chosen, rejected=rejected))
    value = reduce_loss(objective.loss(leaves), leaves, objective, totals_of(batch))
    if not value.requires_grad:
        raise Fault(
            "the loss does not depend on the policy's log-probabilities",
            "compute it from batch.policy, without .detach(), .item() or a new tensor in between",
        )
    gradients = torch.autograd.grad(value, (chosen, rejected), allow_unused=True)
    first, second = (
        torch.zeros_like(leaf) if found is None else found for leaf, found in zip((chosen, rejected), gradients, strict=True)
    )
    return ReducedLoss(value.detach(), first, second)


def totals_of(batch: GroupLogps) -> Totals:
    """Return the denominators of a whole batch."""
    policy = batch.policy
    return Totals(int(policy.mask.sum()), len(policy.chosen), int(policy.chosen_tokens.sum()))


def check_loss(objective: Objective) -> None:
    """Check what `loss` returns with three negatives, with one, and with none if the objective takes that."""
    _check_views(objective)
    for negatives in (3, 1) if objective.needs_rejected else (3, 1, 0):
        batch = example_batch(objective, negatives=negatives)
        _check_shapes(_loss(objective, batch), batch)
        reduced(objective, batch)


def _check_views(objective: Objective) -> None:
    """Check the views: other prompts under which the responses are scored as well."""
    views: Any = objective.views()
    fix = "return {name: a function from harness.Prompt to harness.Prompt}"
    if not isinstance(views, Mapping):
        raise Fault(f"views() returned {type(views).__name__}", fix)
    for name, change in views.items():
        changed = change(Prompt.of("a", "name two fruits .")) if callable(change) else change
        if not isinstance(changed, Prompt):
            raise Fault(f"the view {name!r} gives {type(changed).__name__}", fix)


def _loss(objective: Objective, batch: GroupLogps) -> Loss:
    """Compute the loss; raise `Fault` if it reads what the objective did not ask for."""
    try:
        return objective.loss(batch)
    except KeyError as error:
        if batch.views.keys() >= set(error.args):
            raise
        raise Fault(
            f"it reads batch.views[{error.args[0]!r}]", f"name that view in views(), which has {sorted(batch.views)}"
        ) from error
    except AttributeError as error:
        if error.name is None or error.obj is not None or (batch.reference is not None and batch.mismatched is not None):
            raise
        absent = [name for name in ("reference", "mismatched") if getattr(batch, name) is None]
        asked = " or ".join(f"needs_{name}: ClassVar[bool] = True" for name in absent)
        said = f"it reads {error.name!r} of something that is None: batch.{' and batch.'.join(absent)} were not asked for"
        raise Fault(said, f"set {asked}, or leave it out") from error


def _check_shapes(loss: Any, batch: GroupLogps) -> None:
    groups, negatives = batch.policy.rejected.shape
    if not isinstance(loss, Loss):
        raise Fault(f"loss() returned {type(loss).__name__}", "return harness.Loss(per_pair=…) with the unreduced loss, [G, M]")
    if loss.per_pair is None and loss.per_group is None:
        raise Fault(
            "loss() returned neither per_pair nor per_group", "give the loss of each pair, [G, M], or of each group, [G]"
        )
    for name, letters, wanted in (("per_pair", "[G, M]", [groups, negatives]), ("per_group", "[G]", [groups])):
        found = getattr(loss, name)
        if found is not None and _shape(name, found) != wanted:
            raise Fault(
                f"{name} has shape {list(found.shape)} for {groups} groups of at most {negatives} negatives",
                f"return {wanted}, {letters}, one value each and not their mean: the trainer averages",
            )
    for name, metric in loss.metrics.items():
        if (shape := _shape(f"the metric {name!r}", metric)) not in ([groups], [groups, negatives]):
            raise Fault(f"the metric {name!r} has shape {shape}", "give [G] or [G, M]: the trainer averages")


def _shape(name: str, value: Any) -> list[int]:
    import torch

    if not isinstance(value, torch.Tensor):
        raise Fault(f"{name} is {type(value).__name__}", "give a torch tensor, computed from batch.policy")
    return list(value.shape)
