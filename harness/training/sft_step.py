"""The training step of supervised fine-tuning: a batch of rows, in passes that fit in memory, by TRL's own loss or a layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness.errors import StageError
from harness.training.guards import Batch, FiniteGuard, PassSize
from harness.training.layouts.layout import Bundle, Layout
from harness.training.precision import autocast
from harness.training.ranks import Ranks
from harness.training.settings import SftSettings
from harness.training.sharded_passes import ShardedPasses
from harness.training.sharding import ThroughShards

if TYPE_CHECKING:
    from harness.training.checkpoints import Checkpoints
    from harness.training.sft_trainer import SftTrainer

Pass = Callable[[Mapping[str, Tensor], int, bool], Tensor]  # rows, passes of the batch, whether it is the last -> loss
IGNORED = -100  # the label of a token that has no loss
ID = "id"  # a batch's entry, and a row's column: ids of the prompts
SHARDED_FIX = "set sft.gradient_checkpointing, lower sft.max_length or sft.batch_size, or take more devices"


class SftStep:
    """Forward and backward over a batch of rows, alone or as one of several processes.

    The loss is a mean over the target tokens of the whole batch, so that the processes' shares add up to it.

    Attributes:
        layout: computes log-probabilities of targets alone, without padding where the model allows that; TRL's loss if None.
        passes: rows that go through the model at once; halved where memory runs out.
    """

    def __init__(self, settings: SftSettings, checkpoints: Checkpoints | None = None, layout: Layout | None = None) -> None:
        self.settings, self.layout = settings, layout
        self.passes = PassSize(settings.micro_batch_size or settings.batch_size, SHARDED_FIX)
        self._guard = FiniteGuard("SFT", "sft", settings, checkpoints)
        self._together: ShardedPasses | None = None  # where weights are sharded
        self._rows: Mapping[str, Tensor] = {}  # the rows in the pass under way: `_halved` asks how many did not fit

    def __call__(
        self, trainer: SftTrainer, model: PreTrainedModel, inputs: Mapping[str, Tensor], tokens: Tensor | int | None
    ) -> Tensor:
        """Compute this process's share of the batch and its gradient, sum both over processes, and return the batch's loss."""
        if trainer.ranks.sharded and self._together is None:  # here, since FSDP wraps the model after `__init__`
            self._together = ShardedPasses(model)
            self.layout = ThroughShards(self.layout, model) if self.layout else None
        batch = {name: value for name, value in inputs.items() if name != ID}
        mine, layout, targets = _share(batch, trainer.ranks), self.layout, _targets(batch)

        def one(rows: Mapping[str, Tensor], passes: int, last: bool) -> Tensor:
            if layout is None:
                return trainer.trl_pass(model, dict(rows), tokens, passes)
            return self._layout_pass(layout, trainer, model, rows, targets, last)

        shares = self.passes.fit(model, trainer.ranks, lambda: self._backward(trainer, mine, one), self._halved)
        trainer.ranks.sum_gradients(model)
        loss = torch.tensor(sum(shares), device=trainer.args.device) / trainer.ranks.scale
        self._guard.check(trainer, model, float(loss), lambda: _described(inputs, trainer.history))
        return loss

    def _backward(self, trainer: SftTrainer, mine: Mapping[str, Tensor], one: Pass) -> float:
        """Forward and backward over this process's rows; return their share of the batch's loss."""
        cuts = list(_cut(mine, self.passes.size))
        loss = torch.zeros((), device=trainer.args.device)

        def add(number: int, last: bool) -> None:
            self._rows = cuts[number]
            loss.add_(one(cuts[number], len(cuts), last))

        if self._together is not None:
            self._together.run(len(cuts), trainer.ranks, add, lambda last: one(_without_loss(mine), len(cuts), last))
        else:
            for number in range(len(cuts)):
                add(number, number == len(cuts) - 1)
        return float(loss)

    def _layout_pass(
        self,
        layout: Layout,
        trainer: SftTrainer,
        model: PreTrainedModel,
        rows: Mapping[str, Tensor],
        targets: int,
        last: bool,
    ) -> Tensor:
        """Forward and backward over some rows: −Σ log π of their targets over the batch's number of targets, as TRL."""
        model.train()
        with autocast(model, self.settings.precision):
            logps = layout.logps(model, _bundles(rows))
        loss = -logps.sum() / targets * trainer.ranks.scale
        trainer.backward(loss, last)
        return loss.detach()

    def _halved(self) -> int:
        rows, tokens = self._rows["input_ids"].shape
        if rows == 1:
            raise StageError(
                f"one example ({tokens} tokens) does not fit in memory: set sft.gradient_checkpointing, lower sft.max_length, "
                "or take fewer --workers"
            )
        return rows // 2


def _share(inputs: dict[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """Return this process's rows; a row without loss where the batch has too few, since TRL's pass needs one."""
    if ranks.count == 1:
        return inputs
    lengths = inputs["attention_mask"].sum(1).tolist()
    rows = ranks.share(lengths)
    return {name: value[rows] for name, value in inputs.items()} if rows else _without_loss(inputs)


def _without_loss(rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the shortest of some rows, with no token in the loss."""
    lengths = rows["attention_mask"].sum(1)
    row, width = int(lengths.argmin()), int(lengths.min())
    shortest = {name: value[row : row + 1, :width].contiguous() for name, value in rows.items()}
    return {**shortest, "labels": torch.full_like(shortest["labels"], IGNORED)}


def _cut(rows: Mapping[str, Tensor], size: int) -> Iterator[Mapping[str, Tensor]]:
    """Yield at most `size` rows at a time, each part as wide as its longest row; rows are padded on the right."""
    mask = rows["attention_mask"]
    if len(mask) <= size:
        yield rows
        return
    for first in range(0, len(mask), size):
        part = slice(first, first + size)
        width = int(mask[part].sum(1).max())
        yield {name: value[part, :width].contiguous() for name, value in rows.items()}


def _targets(rows: Mapping[str, Tensor]) -> int:
    """Count the tokens with a loss as TRL does: nothing predicts the first of a row."""
    return int((rows["labels"][:, 1:] != IGNORED).sum())


def _bundles(rows: Mapping[str, Tensor]) -> list[Bundle]:
    """Return padded rows as prompts with one response each: the tokens with a loss, which are the last ones of a row."""
    bundles = []
    lengths = rows["attention_mask"].sum(1).tolist()
    for ids, labels, length in zip(rows["input_ids"].tolist(), rows["labels"].tolist(), lengths, strict=True):
        prompt = max(1, labels[:length].count(IGNORED))
        bundles.append(Bundle(tuple(ids[:prompt]), (tuple(ids[prompt:length]),)))
    return bundles


def _described(inputs: Mapping[str, Tensor], history: list[dict[str, float]]) -> Batch:
    lengths, ids = inputs["attention_mask"].sum(1).tolist(), [str(name) for name in inputs[ID]]
    rows = [{"id": name, "tokens": tokens} for name, tokens in zip(ids, lengths, strict=True)]
    return Batch(ids, {"examples": rows, "history": history})
