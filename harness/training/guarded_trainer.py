"""What ends or slows a training step: memory that runs out, and a loss or gradient that is no number. Imports transformers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch.nn.utils import get_total_norm
from transformers import PreTrainedModel

from harness.errors import StageError
from harness.training.batch import TokenGroup
from harness.training.checkpoints import Checkpoints
from harness.training.layouts.layout import Layout
from harness.training.settings import SftSettings, TrainingSettings
from harness.training.shared_trainer import SharedTrainer

WORDS = ("out of memory", "can't allocate memory", "not enough memory")


Value = TypeVar("Value")


SHOWN = 8  # prompt ids in an error


class GuardedTrainer(SharedTrainer):
    """Whose step is a whole batch, in passes that are halved where memory runs out; it ends before weights are no numbers.

    Attributes:
        section: of the config, where the settings are.
        sharded_fix: what to change when memory runs out while weights are spread over processes.
        subject: what is trained, for people.
        pass_size: at most so many tokens or rows go through the model at once; fewer from then on where memory ran out.
        checkpoints: where the state of a training that cannot go on is kept; it is not without.
    """

    section: ClassVar[str]
    sharded_fix: ClassVar[str]
    subject: str
    settings: TrainingSettings | SftSettings
    pass_size: int
    checkpoints: Checkpoints | None

    def halved(self) -> int:
        """A size for the next try, after the pass under way did not fit.

        Raises:
            StageError: it cannot be cut.
        """
        raise NotImplementedError

    def described(self, batch: Any) -> tuple[list[str], dict[str, Any]]:
        """Ids of a batch's prompts, and what to keep of it where the training cannot go on; JSON."""
        raise NotImplementedError

    def within_memory(self, model: PreTrainedModel, compute: Callable[[], Value]) -> list[Value]:
        """What each process computed, by rank; all do it again in smaller passes where memory ran out on any of them."""
        draw_again = _remember_random_numbers()
        while True:
            try:
                value, size = compute(), self.pass_size
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.ranks.sharded:
                    raise StageError(
                        "memory ran out in a training whose weights are spread over processes, which cannot go on by itself: "
                        + self.sharded_fix
                    ) from error
                value, size = None, 0
            if value is None:  # here, where the failed pass's tensors are gone
                size = self.halved()
                torch.cuda.empty_cache()
            everyone = self.ranks.gather((value, size))
            values = [value for value, _ in everyone if value is not None]
            if len(values) == len(everyone):
                return values
            self.pass_size = min(size for _, size in everyone)
            model.zero_grad()
            draw_again()

    def check_finite(self, model: PreTrainedModel, loss: float, batch: Any) -> None:
        """To be called with the whole batch's gradient, before the optimiser steps.

        Raises:
            StageError: loss or gradient is no number, which names step and prompts.
        """
        for what, number in (("loss", loss), ("gradient", self._norm(model))):
            if not math.isfinite(number):
                raise StageError(self._stopped(batch, what, number))

    def _norm(self, model: PreTrainedModel) -> float:
        """Of the whole gradient; DeepSpeed, which has it no more, says what it was."""
        if self.is_deepspeed_enabled:
            return float(self._get_grad_norm(model))
        norm = get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

    def _stopped(self, batch: Any, what: str, value: float) -> str:
        """Why the training cannot go on; its state is kept for a look, as it was before the step."""
        step, (ids, kept) = self.state.global_step + 1, self.described(batch)
        message = (
            f"the {what} of {self.subject} is {value} at step {step} of {self.state.max_steps}: "
            f"lower {self.section}.learning_rate (now {self.settings.learning_rate:g}); prompts: {', '.join(ids[:SHOWN])}"
            + (f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else "")
        )
        if self.checkpoints is None:
            return message
        where = self.checkpoints.keep_stopped(self, {"step": step, what: str(value), **kept})
        return f"{message}; weights, optimiser and batch are kept in the store under {where}"


def _remember_random_numbers() -> Callable[[], None]:
    """What sets torch's generators back to where they are now: a step that is done again draws the same dropout."""
    cpu, cuda = torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None

    def restore() -> None:
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda)

    return restore


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: torch says so in words where it has no type for it."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in WORDS)
    )


def halved(failed: Sequence[TokenGroup], tokens: int, layout: Layout) -> int:
    """Tokens for the next try, after a micro-batch of at most `tokens` did not fit.

    Raises:
        StageError: it held a single prompt, and cannot be cut.
    """
    size = min(tokens, layout.tokens([group.bundle() for group in failed]))
    if len(failed) == 1 or size < 2:
        raise StageError(
            f"one prompt with its {len(failed[0].responses)} responses ({size} tokens) does not fit in memory: set "
            "training.gradient_checkpointing, fewer negatives, shorter samples, or fewer --workers"
        )
    return size // 2
