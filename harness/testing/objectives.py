"""Checks of a loss: the trainer must be able to cut, pad, reorder and repeat batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from harness.api.interfaces import Objective
from harness.api.types import GroupLogps, Mismatched, View
from harness.testing.batches import example_batch, filled, in_precision, reordered, scaled, taken, widened
from harness.testing.chance import generators_left_alone
from harness.testing.losses import check_loss, reduced, totals_of
from harness.testing.verdict import Fault, Finding, run
from harness.training.reduction import reduce_loss

if TYPE_CHECKING:
    from torch import Tensor

EXACT, SINGLE = 1e-9, 1e-3  # relative tolerances of float64, and of float32 against it
SEEDS = (0, 1, 2)  # of the example batches; a single one may happen to lie beyond every hinge


def check_objective(objective: Objective) -> Iterator[Finding]:
    """Run every check of a loss; stop after one of the first three fails, since the others would only repeat its news."""
    yield (finding := run("loss", partial(check_loss, objective)))
    stopped = finding.status != "passed"
    checks: dict[str, Callable[[Objective, GroupLogps], None]] = {
        "inputs": _leaves_its_inputs,
        "determinism": _repeats,
        "views": _no_gradient_through_views,
        "float64": _precisions_agree,
        "mask": _padding_changes_nothing,
        "gradients": _gradients_are_finite,
        "groups": _groups_are_independent,
        "order": _order_of_negatives,
    }
    for name, check in checks.items():
        if stopped:
            yield Finding(name, "not run", "the loss cannot be checked further before that is fixed")
            continue
        yield (finding := run(name, partial(_on_every_batch, objective, check)))
        stopped = name in ("inputs", "determinism") and finding.status != "passed"


def _on_every_batch(objective: Objective, check: Callable[[Objective, GroupLogps], None]) -> None:
    for seed in SEEDS:
        check(objective, example_batch(objective, seed=seed))


def _repeats(objective: Objective, batch: GroupLogps) -> None:
    """The same batch, the same loss: training has no randomness of its own."""
    fix = "use no random numbers and no state in loss()"
    with generators_left_alone(fix):
        if part := reduced(objective, batch).differs(reduced(objective, batch), 0.0):
            raise Fault(f"two calls on one batch differ in {part}", fix)


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
    expected = reduced(objective, batch)
    fix = "leave out what batch.policy.mask marks as absent: masked_fill(~batch.policy.mask, 0.0) before any sum over negatives"
    for nats, tokens in ((-1.0, 1), (-300.0, 40)):
        if part := expected.differs(reduced(objective, filled(batch, nats, tokens)), EXACT):
            raise Fault(f"{part} changes with what stands in slots without a response", fix)
    wider = reduced(objective, widened(batch))
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
            found = reduced(objective, in_precision(case, dtype))
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
    if differs := reduced(objective, batch).differs(reduced(objective, in_precision(batch, torch.float32)), SINGLE):
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
    expected, found = reduced(objective, batch), reduced(objective, reordered(batch, order))
    if part := expected.differs(replace(found, rejected=found.rejected[:, order]), EXACT):
        raise Fault(
            f"{part} changes with the order of the negatives",
            "treat them alike, or set ranks_rejected: ClassVar[bool] = True if they are a ranking, best first",
        )
