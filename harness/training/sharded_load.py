"""Load a model for a sharded training: the first process reads it, the others never hold more than their shards.

The first process loads the model as any other one, into the CPU's memory, and sends its modules, configuration and buffers to
the others, with `meta` tensors in place of weights. When the trainer prepares the model, FSDP shards it in every process while
it has no weights, and the first process sends each its rows, one tensor at a time. However a checkpoint is stored (as a delta,
in bfloat16, with an adapter or added tokens), shards hold the bits that they had if every process had loaded the model whole.

Imports transformers and accelerate.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import CPUOffloadPolicy
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from harness.errors import StageError
from harness.training.ranks import Ranks

Model = TypeVar("Model", bound=nn.Module)
Prepare = Callable[..., Any]


def load_by_first(ranks: Ranks, load: Callable[[], Model]) -> Model:
    """Return a model with its weights in the first process, and with `meta` tensors for weights in the others.

    Args:
        load: loads the model into the CPU's memory; only the first process calls it.
    """
    if ranks.first:
        model = load()
        ranks.from_first(_without_weights(model))
        return model
    return cast(Model, ranks.from_first(None))


def prepare_loaded_by_first(accelerator: Accelerator, ranks: Ranks) -> None:
    """Have accelerate's `prepare` shard models that `load_by_first` gave; others it prepares as before."""
    prepare = accelerator.prepare

    def prepare_either(*objects: Any, **options: Any) -> Any:
        if len(objects) == 2 and isinstance(objects[0], nn.Module) and isinstance(objects[1], Optimizer):
            model, optimizer = objects
            lacks_weights = any(weight.is_meta for weight in model.parameters())
            if accelerator.distributed_type == DistributedType.FSDP and any(ranks.gather(lacks_weights)):
                return _prepare(accelerator, prepare, model, optimizer, ranks)
        return prepare(*objects, **options)

    accelerator.prepare = prepare_either


def _prepare(accelerator: Accelerator, prepare: Prepare, model: nn.Module, optimizer: Optimizer, ranks: Ranks) -> Any:
    """Shard the model, fill the shards, and return model and optimiser as accelerate prepares them."""
    names = {id(weight): name for name, weight in model.named_parameters()}
    groups = [[names[id(weight)] for weight in group["params"]] for group in optimizer.param_groups]
    whole = {name: weight.detach() for name, weight in model.named_parameters()} if ranks.first else {}
    _replace_weights(model, lambda weight: torch.empty_like(weight, device="meta"))
    for group in optimizer.param_groups:
        group["params"] = []  # they would keep the first process's whole weights alive
    fsdp2_prepare_model(accelerator, model)
    offloads = isinstance(accelerator.state.fsdp_plugin.cpu_offload, CPUOffloadPolicy)
    device = torch.device("cpu") if offloads else accelerator.device
    _replace_weights(model, lambda weight: torch.empty_like(weight, device=device))
    weights = dict(model.named_parameters())
    for name, weight in weights.items():
        _deal_out(name, weight.detach(), whole.pop(name, None), ranks)
    for group, members in zip(optimizer.param_groups, groups, strict=True):
        group["params"] = [weights[name] for name in members]
    model, prepared = prepare(model, optimizer)
    # accelerate tells parameters apart by the addresses of their shards, and all empty shards have one: named again.
    for group, members in zip(prepared.param_groups, groups, strict=True):
        group["params"] = [weights[name] for name in members]
    return model, prepared


def _without_weights(model: Model) -> Model:
    """Return a copy of a model with `meta` tensors for parameters; layers that share one share it again."""
    # `deepcopy` takes what it knows already in place of a copy.
    known = {
        id(weight): nn.Parameter(torch.empty(weight.shape, dtype=weight.dtype, device="meta"), weight.requires_grad)
        for weight in model.parameters()
    }
    return copy.deepcopy(model, known)


def _replace_weights(model: nn.Module, make: Callable[[Tensor], Tensor]) -> None:
    """Give a model other parameters; layers that share one share the new one."""
    known: dict[int, nn.Parameter] = {}
    kept = list(model.parameters())  # alive, so that no id is used twice
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if id(weight) not in known:
                known[id(weight)] = nn.Parameter(make(weight.detach()), requires_grad=weight.requires_grad)
            module.register_parameter(name, known[id(weight)])
    del kept


def _deal_out(name: str, weight: Tensor, whole: Tensor | None, ranks: Ranks) -> None:
    """Fill every process's shard of a weight from the first one's whole tensor.

    Raises:
        StageError: the weight is not sharded by rows.
    """
    if not isinstance(weight, DTensor) or weight.device_mesh.ndim != 1 or not weight.placements[0].is_shard(0):
        raise StageError(f"FSDP did not shard {name} by its rows, so it cannot be loaded: choose the strategy 'replicated'")
    own = weight.to_local()
    if whole is None:
        if len(own):
            rows = own if own.device.type == "cpu" and own.is_contiguous() else torch.empty(own.shape, dtype=own.dtype)
            distributed.recv(rows, 0)
            if rows is not own:
                own.copy_(rows)
        return
    # As FSDP deals rows out: `Tensor.chunk`, whose parts may be fewer than the processes.
    for rank, rows in enumerate(whole.to(own.dtype).chunk(ranks.count)):
        if rank == 0:
            own.copy_(rows)
        else:
            distributed.send(rows.contiguous(), rank)
