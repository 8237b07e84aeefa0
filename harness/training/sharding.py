"""Weights that FSDP or DeepSpeed spread over processes: pass through them, gather them, load them. Imports transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import MethodType
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, parse_flag_from_env
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from transformers import PreTrainedModel

from harness.errors import StageError
from harness.models.logps import Head
from harness.training.layouts.layout import Bundle, Layout

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)
METHOD = "layout_logps"  # the name that a model sharded by FSDP gets its layout's passes under


class ThroughShards:
    """A layout for a model whose weights are spread over processes: its passes enter at the whole model.

    FSDP gathers a module's weights where the module's `forward` begins. Layouts call submodules, or take the output embedding's
    weight alone, and would meet weights that are not gathered. So the model gets a method that runs the layout and that FSDP
    treats as another `forward`. Logits are not made in chunks: backward would call the output embedding again for each chunk,
    outside of every `forward` that FSDP knows.
    """

    def __init__(self, layout: Layout, model: PreTrainedModel) -> None:
        self.layout, self.name, self.warning = layout, layout.name, layout.warning
        if hasattr(layout, "head"):
            layout.head = Head()
        if isinstance(model, FSDPModule):
            setattr(model, METHOD, MethodType(lambda inner, bundles: layout.logps(inner, bundles), model))
            register_fsdp_forward_method(cast(nn.Module, model), METHOD)

    def logps(self, model: PreTrainedModel, bundles: Sequence[Bundle]) -> Tensor:
        """See `Layout.logps`."""
        # FSDP keeps the weights that it gathers for the next pass. Gathered in inference mode they would be inference tensors,
        # of which autograd refuses to save any for backward; so passes without gradient run under `no_grad` instead.
        train = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        run: Callable[[Sequence[Bundle]], Tensor] = getattr(model, METHOD, partial(self.layout.logps, model))
        with torch.inference_mode(False), torch.set_grad_enabled(train):
            return run(bundles)

    def tokens(self, bundles: Sequence[Bundle]) -> int:
        """See `Layout.tokens`."""
        return self.layout.tokens(bundles)


def whole_weights(model: nn.Module) -> dict[str, Tensor] | None:
    """Gather all weights of a sharded model on the first process's CPU; every process must call it.

    Returns:
        Weights by name (on other processes than the first FSDP gives none); None for a model that is not sharded.
    """
    if isinstance(model, FSDPModule):
        gathered = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        return {name: weight for name, weight in gathered.items() if isinstance(weight, Tensor)}
    if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):  # DeepSpeed ZeRO 3
        from deepspeed.zero import GatheredParameters

        weights = {}
        for name, parameter in model.named_parameters():  # one at a time: no device need hold the whole model
            with GatheredParameters([parameter]):
                weights[name] = parameter.detach().cpu().clone()
        return weights
    return None


def load_sharded(model: nn.Module, weights: Path, first: bool) -> None:
    """Load a model that FSDP has sharded from a safetensors file, which the first process reads for all.

    accelerate's own way to load whole weights into FSDP2 lets the other processes go on before the first has sent them.
    """
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, load_file(weights) if first else {}, options=options)


def shard_on_cpu(accelerator: Accelerator) -> bool:
    """Make accelerate shard on CPUs where FSDP was asked for, which it otherwise skips in silence; return whether it does.

    Raises:
        StageError: DeepSpeed was asked for, which needs GPUs.
    """
    if accelerator.distributed_type != DistributedType.MULTI_CPU:
        return False
    if parse_flag_from_env("ACCELERATE_USE_DEEPSPEED"):
        raise StageError("training.devices.strategy: DeepSpeed needs GPUs, and this machine has none: choose 'fsdp'")
    if not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return False
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
    accelerator.state.distributed_type = DistributedType.FSDP
    return True
