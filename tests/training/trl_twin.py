"""Our loss and TRL's own trainer's, on the same tokens: the two sides of a parity test."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from architectures import exact

from harness.api.interfaces import Objective
from harness.api.types import Group, Response
from harness.models.logps import score
from harness.sandbox import build_dataset
from harness.training.batch import MISMATCHED, PLAIN, TokenGroup, group_logps, mismatched_logps
from harness.training.reduction import Totals, reduce_loss

TOLERANCES = {"float32": 1e-5, "float64": 1e-9}  # relative, of loss and gradient


@dataclass(frozen=True)
class Step:
    """A batch's loss and its gradient by parameter."""

    loss: float
    gradient: dict[str, torch.Tensor]

    def equals(self, other: Step, precision: str) -> bool:
        """Whether loss and gradient agree; the gradient by the norm of the difference."""
        tolerance = TOLERANCES[precision]
        assert {value.dtype for step in (self, other) for value in step.gradient.values()} == {getattr(torch, precision)}
        difference = sum(float((self.gradient[name] - value).double().norm() ** 2) for name, value in other.gradient.items())
        norm = sum(float(value.double().norm() ** 2) for value in other.gradient.values())
        assert abs(self.loss - other.loss) <= tolerance * abs(other.loss), (self.loss, other.loss)
        assert norm > 0
        assert (difference / norm) ** 0.5 <= tolerance, (difference / norm) ** 0.5
        return True


def preference_groups(count: int) -> list[Group]:
    """The sandbox's first preference pairs."""
    examples = build_dataset({"train": count}, 0.0, 0)["train"]
    return [Group(e.prompt, Response(e.ranked[0]), (Response(e.ranked[1]),)) for e in examples]


def cast(precision: str, *models) -> None:
    """The models in this precision, in place; after any copy is made of them, since float64 changes methods of theirs too."""
    if precision == "float64":
        for model in models:
            exact(model)


def ours(model, reference, groups: Sequence[TokenGroup], objective: Objective) -> Step:
    """One batch through our code."""
    views = [PLAIN, MISMATCHED] if objective.needs_mismatched else [PLAIN]
    filled = [replace(g, reference={view: tuple(score(reference, g.rows(view))) for view in views}) for g in groups]
    model.zero_grad()
    mismatched = mismatched_logps(model, filled, 10**9) if objective.needs_mismatched else None
    logps = group_logps(model, filled, objective, mismatched)
    loss = reduce_loss(objective.loss(logps), logps, objective, Totals.of(filled))
    loss.backward()
    return Step(float(loss.detach()), {name: parameter.grad.clone() for name, parameter in model.named_parameters()})


def theirs(trainer, batch) -> Step:
    """One collated batch through the trainer's own `compute_loss`."""
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return Step(float(loss.detach()), {name: p.grad.clone() for name, p in trainer.model.named_parameters()})


def collated(trainer):
    """The trainer's whole data set as one batch, in order."""
    data = trainer.train_dataset
    return next(iter(torch.utils.data.DataLoader(data, batch_size=len(data), collate_fn=trainer.data_collator)))


def arguments(config, folder: Path, **changes):
    """A TRL config of one float32 batch on the CPU, without truncation."""
    defaults = {"per_device_train_batch_size": 6, "max_length": None}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`gradient_checkpointing` is deprecated", category=FutureWarning)
        return config(
            output_dir=str(folder),
            use_cpu=True,
            bf16=False,
            report_to=[],
            gradient_checkpointing=False,
            disable_tqdm=True,
            **defaults | changes,
        )
