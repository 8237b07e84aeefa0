"""TRL's `SFTTrainer` with the step of `sft_step`. Imports trl, which takes seconds: import it where fine-tuning begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor
from torch.utils.data import Sampler
from transformers import PreTrainedModel, TrainerCallback
from trl import SFTTrainer

from harness.training.sft_step import ID, SftStep
from harness.training.step_trainer import StepTrainer
from harness.training.trainer import Watch

LOGGED = {"step": "step", "loss": "loss", "learning_rate": "learning_rate", "gradient_norm": "grad_norm"}  # ours: transformers'


class SftProgress(BaseModel):
    """The part of a fine-tuning's state that a checkpoint keeps beside transformers' own; older ones have none of it.

    Attributes:
        rows: of a pass; None as the settings say.
        order: state of torch's generator, hexadecimal, that the epoch's order was drawn from; empty between epochs.
    """

    rows: int | None = None
    order: str = ""


class SftTrainer(StepTrainer, SFTTrainer):  # type: ignore[misc]
    """TRL's data preparation and loss, with this project's step and processes around them.

    Attributes:
        order: of the epochs' rows.
    """

    step: SftStep
    data_collator: Any

    def __init__(self, *, step: SftStep, **arguments: Any) -> None:
        super().__init__(step=step, **arguments)
        self.order = _Order()
        self.data_collator = _with_ids(self.data_collator)
        if self.ranks.count > 1:
            # TRL gathers metrics over processes in every pass. Processes may make unequal numbers of passes, and would wait
            # for each other forever; nothing here reads those metrics.
            self.accelerator.gather_for_metrics = lambda values: values

    @property
    def history(self) -> list[dict[str, float]]:
        """One row per optimiser step: step, loss, learning_rate, gradient_norm."""
        return _history(self.state.log_history)

    @property
    def progress(self) -> SftProgress:
        """The state to keep in a checkpoint."""
        within = not float(self.state.epoch).is_integer()
        return SftProgress(rows=self.step.passes.size, order=self.order.drawn_from if within else "")

    def restore(self, progress: SftProgress) -> None:
        """Go on from a checkpoint's state."""
        self.step.passes.size = progress.rows or self.step.passes.size
        self.order.again = progress.order

    def trl_pass(self, model: PreTrainedModel, rows: dict[str, Tensor], tokens: Tensor | int | None, passes: int) -> Tensor:
        """Run TRL's forward and backward over some rows of a batch, which is cut into so many passes; return their loss."""
        self.current_gradient_accumulation_steps = passes
        loss: Tensor = SFTTrainer.training_step(self, model, rows, tokens)
        return loss

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Return TRL's loss, scaled so that gradients come to their sum where processes average them."""
        loss = super().compute_loss(*args, **kwargs)
        return (loss[0] * self.ranks.scale, *loss[1:]) if isinstance(loss, tuple) else loss * self.ranks.scale

    def _get_train_sampler(self, train_dataset: Any = None) -> _Order:
        self.order.rows = super()._get_train_sampler(train_dataset)
        return self.order


def _history(log: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    return [{name: row[theirs] for name, theirs in LOGGED.items()} for row in log if "loss" in row]


class WatchCallback(TrainerCallback):  # type: ignore[misc]
    """Give the rows of the history to `watch` as they are logged; a resumed training's earlier ones come with its first."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self._read = 0  # rows of transformers' log

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        rows, self._read = _history(state.log_history[self._read :]), len(state.log_history)
        self.watch(rows)


class _Order(Sampler[int]):
    """TRL's order of each epoch, which a training that resumes within an epoch draws again.

    TRL draws it from torch's global generator, whose state at the epoch's beginning transformers does not store.

    Attributes:
        rows: the sampler that draws it.
        drawn_from: the generator's state before the draw; hexadecimal.
        again: such a state to draw the next order from; empty for the generator's own.
    """

    def __init__(self) -> None:
        self.rows: Sampler[int]
        self.drawn_from = self.again = ""

    def __iter__(self) -> Iterator[int]:
        if self.again:
            torch.set_rng_state(torch.frombuffer(bytearray.fromhex(self.again), dtype=torch.uint8))
        self.again, self.drawn_from = "", torch.get_rng_state().numpy().tobytes().hex()
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)  # type: ignore[arg-type]  # samplers of data with a length have one


def _with_ids(collate: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]]) -> Callable[..., Mapping[str, Any]]:
    """Return a collator whose batches also name the prompts of their rows."""
    return lambda rows: {**collate(rows), ID: [row[ID] for row in rows]}
