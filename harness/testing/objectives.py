"""What a loss must keep to, so that the trainer can cut, pad, order and repeat batches as it likes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from harness.interfaces import Objective
from harness.testing.batches import example_batch, filled, in_precision, reordered, scaled, taken, widened
from harness.testing.verdict import Fault, Finding, run
from harness.training.reduction import Totals, reduce_loss
from harness.types import GroupLogps, Loss, Mismatched, View

if TYPE_CHECKING:
    from torch import Tensor

EXACT, SINGLE = 1e-9, 1e-3  # relative tolerances of float64, and of float32 against it
SEEDS = (0, 1, 2)  # of the example batches; a single one may happen to lie beyond every hinge


@dataclass(frozen=True)
class Outcome:
    """A reduced loss and its gradients in the policy's log-probabilities: a scalar, [G] and [G, M] (0 where masked)."""

    value: Tensor
    chosen: Tensor
    rejected: Tensor

    def differs(self, other: Outcome, tolerance: float) -> str:
        """Which part differs, in words; empty where none does."""
        import torch

        for name in ("value", "chosen", "rejected"):
            mine, its = getattr(self, name).double(), getattr(other, name).double()
            if not torch.allclose(mine, its, rtol=tolerance, atol=tolerance * 1e-1, equal_nan=True):
                return "the loss" if name == "value" else f"the gradient in the {name} responses' log-probabilities"
        return ""


def check_objective(objective: Objective) -> Iterator[Finding]:
    """Every check of a loss; after a first one that fails, those that build on it are not run."""
    first = run("loss", partial(_runs, objective))
    yield first
    checks: dict[str, Callable[[Objective, GroupLogps], None]] = {
        "determinism": _repeats,
        "inputs": _leaves_its_inputs,
        "views": _no_gradient_through_views,
        "float64": _precisions_agree,
        "mask": _padding_changes_nothing,
        "gradients": _gradients_are_finite,
        "groups": _groups_are_independent,
        "order": _order_of_negatives,
    }
    for name, check in checks.items():
        if first.status != "passed":
            yield Finding(name, "not run", "the loss itself fails", "mend that first")
            continue
        yield run(name, partial(_on_every_batch, objective, check))


def outcome(objective: Objective, batch: GroupLogps) -> Outcome:
    """The loss as the trainer reduces it, and its gradients; `Fault` where it has none."""
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
    return Outcome(value.detach(), first, second)


def totals_of(batch: GroupLogps) -> Totals:
    """The denominators of a whole batch."""
    policy = batch.policy
    return Totals(int(policy.mask.sum()), len(policy.chosen), int(policy.chosen_tokens.sum()))


def _on_every_batch(objective: Objective, check: Callable[[Objective, GroupLogps], None]) -> None:
    for seed in SEEDS:
        check(objective, example_batch(objective, seed=seed))


def _runs(objective: Objective) -> None:
    """Shapes and types of what `loss` returns, with several negatives, with one, and without where it takes none."""
    for negatives in (3, 1) if objective.needs_rejected else (3, 1, 0):
        batch = example_batch(objective, negatives=negatives)
        _check_shapes(objective.loss(batch), batch)
        outcome(objective, batch)


def _check_shapes(loss: Loss, batch: GroupLogps) -> None:
    groups, negatives = batch.policy.rejected.shape
    pairs = {"per_pair": (groups, negatives)}
    if not isinstance(loss, Loss):
        raise Fault(f"loss() returned {type(loss).__name__}", "return harness.Loss(per_pair=…) with the unreduced loss, [G, M]")
    if loss.per_pair is None and loss.per_group is None:
        raise Fault(
            "loss() returned neither per_pair nor per_group", "give the loss of each pair, [G, M], or of each group, [G]"
        )
    for name, wanted in {**pairs, "per_group": (groups,)}.items():
        found = getattr(loss, name)
        if found is not None and tuple(found.shape) != wanted:
            letters = "[G, M]" if len(wanted) == 2 else "[G]"
            raise Fault(
                f"{name} has shape {list(found.shape)} for {groups} groups of at most {negatives} negatives",
                f"return {list(wanted)}, {letters}, one value each and not their mean: the trainer averages",
            )
    for name, found in loss.metrics.items():
        if tuple(found.shape) not in ((groups,), (groups, negatives)):
            raise Fault(f"the metric {name!r} has shape {list(found.shape)}", "give [G] or [G, M]: the trainer averages")


def _repeats(objective: Objective, batch: GroupLogps) -> None:
    """The same batch, the same loss: training has no randomness of its own."""
    if part := outcome(objective, batch).differs(outcome(objective, batch), 0.0):
        raise Fault(f"two calls on one batch differ in {part}", "use no random numbers and no state in loss()")


def _leaves_its_inputs(objective: Objective, batch: GroupLogps) -> None:
    import torch

    before = [tensor.clone() for tensor in _tensors(batch)]
    objective.loss(batch)
    if not all(torch.equal(old, new) for old, new in zip(before, _tensors(batch), strict=True)):
        raise Fault("loss() changes the batch it is given", "use x + y instead of x += y, and functions without a trailing _")


def _tensors(batch: GroupLogps) -> Iterator[Tensor]:
    sides = [batch.policy, batch.reference, *(side for view in batch.views.values() for side in (view.policy, view.reference))]
    for side in sides:
        if side is not None:
            yield from (side.chosen, side.rejected, side.chosen_tokens, side.rejected_tokens, side.mask)


def _no_gradient_through_views(objective: Objective, batch: GroupLogps) -> None:
    """In training, views and mismatched pairs come without gradient: a loss that counts on one is not what is trained."""
    leaves: dict[str, Tensor] = {}

    def leaf(name: str, tensor: Tensor) -> Tensor:
        leaves[name] = tensor.detach().clone().requires_grad_()
        return leaves[name]

    views = {
        name: View(
            replace(
                view.policy,
                chosen=leaf(f"views[{name!r}].policy.chosen", view.policy.chosen),
                rejected=leaf(f"views[{name!r}].policy.rejected", view.policy.rejected),
            ),
            view.reference,
        )
        for name, view in batch.views.items()
    }
    mismatched = batch.mismatched
    if mismatched is not None:
        mismatched = Mismatched(leaf("mismatched.policy", mismatched.policy), mismatched.reference)
    changed = replace(batch, views=views, mismatched=mismatched)
    value = reduce_loss(objective.loss(changed), changed, objective, totals_of(changed))
    if value.requires_grad:
        value.backward()  # type: ignore[no-untyped-call]
    for name, tensor in leaves.items():
        if tensor.grad is not None and bool(tensor.grad.any()):
            raise Fault(
                f"the loss has a gradient in batch.{name}, which training does not give",
                f"write .detach() where batch.{name.rpartition('.')[0]} enters the loss",
            )


def _padding_changes_nothing(objective: Objective, batch: GroupLogps) -> None:
    """Slots without a response may hold anything, and there may be any number of them."""
    expected = outcome(objective, batch)
    fix = "leave out what batch.policy.mask marks as absent: masked_fill(~batch.policy.mask, 0.0) before any sum over negatives"
    for nats, tokens in ((-1.0, 1), (-300.0, 40)):
        if part := expected.differs(outcome(objective, filled(batch, nats, tokens)), EXACT):
            raise Fault(f"{part} changes with what stands in slots without a response", fix)
    wider = outcome(objective, widened(batch))
    if part := expected.differs(replace(wider, rejected=wider.rejected[:, : expected.rejected.shape[1]]), EXACT):
        raise Fault(f"{part} changes when a batch is padded with slots without a response", fix)


def _gradients_are_finite(objective: Objective, batch: GroupLogps) -> None:
    """At the start (policy = reference), at certainty and far from it, in both precisions."""
    import torch

    start = replace(batch, policy=batch.reference) if batch.reference is not None else batch
    cases = {
        "at the start": start,
        "near certainty": scaled(batch, 1e-6),
        "for unlikely responses": scaled(batch, 60.0),
    }
    for where, case in cases.items():
        for dtype in (torch.float64, torch.float32):
            found = outcome(objective, in_precision(case, dtype))
            for name, tensor in (("loss", found.value), ("gradient", found.chosen), ("gradient", found.rejected)):
                if not bool(torch.isfinite(tensor).all()):
                    raise Fault(
                        f"its {name} is not finite {where} ({str(dtype).removeprefix('torch.')})",
                        "use logsigmoid, log1p and expm1 instead of logarithms of 1 ± exp, and fill absent slots with a number "
                        "for which every step is finite, before the step",
                    )


def _precisions_agree(objective: Objective, batch: GroupLogps) -> None:
    """float64 stays float64, and float32 says nearly the same."""
    import torch

    loss = objective.loss(batch)
    for part in (loss.per_pair, loss.per_group):
        if part is not None and part.dtype != torch.float64:
            raise Fault(f"a batch in float64 gives a loss in {part.dtype}", "create no tensors of a fixed dtype in loss()")
    if differs := outcome(objective, batch).differs(outcome(objective, in_precision(batch, torch.float32)), SINGLE):
        raise Fault(
            f"{differs} in float32 is far from float64",
            "subtract log-probabilities before exponentiating, and use logsigmoid, logsumexp, log1p, expm1",
        )


def _groups_are_independent(objective: Objective, batch: GroupLogps) -> None:
    """The trainer cuts a batch into micro-batches: their shares must add up to the whole."""
    totals = totals_of(batch)
    whole = reduce_loss(objective.loss(batch), batch, objective, totals)
    parts = [
        reduce_loss(objective.loss(one), one, objective, totals)
        for one in (taken(batch, group) for group in range(len(batch.policy.chosen)))
    ]
    total = sum(float(part) for part in parts)
    if abs(total - float(whole)) > EXACT * max(1.0, abs(total)):
        raise Fault(
            f"groups trained on one by one give {total:.6g}, and together {float(whole):.6g}",
            "let each group's loss depend on that group alone: no mean, maximum or rank over the batch",
        )


def _order_of_negatives(objective: Objective, batch: GroupLogps) -> None:
    """Rejected responses are a set, unless the objective says that they are a ranking."""
    if objective.ranks_rejected:
        return
    order = list(range(batch.policy.rejected.shape[1]))[::-1]
    expected, found = outcome(objective, batch), outcome(objective, reordered(batch, order))
    if part := expected.differs(replace(found, rejected=found.rejected[:, order]), EXACT):
        raise Fault(
            f"{part} changes with the order of the negatives",
            "treat them alike, or set ranks_rejected: ClassVar[bool] = True if they are a ranking, best first",
        )
