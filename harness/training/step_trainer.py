"""The one subclass of `transformers.Trainer`: its step is a composed object, its batches are whole on every process.

transformers brings the loop, the optimiser, the schedule, checkpoints and the distribution over processes. How a loss is
computed is a `Step`'s business. Imports transformers and accelerate.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.utils import get_total_norm
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainerCallback
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.utils import SAFE_WEIGHTS_NAME

from harness.errors import StageError
from harness.training.checkpoint_files import (
    load_optimizer_state,
    optimizer_state,
    own_weights,
    read_weights,
    write_state,
    write_tensors,
)
from harness.training.ranks import Ranks
from harness.training.sharded_load import prepare_loaded_by_first
from harness.training.sharding import SHARDED, shard_on_cpu, whole_weights


class Step(Protocol):
    """Forward and backward over one whole batch."""

    def __call__(self, trainer: Any, model: PreTrainedModel, inputs: Mapping[str, Any], tokens: Any) -> Tensor:
        """Leave the whole batch's gradient in the model and return the whole batch's loss, a scalar.

        Args:
            trainer: the `StepTrainer` that runs the step.
            model: as the trainer has prepared it, so wrapped or sharded.
            inputs: a batch from the trainer's collator, the same on every process.
            tokens: target tokens of the batch, where the collator makes labels; None otherwise.
        """
        ...


class StepTrainer(Trainer):  # type: ignore[misc]
    """`transformers.Trainer` whose processes each get every whole batch, in one order, and take a share of it.

    accelerate would deal out examples, repeat some of them to fill the last batch, and average gradients as if all shares were
    of one size; a batch's loss would then depend on the number of processes.

    Attributes:
        step: computes a batch's loss and gradient.
        ranks: this process's place among all.
        checksums: of files of the last checkpoint that this process hashed while it wrote them, by name.
    """

    step: Step
    ranks: Ranks
    engine_steps = 0

    def __init__(self, *args: Any, step: Step, **kwargs: Any) -> None:
        self.step = step
        self.checksums: dict[str, str] = {}
        super().__init__(*args, **kwargs)
        self.add_callback(_SameOrder(self.ranks))

    def training_step(self, model: PreTrainedModel, inputs: Mapping[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """See `Step.__call__`."""
        return self.step(self, model, inputs, num_items_in_batch)

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add a pass's gradient; `last` for the last one of a batch.

        DeepSpeed's engine averages gradients and steps its optimiser within `backward`, and asks accelerate's gradient state
        whether this is the pass to do so.
        """
        self.accelerator.gradient_state._set_sync_gradients(last)
        self.accelerator.backward(loss)

    def gradient_norm(self, model: PreTrainedModel) -> float:
        """Return the L2 norm of the whole gradient, which is NaN or infinite where an element of it is."""
        if self.is_deepspeed_enabled:  # its engine has stepped and dropped the gradient, and tells what the norm was
            return float(self._get_grad_norm(model))
        norm = get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)  # FSDP's is a DTensor, one part a process

    def save_stopped(self, folder: Path) -> None:
        """Write weights, optimiser, schedule and state; every process must call it."""
        self.save_model(str(folder))
        self._save_optimizer_and_scheduler(str(folder))
        if self.ranks.first:
            self.state.save_to_json(str(folder / "trainer_state.json"))

    # From here on: where `transformers.Trainer` would do otherwise with several processes.

    def create_accelerator_and_postprocess(self) -> None:
        """Set up accelerate, but let every process see whole batches, and gradients be summed once a step."""
        super().create_accelerator_and_postprocess()
        if Ranks.here().count > 1 and shard_on_cpu(self.accelerator):
            self.is_fsdp_enabled = True
        self.ranks = Ranks.here(sharded=self.accelerator.distributed_type in SHARDED)
        if self.ranks.count == 1:
            return
        self.accelerator.prepare_data_loader = self._whole_batches
        prepare_loaded_by_first(self.accelerator, self.ranks)
        if not self.ranks.sharded:  # `Ranks.sum_gradients` sums gradients once a step, so the model is not wrapped in DDP
            self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)

    def _whole_batches(self, loader: DataLoader[Any], **options: Any) -> DataLoader[Any]:
        """Prepare a loader as accelerate would for a process that is alone."""
        whole: DataLoader[Any] = prepare_data_loader(
            loader,
            self.accelerator.device,
            num_processes=1,
            process_index=0,
            put_on_device=True,
            use_seedable_sampler=self.accelerator.use_seedable_sampler,
            data_seed=self.args.data_seed,
        )
        return whole

    def _clip_grad_norm(self, model: Any) -> Any:
        """Clip gradients; with DeepSpeed, make sure that its optimiser has stepped.

        Had `backward` not told the engine which pass was the last one, it would never step, and nothing would be trained, with
        a plausible loss in the log.
        """
        if self.is_deepspeed_enabled:
            if model.global_steps == self.engine_steps:
                raise StageError("DeepSpeed's optimiser took no step, so nothing would be trained: choose the strategy 'fsdp'")
            self.engine_steps = model.global_steps
        return super()._clip_grad_norm(model)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the whole model's weights, gathered where they are sharded; for a checkpoint each process its own part."""
        folder, sharded = Path(output_dir or self.args.output_dir), isinstance(self.model, FSDPModule)
        if not _internal_call:
            if not sharded:
                super().save_model(output_dir, _internal_call)
                return
            weights = whole_weights(cast(nn.Module, self.model))
            if self.ranks.first:
                self._save(str(folder), state_dict=weights)
            return
        if not sharded and (self.is_deepspeed_enabled or not isinstance(self.model, PreTrainedModel)):
            super().save_model(output_dir, _internal_call)  # DeepSpeed writes itself, and PEFT its adapters
        elif sharded or self.ranks.first:
            folder.mkdir(parents=True, exist_ok=True)
            name = self._part(SAFE_WEIGHTS_NAME)
            self.checksums[name] = write_tensors(folder / name, own_weights(cast(nn.Module, self.model)))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_deepspeed_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        folder = Path(output_dir)
        if isinstance(self.model, FSDPModule) or self.ranks.first:
            name = self._part(OPTIMIZER_NAME)
            self.checksums[name] = write_state(folder / name, optimizer_state(self.optimizer))
        if self.ranks.first:
            self.checksums[SCHEDULER_NAME] = write_state(folder / SCHEDULER_NAME, self.lr_scheduler.state_dict())

    def _part(self, name: str) -> str:
        """Return the name of this process's file of a checkpoint, where each process has one."""
        if not isinstance(self.model, FSDPModule):
            return name
        stem, _, suffix = name.rpartition(".")
        return f"{stem}.{self.ranks.rank}.{suffix}"

    def _save(self, *args: Any, **kwargs: Any) -> None:
        with warnings.catch_warnings():
            # PEFT stores embeddings beside adapters on them, which is right, and warns of it at every checkpoint.
            warnings.filterwarnings("ignore", message="Setting `save_embedding_layers` to `True`")
            super()._save(*args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load the weights that `save_model` wrote."""
        if not isinstance(self.model, FSDPModule):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        read_weights(Path(resume_from_checkpoint) / self._part(SAFE_WEIGHTS_NAME), cast(nn.Module, self.model))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not isinstance(self.model, FSDPModule):
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        folder = Path(checkpoint)
        state = torch.load(folder / self._part(OPTIMIZER_NAME), map_location="cpu", weights_only=True)
        load_optimizer_state(self.optimizer, state)
        self.lr_scheduler.load_state_dict(torch.load(folder / SCHEDULER_NAME, weights_only=True))


class _SameOrder(TrainerCallback):  # type: ignore[misc]
    """Give all processes one state of torch's generator before a sampler draws an epoch's order from it.

    Dropout moves the generator by as many numbers as a process had rows, so the states differ after an epoch.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ranks.same_random_numbers()
