"""TRL's `SFTTrainer` on several processes. Imports trl, which takes seconds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from trl import SFTTrainer

from harness.training.shared_trainer import SharedTrainer

IGNORED = -100  # a label that counts for nothing


class SharedSFTTrainer(SharedTrainer, SFTTrainer):  # type: ignore[misc]
    """Of which every process trains on its rows of each batch. Tokens are counted over the whole batch: shares add up."""

    def training_step(self, model: PreTrainedModel, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward over a batch; its loss."""
        if self.ranks.count == 1:
            return torch.as_tensor(super().training_step(model, inputs, num_items_in_batch))
        loss: Tensor = super().training_step(model, self._own(inputs), num_items_in_batch)
        self.ranks.sum_gradients(model)
        return loss.new_tensor(sum(self.ranks.gather(float(loss)))) / self.ranks.scale

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """The loss, such that gradients come to their sum where processes average them."""
        loss = super().compute_loss(*args, **kwargs)
        return (loss[0] * self.ranks.scale, *loss[1:]) if isinstance(loss, tuple) else loss * self.ranks.scale

    def _own(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """This process's rows; a row that counts for nothing where the batch has too few."""
        lengths = inputs["attention_mask"].sum(1).tolist()
        rows = self.ranks.share(lengths)
        own = {name: value[rows or [0]] for name, value in inputs.items()}
        return own if rows else own | {"labels": own["labels"].new_full(own["labels"].shape, IGNORED)}
