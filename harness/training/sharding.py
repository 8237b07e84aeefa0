"""Weights that FSDP or DeepSpeed spread over processes: pass through them, gather them. Imports transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MethodType
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, parse_flag_from_env
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from harness.errors import StageError
from harness.models.logps import Head
from harness.training.layouts.layout import Bundle, Layout
from harness.training.precision import recast_in_backward
from harness.training.ranks import Ranks

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
        self.head = layout.head = Head()
        if isinstance(model, FSDPModule):
            recast_in_backward(cast(nn.Module, model))
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


def is_sharded(model: nn.Module) -> bool:
    """Return whether a process holds a part of the model's weights alone."""
    return isinstance(model, FSDPModule) or any(hasattr(parameter, "ds_id") for parameter in model.parameters())


def whole_weights(model: nn.Module, into: Mapping[str, Tensor] | None = None) -> dict[str, Tensor] | None:
    """Gather all weights of a sharded model in the first process's memory, one at a time; every process must call it.

    Args:
        into: tensors on the CPU to gather into, by name; those that are missing are made. Of the first process only.

    Returns:
        Weights by name (on other processes than the first FSDP gives none); None for a model that is not sharded.
    """
    places, weights = into or {}, dict[str, Tensor]()
    if isinstance(model, FSDPModule):
        ranks, known = Ranks.here(), dict[int, Tensor]()
        for name, weight in cast(nn.Module, model).state_dict(keep_vars=True).items():
            again = id(weight) in known  # one that two layers share has two names, and is sent once
            if not again:
                known[id(weight)] = _whole_weight(weight.detach(), ranks, places.get(name))
            if ranks.first:
                whole = known[id(weight)]
                weights[name] = _copied(whole, places[name]) if again and name in places else whole
        return weights
    if is_sharded(model):  # DeepSpeed ZeRO 3
        from deepspeed.zero import GatheredParameters

        for name, parameter in model.named_parameters():  # one at a time: no device need hold the whole model
            with GatheredParameters([parameter]):
                weights[name] = _copied(parameter.detach(), places.get(name))
        return weights
    return None


def _whole_weight(weight: Tensor, ranks: Ranks, into: Tensor | None) -> Tensor:
    """Return a whole weight on the CPU; in all processes but the first, which hold no more than their part, an empty one."""
    if not isinstance(weight, DTensor):  # what FSDP does not shard, each process has
        return _copied(weight, into) if ranks.first else torch.empty(0)
    if weight.device_mesh.ndim != 1 or not weight.placements[0].is_shard(0):
        full = weight.full_tensor()
        return _copied(full, into) if ranks.first else torch.empty(0)
    own = weight.to_local().cpu()
    if not ranks.first:
        if len(own):
            distributed.send(own.contiguous(), 0)
        return torch.empty(0)
    whole = torch.empty(weight.shape, dtype=weight.dtype) if into is None else into
    first = 0
    # As FSDP deals rows out: `Tensor.chunk`, whose parts may be fewer than the processes.
    for rank, part in enumerate(torch.empty(weight.shape, device="meta").chunk(ranks.count)):
        rows = whole[first : first + len(part)]
        first += len(part)
        if rank == 0:
            rows.copy_(own)
        elif rows.dtype == weight.dtype and rows.is_contiguous():
            distributed.recv(rows, rank)
        else:
            received = torch.empty(rows.shape, dtype=weight.dtype)
            distributed.recv(received, rank)
            rows.copy_(received)
    return whole


def _copied(weight: Tensor, into: Tensor | None) -> Tensor:
    return weight.cpu().clone() if into is None else into.copy_(weight)


def fsdp_asked() -> bool:
    """Return whether this process was started to train with FSDP."""
    return bool(parse_flag_from_env("ACCELERATE_USE_FSDP"))


def shard_on_cpu(accelerator: Accelerator) -> bool:
    """Make accelerate shard on CPUs where FSDP was asked for, which it otherwise skips in silence; return whether it does.

    Raises:
        StageError: DeepSpeed was asked for, which needs GPUs.
    """
    if accelerator.distributed_type != DistributedType.MULTI_CPU:
        return False
    if parse_flag_from_env("ACCELERATE_USE_DEEPSPEED"):
        raise StageError("training.devices.strategy: DeepSpeed needs GPUs, and this machine has none: choose 'fsdp'")
    if not fsdp_asked():
        return False
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
    accelerator.state.distributed_type = DistributedType.FSDP
    return True
