"""The large files of a training's checkpoint: weights and optimiser, hashed while they are written.

Under FSDP each process writes its shards and reads them again, so that nothing is gathered. Imports torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.optim import Optimizer

from harness.errors import StageError

NAMES = {  # of types in safetensors files
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
SHARDED = "sharded"  # an optimiser's entry in place of a sharded tensor


class HashedFile:
    """A file that is written from its start to its end, and its checksum."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._digest = stream, hashlib.sha256()

    def write(self, content: Any) -> int:
        self._digest.update(content)
        return self._stream.write(content)

    def flush(self) -> None:
        self._stream.flush()

    @property
    def checksum(self) -> str:
        """SHA-256, hexadecimal, as `harness.store.file_hash` gives it for the file."""
        return self._digest.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors as a safetensors file, one at a time, and return its checksum."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as stream:
        file = HashedFile(stream)
        file.write(len(header).to_bytes(8, "little") + header)
        for tensor in tensors.values():
            file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return file.checksum


def write_state(path: Path, state: object) -> str:
    """Write what `torch.load(weights_only=True)` reads, and return the file's checksum."""
    with path.open("wb") as stream:
        file = HashedFile(stream)
        torch.save(state, cast(IO[bytes], file))
        return file.checksum


def own_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return this process's part of the weights that are trained, and of buffers that are stored, by name."""
    frozen = {name for name, weight in model.named_parameters(remove_duplicate=False) if not weight.requires_grad}
    own, known = dict[str, Tensor](), set[int]()
    for name, weight in model.state_dict(keep_vars=True).items():
        if name not in frozen and id(weight) not in known:
            known.add(id(weight))
            own[name] = _local(weight.detach())
    return own


def read_weights(path: Path, model: nn.Module) -> None:
    """Read what `write_tensors` wrote of `own_weights`, in place.

    Raises:
        StageError: the file is absent, or of another model.
    """
    own = own_weights(model)
    if not path.is_file():
        raise StageError(f"the checkpoint {path.parent} has no {path.name}: another version wrote it; delete that folder")
    with safe_open(path, "pt") as stored:
        if set(stored.keys()) != set(own):
            raise StageError(f"{path} holds other weights than the model has: delete the folder {path.parent}")
        for name, weight in own.items():
            weight.copy_(stored.get_tensor(name))


def optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """Return an optimiser's state with this process's part of each sharded tensor."""
    state = optimizer.state_dict()
    rows = {key: {name: _packed(value) for name, value in row.items()} for key, row in state["state"].items()}
    return {**state, "state": rows}


def load_optimizer_state(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load what `optimizer_state` gave in the process of the same rank."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    rows = {
        key: {name: _unpacked(value, parameters[int(key)]) for name, value in row.items()}
        for key, row in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": rows})


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _packed(value: Any) -> Any:
    if not isinstance(value, DTensor):
        return value
    if value.device_mesh.ndim != 1:
        raise StageError("the optimiser's state is spread over more than one dimension of devices, and cannot be kept")
    (placement,) = value.placements
    if not (placement.is_shard() or placement.is_replicate()):
        raise StageError(
            f"the optimiser's state is spread as {placement}, and cannot be kept: choose another training.optimizer"
        )
    dim = placement.dim if isinstance(placement, Shard) else None
    return {SHARDED: value.to_local(), "shape": tuple(value.shape), "stride": tuple(value.stride()), "dim": dim}


def _unpacked(value: Any, parameter: Tensor) -> Any:
    if not (isinstance(value, dict) and SHARDED in value):
        return value
    assert isinstance(parameter, DTensor)
    placement = Replicate() if value["dim"] is None else Shard(value["dim"])
    local = value[SHARDED].to(parameter.to_local().device)
    shape, stride = torch.Size(value["shape"]), tuple(value["stride"])
    return DTensor.from_local(local, parameter.device_mesh, [placement], run_check=False, shape=shape, stride=stride)
