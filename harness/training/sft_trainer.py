"""TRL's `SFTTrainer`, in passes that fit in memory, on one or several processes. Imports trl, which takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Sampler
from transformers import PreTrainedModel
from trl import SFTTrainer

from harness.errors import StageError
from harness.training.checkpoints import Checkpoints
from harness.training.guarded_trainer import GuardedTrainer
from harness.training.settings import SftSettings

IGNORED = -100  # a label that counts for nothing
ID = "id"  # a row's column: of its prompt


class SharedSFTTrainer(GuardedTrainer, SFTTrainer):  # type: ignore[misc]
    """Of which every process trains on its rows of each batch. Tokens are counted over the whole batch: shares add up.

    Attributes:
        pass_size: rows that go through the model at once; halved when memory runs out.
        order: of the epochs' rows.
    """

    section: ClassVar[str] = "sft"
    sharded_fix: ClassVar[str] = "set sft.gradient_checkpointing, lower sft.max_length or sft.batch_size, or take more devices"
    subject = "SFT"
    data_collator: Any

    def __init__(self, *, settings: SftSettings, checkpoints: Checkpoints | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._rows: Mapping[str, Tensor] = {}  # what is being computed
        self.settings = settings
        self.checkpoints = checkpoints
        self.pass_size = settings.micro_batch_size or settings.batch_size
        self.order = _Order()
        self.data_collator = _with_ids(self.data_collator)
        if self.ranks.count > 1:  # TRL gathers its metrics in every pass, of which processes may make unequal numbers
            self.accelerator.gather_for_metrics = lambda values: values

    @property
    def history(self) -> list[dict[str, float]]:
        """One row per optimiser step: step, loss, learning_rate, gradient_norm."""
        names = {"step": "step", "loss": "loss", "learning_rate": "learning_rate", "gradient_norm": "grad_norm"}
        return [{name: row[theirs] for name, theirs in names.items()} for row in self.state.log_history if "loss" in row]

    def notes(self) -> dict[str, Any]:
        """What a checkpoint keeps beside transformers' state."""
        within = not float(self.state.epoch).is_integer()
        return {"rows": self.pass_size, "order": self.order.drawn_from if within else ""}

    def restore(self, notes: dict[str, Any]) -> None:
        """Take the notes back; older checkpoints have none."""
        self.pass_size = notes.get("rows", self.pass_size)
        self.order.again = notes.get("order", "")

    def training_step(self, model: PreTrainedModel, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward over one whole batch, of which this process takes its share; the batch's loss."""
        own = self._own({name: value for name, value in inputs.items() if name != ID})
        shares = self.within_memory(model, lambda: self._pass(model, own, num_items_in_batch))
        self.ranks.sum_gradients(model)
        loss = torch.tensor(sum(shares), device=self.args.device) / self.ranks.scale
        self.check_finite(model, float(loss), inputs)
        return loss

    def _get_train_sampler(self, train_dataset: Any = None) -> _Order:
        self.order.rows = super()._get_train_sampler(train_dataset)
        return self.order

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """The loss, such that gradients come to their sum where processes average them."""
        loss = super().compute_loss(*args, **kwargs)
        return (loss[0] * self.ranks.scale, *loss[1:]) if isinstance(loss, tuple) else loss * self.ranks.scale

    def halved(self) -> int:
        """See `GuardedTrainer.halved`."""
        rows, tokens = self._rows["input_ids"].shape
        if rows == 1:
            raise StageError(
                f"one example ({tokens} tokens) does not fit in memory: set sft.gradient_checkpointing, lower sft.max_length, "
                "or take fewer --workers"
            )
        return rows // 2

    def described(self, batch: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
        """See `GuardedTrainer.described`."""
        lengths = batch["attention_mask"].sum(1).tolist()
        rows = [{"id": name, "tokens": tokens} for name, tokens in zip(batch[ID], lengths, strict=True)]
        return batch[ID], {"examples": rows, "history": self.history}

    def _pass(self, model: PreTrainedModel, own: Mapping[str, Tensor], num_items_in_batch: Any) -> float:
        """Forward and backward over this process's rows; their share of the batch's loss."""
        cuts = list(_cut(own, self.pass_size))
        self.current_gradient_accumulation_steps = len(cuts)
        loss = torch.zeros((), device=self.args.device)
        for rows in cuts:
            self._rows = rows
            loss += super().training_step(model, dict(rows), num_items_in_batch)
        return float(loss)

    def _own(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """This process's rows; a row that counts for nothing where the batch has too few."""
        if self.ranks.count == 1:
            return inputs
        lengths = inputs["attention_mask"].sum(1).tolist()
        rows = self.ranks.share(lengths)
        own = {name: value[rows or [0]] for name, value in inputs.items()}
        return own if rows else own | {"labels": own["labels"].new_full(own["labels"].shape, IGNORED)}


class _Order(Sampler[int]):
    """TRL's order of each epoch, which it draws from torch's generator; a training that goes on within an epoch draws it again.

    Attributes:
        rows: who draws it.
        drawn_from: the generator's state before; hexadecimal.
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


def _cut(rows: Mapping[str, Tensor], size: int) -> Iterator[Mapping[str, Tensor]]:
    """At most `size` rows at a time, each part as wide as its longest row; they are padded on the right."""
    mask = rows["attention_mask"]
    if len(mask) <= size:
        yield rows
        return
    for first in range(0, len(mask), size):
        part = slice(first, first + size)
        width = int(mask[part].sum(1).max())
        yield {name: value[part, :width].contiguous() for name, value in rows.items()}


def _with_ids(collate: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A collator whose batches also say whose rows they hold."""
    return lambda rows: {**collate(rows), ID: [row[ID] for row in rows]}
