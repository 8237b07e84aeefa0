"""Guards of a training step: smaller passes where memory runs out, a stop before weights become NaN. Imports transformers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from transformers import PreTrainedModel

from harness.errors import StageError
from harness.training.ranks import Ranks
from harness.training.settings import SftSettings, TrainingSettings

if TYPE_CHECKING:
    from harness.training.checkpoints import Checkpoints
    from harness.training.step_trainer import StepTrainer

Value = TypeVar("Value")


class PassesEndedError(MemoryError):
    """Memory ran out in a sharded process, which has sent what the others waited for (`ShardedPasses`)."""


OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")  # in messages of torch's plain RuntimeErrors
SHOWN = 8  # prompt ids in an error message


@dataclass
class PassSize:
    """The most that goes through the model at once; halved for the rest of the training where memory runs out.

    Attributes:
        size: tokens or rows of one pass.
        sharded_fix: the fix to name where memory runs out while the weights are spread over processes.
    """

    size: int
    sharded_fix: str

    def fit(self, model: PreTrainedModel, ranks: Ranks, compute: Callable[[], Value], halved: Callable[[], int]) -> list[Value]:
        """Return the value that each process computed, by rank.

        Where memory ran out on any process, all of them compute again in smaller passes, from the same random numbers and
        without gradients. In a sharded training that takes a `compute` which makes its passes by `ShardedPasses`.

        Args:
            compute: makes this process's value, in passes of at most `size`.
            halved: gives the next size to try after `compute` ran out of memory; raises where a pass cannot be cut.

        Raises:
            StageError: memory ran out while weights are sharded, outside of `ShardedPasses.run`; or one prompt or example
                alone does not fit.
        """
        draw_again = _remember_random_numbers()
        while True:
            try:
                value, size = compute(), self.size
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if ranks.sharded and not isinstance(error, PassesEndedError):
                    # The other processes wait for messages of the pass that failed here: nobody can go on.
                    raise StageError(
                        "memory ran out in a training whose weights are spread over processes, which cannot go on by itself: "
                        + self.sharded_fix
                    ) from error
                value, size = None, 0
            if value is None:  # outside `except`: the error's traceback, which holds the failed pass's tensors, is gone
                size = halved()
                torch.cuda.empty_cache()
            everyone = ranks.gather((value, size))
            values = [value for value, _ in everyone if value is not None]
            if len(values) == len(everyone):
                return values
            self.size = min(size for _, size in everyone)
            model.zero_grad()  # processes whose pass did fit hold its gradients already
            draw_again()


@dataclass(frozen=True)
class Batch:
    """A batch as an error message and the state of a stopped training show it.

    Attributes:
        ids: prompts.
        kept: what is stored of it; JSON.
    """

    ids: Sequence[str]
    kept: Mapping[str, object]


@dataclass(frozen=True)
class FiniteGuard:
    """Stop a training whose loss or gradient is NaN or infinite before its optimiser steps.

    Attributes:
        subject: the objective's name, or SFT.
        section: the config's section that holds `settings`.
        checkpoints: where the state of the stopped training is kept; it is not kept without.
    """

    subject: str
    section: str
    settings: TrainingSettings | SftSettings
    checkpoints: Checkpoints | None

    def check(self, trainer: StepTrainer, model: PreTrainedModel, loss: float, batch: Callable[[], Batch]) -> None:
        """Check the loss and the gradient of a whole batch, summed over processes.

        Raises:
            StageError: one of them is no number; the error names the step and the prompts.
        """
        for name, number in (("loss", loss), ("gradient", trainer.gradient_norm(model))):
            if not math.isfinite(number):
                raise StageError(self._stop(trainer, name, number, batch()))

    def _stop(self, trainer: StepTrainer, name: str, number: float, batch: Batch) -> str:
        """Keep the training's state as it was before the step, and return the error message."""
        step = trainer.state.global_step + 1
        message = (
            f"the {name} of {self.subject} is {number} at step {step} of {trainer.state.max_steps}: "
            f"lower {self.section}.learning_rate (now {self.settings.learning_rate:g}); prompts: {', '.join(batch.ids[:SHOWN])}"
            + (f" and {len(batch.ids) - SHOWN} more" if len(batch.ids) > SHOWN else "")
        )
        if self.checkpoints is None:
            return message
        folder = self.checkpoints.keep_stopped(trainer, {"step": step, name: str(number), **batch.kept})
        return f"{message}; weights, optimiser and batch are kept in the store under {folder}"


def _remember_random_numbers() -> Callable[[], None]:
    """Return a function that sets torch's generators back to their state now, for a repeated pass to draw the same dropout."""
    cpu, cuda = torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None

    def restore() -> None:
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda)

    return restore


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed; where torch has no error type for it, the message tells."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY)
    )
