"""`transformers.Trainer` on several processes that see the same whole batches. Imports transformers and accelerate."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any, cast

import torch
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, parse_flag_from_env
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainerCallback
from transformers.utils import SAFE_WEIGHTS_NAME

from harness.errors import StageError
from harness.models.logps import Head
from harness.training.layouts.layout import Bundle, Layout
from harness.training.ranks import Ranks

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)
METHOD = "layout_logps"  # of a model that FSDP has sharded


class SharedTrainer(Trainer):  # type: ignore[misc]
    """Of which every process gets every whole batch, in one order, and takes its share of it.

    accelerate would deal out examples, repeat some of them to fill the last batch, and average gradients as if all shares were
    of one size; a batch's loss would then depend on the number of processes.

    Attributes:
        ranks: this process's place among them.
    """

    ranks: Ranks
    engine_steps = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_callback(_SameOrder(self.ranks))

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if Ranks.here().count > 1:
            _shard_on_cpu(self)
        self.ranks = Ranks.here(sharded=self.accelerator.distributed_type in SHARDED)
        if self.ranks.count == 1:
            return
        self.accelerator.prepare_data_loader = self._whole_batches
        if not self.ranks.sharded:  # gradients are summed once a step: there is nothing for DDP to do
            self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)

    def _clip_grad_norm(self, model: Any) -> Any:
        """DeepSpeed has stepped its optimiser by now. Had it not, nothing would be learnt, and nothing would tell."""
        if self.is_deepspeed_enabled:
            if model.global_steps == self.engine_steps:
                raise StageError("DeepSpeed's optimiser took no step, so nothing would be trained: choose the strategy 'fsdp'")
            self.engine_steps = model.global_steps
        return super()._clip_grad_norm(model)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The whole model's weights, gathered where they are spread over processes."""
        if not isinstance(self.model, FSDPModule):
            super().save_model(output_dir, _internal_call)
            return
        weights, folder = whole_weights(cast(nn.Module, self.model)), Path(output_dir or self.args.output_dir)
        if self.ranks.first and not _internal_call:
            self._save(str(folder), state_dict=weights)
        elif self.ranks.first and weights:
            folder.mkdir(parents=True, exist_ok=True)
            save_file({name: weight.clone() for name, weight in weights.items()}, folder / SAFE_WEIGHTS_NAME)

    def _save(self, *args: Any, **kwargs: Any) -> None:
        with warnings.catch_warnings():
            # Of adapters on embeddings PEFT keeps the embeddings too, and says so at every checkpoint.
            warnings.filterwarnings("ignore", message="Setting `save_embedding_layers` to `True`")
            super()._save(*args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """What `save_model` kept. accelerate's own way for FSDP2's whole weights lets all but the first process go on alone."""
        if not isinstance(self.model, FSDPModule):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        weights = load_file(Path(resume_from_checkpoint) / SAFE_WEIGHTS_NAME) if self.ranks.first else {}
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_model_state_dict(cast(nn.Module, self.model), weights, options=options)

    def _whole_batches(self, loader: DataLoader[Any], **options: Any) -> DataLoader[Any]:
        """The loader as one process alone would have it."""
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


class _SameOrder(TrainerCallback):  # type: ignore[misc]
    """Samplers draw an epoch's order from torch's generator, which dropout may have moved differently on each process."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ranks.same_random_numbers()


class ThroughShards:
    """A layout for a model whose weights are spread over processes: its passes go in at the whole model.

    FSDP gathers weights where a module's `forward` begins. Layouts call what lies inside, or the output embedding's weight
    alone; so the model gets a method for them, which FSDP treats as another `forward`, and logits are not made in chunks.
    """

    def __init__(self, layout: Layout, model: PreTrainedModel) -> None:
        self.layout, self.name, self.warning = layout, layout.name, layout.warning
        if hasattr(layout, "head"):
            layout.head = Head()
        if isinstance(model, FSDPModule):
            setattr(model, METHOD, MethodType(lambda inner, bundles: layout.logps(inner, bundles), model))
            register_fsdp_forward_method(cast(nn.Module, model), METHOD)

    def logps(self, model: PreTrainedModel, bundles: Sequence[Bundle]) -> Tensor:
        """See `Layout.logps`. FSDP keeps what it gathers, so inference mode, whose tensors take no gradient, is left."""
        train = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        run: Callable[[Sequence[Bundle]], Tensor] = getattr(model, METHOD, partial(self.layout.logps, model))
        with torch.inference_mode(False), torch.set_grad_enabled(train):
            return run(bundles)

    def tokens(self, bundles: Sequence[Bundle]) -> int:
        return self.layout.tokens(bundles)


def whole_weights(model: nn.Module) -> dict[str, Tensor] | None:
    """All weights of a model that is spread over processes, on the first one's CPU; None if it is whole. All must call it."""
    if isinstance(model, FSDPModule):
        gathered = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        return {name: weight for name, weight in gathered.items() if isinstance(weight, Tensor)}
    if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):  # DeepSpeed ZeRO 3
        from deepspeed.zero import GatheredParameters

        weights = {}
        for name, parameter in model.named_parameters():
            with GatheredParameters([parameter]):
                weights[name] = parameter.detach().cpu().clone()
        return weights
    return None


def _shard_on_cpu(trainer: Trainer) -> None:
    """accelerate shards on accelerators alone; on a CPU it is told to, so that what is asked for is what is done."""
    accelerator = trainer.accelerator
    if accelerator.distributed_type != DistributedType.MULTI_CPU:
        return
    if parse_flag_from_env("ACCELERATE_USE_DEEPSPEED"):
        raise StageError("training.devices.strategy: DeepSpeed needs GPUs, and this machine has none: choose 'fsdp'")
    if parse_flag_from_env("ACCELERATE_USE_FSDP"):
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        accelerator.state.distributed_type = DistributedType.FSDP
        trainer.is_fsdp_enabled = True
