"""Models kept as their difference from another one (`model.storage: delta`): exact to the bit, and compressed.

Floats are mapped to integers in their order, so that a small step of a weight is a small number whatever its sign. The
differences of these integers are cut into byte planes: the high planes of a small update are nearly all zero and compress
well, the lowest one hardly does. `delta.json` holds the headers of the model's safetensors files as they were, so that the
files are written again byte for byte; their checksums are compared whenever they are.

A model trained with low-rank adapters is a difference from its start with the adapters added (`harness.models.low_rank`). That
sum is the same on every machine, and off the merged weights by a last digit here and there at most: the adapters are nearly
all that is kept.

Planes lie in safetensors as bytes, compressed by zstandard (pyarrow has it). Nothing here is a pickle.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.models.delta_note import NOTE, OWN_ADAPTER, Base, DeltaNote, TensorPlace, WeightsFile, is_delta, read_note
from harness.models.low_rank import Adapter

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 2**21  # weights that are encoded at once; arrays of much more are slow, since each is mapped anew
SHARD = 2**30  # bytes of compressed planes in a file, about
_INTEGERS: Mapping[str, type[np.unsignedinteger[Any]]] = {"F32": np.uint32, "BF16": np.uint16, "F16": np.uint16}
_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}  # of safetensors' types in torch

Planes = list[bytes]
Bits = NDArray[np.unsignedinteger[Any]]
Locate = Callable[[Base], Path]  # gives the folder of a model that a delta is added to, which may hold a delta itself


def shrink(folder: Path, base: Base, locate: Locate, adapters: Sequence[Path] = ()) -> float:
    """Replace the weights in a checkpoint folder by their difference from another model's.

    Args:
        base: the other model. Tensors that it lacks are kept whole.
        adapters: folders of low-rank adapters that the training added to it, in order. `../adapter` stays where it is; the
            others are copied into the folder.

    Returns:
        The bytes of the difference over those of the weights.

    Raises:
        DataError: the difference does not give the weights back; they are then still there.
    """
    files = {path.name: path for path in sorted(folder.glob("*.safetensors"))}
    before = sum(path.stat().st_size for path in files.values())
    headers = {name: _header(path) for name, path in files.items()}
    note = DeltaNote(
        base=base,
        adapters=tuple(_kept_adapter(folder, adapter, number) for number, adapter in enumerate(adapters)),
        files={name: WeightsFile(header=headers[name], sha256=_sha256(path)) for name, path in files.items()},
    )
    with ExitStack() as stack:
        start, shards = stack.enter_context(_Start(folder, note, locate)), _Shards(folder)
        for name, path in files.items():
            own = stack.enter_context(_Tensors(folder, [path]))
            for tensor, place in note.files[name].tensors.items():
                for number, (first, last) in enumerate(_blocks(place.count)):
                    weights = own.integers(tensor, place, first, last)
                    shards.add(tensor, number, encode(weights, start.integers(tensor, place, first, last)))
        shards.close()
    (folder / NOTE).write_text(note.text() + "\n", encoding="utf-8")
    try:
        for name in files:
            for _ in _content(folder, note, locate, name):  # compares the checksum at its end
                pass
    except DataError:
        for path in (folder / NOTE, *shards.written):
            path.unlink()
        raise
    for path in files.values():
        path.unlink()
    kept = [folder / NOTE, *shards.written, *(path for name in note.adapters for path in (folder / name).iterdir())]
    return sum(path.stat().st_size for path in kept) / before


def adapters_of(folder: Path) -> tuple[Path, ...]:
    """Return the folders of the low-rank adapters that a delta is made with, in the order in which they are added."""
    return tuple(folder / name for name in read_note(folder).adapters)


def rebuild(folder: Path, locate: Locate, out: Path) -> Path:
    """Write the whole checkpoint that a delta stands for into another folder, byte for byte, and return that.

    Raises:
        DataError: the base is not the model that the delta was made from, or a file is damaged.
    """
    note = read_note(folder)
    out.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_file() and path.name != NOTE and not path.match("delta-*.safetensors"):
            shutil.copyfile(path, out / path.name)
    for name in note.files:
        with (out / name).open("wb") as stream:
            for content in _content(folder, note, locate, name):
                stream.write(content)
    return out


def state_dict(folder: Path, locate: Locate) -> dict[str, Tensor]:
    """Return the weights that a delta stands for, in the type that they were stored in.

    Raises:
        DataError: as `rebuild`.
    """
    import torch

    note, weights = read_note(folder), {}
    for name, file in note.files.items():
        content = _content(folder, note, locate, name)
        next(content)  # the header
        for tensor, place in file.tensors.items():
            whole = np.empty(place.count, _integers(place.dtype))
            for first, last in _blocks(place.count):
                whole[first:last] = np.frombuffer(next(content), whole.dtype)
            typed = torch.from_numpy(whole.view(np.int32 if whole.itemsize == 4 else np.int16))
            weights[tensor] = typed.view(getattr(torch, _NAMES[place.dtype])).reshape(place.shape)
        for _ in content:  # nothing is left but the checksum's comparison
            raise DataError(f"{folder}: more weights than its header says")
    return weights


def encode(weights: Bits, start: Bits) -> Planes:
    """Return the compressed byte planes of a difference, the lowest first.

    Args:
        weights: bits of floats as unsigned integers, 1-D.
        start: the same of the start, of the same type and length.
    """
    from pyarrow import compress

    step = _ordered(weights) - _ordered(start)
    zigzag = (step << 1) ^ _sign(step)  # 0, -1, 1, -2 … become 0, 1, 2, 3 …
    planes = zigzag.view(np.uint8).reshape(-1, weights.itemsize)  # little-endian
    return [compress(np.ascontiguousarray(planes[:, place]), codec="zstd", asbytes=True) for place in range(weights.itemsize)]


def decode(planes: Planes, start: Bits) -> Bits:
    """Return the weights that `encode` was given: bits of floats as unsigned integers."""
    from pyarrow import decompress

    zigzag = np.zeros(len(start), start.dtype)
    for place, plane in enumerate(planes):
        part = np.frombuffer(decompress(plane, len(start), codec="zstd", asbytes=True), np.uint8).astype(start.dtype)
        zigzag |= part << 8 * place
    step = (zigzag >> 1) ^ -(zigzag & 1)
    return _floats(_ordered(start) + step)


def _sign(bits: Bits) -> Bits:
    """Return all ones where the highest bit is set, else zero."""
    signed: NDArray[Any] = bits.view(np.int32 if bits.itemsize == 4 else np.int16)
    sign: Bits = np.right_shift(signed, 8 * bits.itemsize - 1).view(bits.dtype)
    return sign


def _top(bits: Bits) -> Any:
    return bits.dtype.type(1 << (8 * bits.itemsize - 1))


def _ordered(bits: Bits) -> Bits:
    """Map bits of floats to unsigned integers in the floats' order: those of negative floats are turned round."""
    ordered: Bits = bits ^ (_sign(bits) | _top(bits))
    return ordered


def _floats(ordered: Bits) -> Bits:
    """Invert `_ordered`."""
    bits: Bits = ordered ^ (~_sign(ordered) | _top(ordered))
    return bits


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    for first in range(0, count, BLOCK):
        yield first, min(first + BLOCK, count)


def _integers(dtype: str) -> type[np.unsignedinteger[Any]]:
    if dtype not in _INTEGERS:
        raise DataError(f"weights of type {dtype} cannot be stored as a difference: choose model.storage = float32")
    return _INTEGERS[dtype]


def _header(path: Path) -> str:
    """Return a safetensors file's header, padding included."""
    with path.open("rb") as stream:
        return stream.read(int.from_bytes(stream.read(8), "little")).decode("utf-8")


def _head(header: str) -> bytes:
    content = header.encode("utf-8")
    return len(content).to_bytes(8, "little") + content


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _kept_adapter(folder: Path, adapter: Path, number: int) -> str:
    """Return the path, from a delta's folder, of an adapter that it is made with, copied there unless it lies beside it."""
    if adapter.resolve() == (folder / OWN_ADAPTER).resolve():
        return OWN_ADAPTER
    name = f"adapter-{number + 1}"
    shutil.copytree(adapter, folder / name)
    return name


def _content(folder: Path, note: DeltaNote, locate: Locate, name: str) -> Iterator[bytes]:
    """Yield the bytes of a file that the delta stands for: its header, then every block of its tensors.

    Raises:
        DataError: after the last of them, where they are not the file's.
    """
    file = note.files[name]
    digest = hashlib.sha256(_head(file.header))
    yield _head(file.header)
    with _Difference(folder, note, locate) as weights:
        for tensor, place in file.tensors.items():
            for first, last in _blocks(place.count):
                content = weights.integers(tensor, place, first, last).tobytes()
                digest.update(content)
                yield content
    if digest.hexdigest() != file.sha256:
        raise DataError(
            f"{folder} with {locate(note.base)} does not give the weights that were trained: that is not the model the "
            f"training began with ({note.base.model}), or a file is damaged; bring the start back, or delete the artifact and "
            "run again"
        )


class _Weights(Protocol):
    """Weights that are read by blocks: a folder's own, or those that a delta stands for."""

    def __enter__(self) -> _Weights: ...

    def __exit__(self, *error: object) -> None: ...

    def integers(self, name: str, place: TensorPlace, first: int, last: int) -> NDArray[Any]:
        """Return some of a tensor's weights as the bits of floats, in the type of `place`; zeros where it has none."""
        ...


class _Start:
    """The weights that a difference is added to: the base's, with those of adapters added in float32."""

    def __init__(self, folder: Path, note: DeltaNote, locate: Locate) -> None:
        base = locate(note.base)
        self.base: _Weights = _Difference(base, read_note(base), locate) if is_delta(base) else _Tensors(base)
        self.adapters = [Adapter(folder / name) for name in note.adapters]

    def __enter__(self) -> _Start:
        self.base.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.base.__exit__(*error)

    def integers(self, name: str, place: TensorPlace, first: int, last: int) -> NDArray[Any]:
        bits = self.base.integers(name, place, first, last)
        if place.dtype == "F32":
            for adapter in self.adapters:
                bits = adapter.added(name, place.shape, first, bits.view(np.float32)).view(np.uint32)
        return bits


class _Difference:
    """The weights that a delta stands for."""

    def __init__(self, folder: Path, note: DeltaNote, locate: Locate) -> None:
        self.start, self.planes = _Start(folder, note, locate), _Planes(folder)
        self.places = {name: place for file in note.files.values() for name, place in file.tensors.items()}

    def __enter__(self) -> _Difference:
        with ExitStack() as stack:
            stack.enter_context(self.start)
            stack.enter_context(self.planes)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def integers(self, name: str, place: TensorPlace, first: int, last: int) -> NDArray[Any]:
        own = self.places.get(name)
        if own is None or own.dtype != place.dtype or own.shape[1:] != place.shape[1:]:
            return np.zeros(last - first, _integers(place.dtype))
        end = min(last, max(first, own.count))
        # A block begins at a multiple of BLOCK in both tensors, whatever their lengths.
        block = (first, min(first + BLOCK, own.count))
        if end == first:
            return np.zeros(last - first, _integers(place.dtype))
        bits = decode(self.planes.read(name, first // BLOCK, own), self.start.integers(name, own, *block))[: end - first]
        return _followed_by_zeros(bits, last - first)


class _Tensors:
    """The tensors of a folder's safetensors files, read by blocks as the bits of floats."""

    def __init__(self, folder: Path, files: list[Path] | None = None) -> None:
        self.files = sorted(folder.glob("*.safetensors")) if files is None else files
        self._stack = ExitStack()
        self._of: dict[str, Any] = {}
        self._last: tuple[str, Tensor] | None = None

    def __enter__(self) -> _Tensors:
        from safetensors import safe_open

        for path in self.files:
            opened = self._stack.enter_context(safe_open(path, "pt"))
            self._of |= dict.fromkeys(opened.keys(), opened)
        return self

    def __exit__(self, *error: object) -> None:
        self._last = None
        self._stack.close()

    def integers(self, name: str, place: TensorPlace, first: int, last: int) -> NDArray[Any]:
        """See `_Weights`. A tensor of fewer rows, as embeddings have before tokens are added, is followed by zeros."""
        import torch

        kind = _integers(place.dtype)
        if name not in self._of:
            return np.zeros(last - first, kind)
        if self._last is None or self._last[0] != name:
            weight = self._of[name].get_tensor(name)
            fits = weight.shape[1:] == place.shape[1:] and weight.is_floating_point()
            flat = weight.reshape(-1) if fits else weight.new_zeros(0, dtype=torch.float32)
            self._last = name, flat
        part = self._last[1][first:last].to(getattr(torch, _NAMES[place.dtype]))
        bits = part.contiguous().view(torch.int32 if kind is np.uint32 else torch.int16).numpy().view(kind)
        return _followed_by_zeros(bits, last - first)


def _followed_by_zeros(bits: Bits, length: int) -> Bits:
    return bits if len(bits) == length else np.concatenate([bits, np.zeros(length - len(bits), bits.dtype)])


@dataclass
class _Shards:
    """Files of compressed planes, written as they are full."""

    folder: Path
    written: list[Path] = field(default_factory=list)
    _waiting: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    _size: int = 0

    def add(self, tensor: str, block: int, planes: Planes) -> None:
        for place, plane in enumerate(planes):
            self._waiting[f"{tensor}/{block}/{place}"] = np.frombuffer(plane, np.uint8)
            self._size += len(plane)
        if self._size >= SHARD:
            self.close()

    def close(self) -> None:
        from safetensors.numpy import save_file

        if self._waiting:
            path = self.folder / f"delta-{len(self.written) + 1:05d}.safetensors"
            save_file(self._waiting, path)
            self.written.append(path)
            self._waiting, self._size = {}, 0


class _Planes:
    """The compressed planes of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self._of: dict[str, Any] = {}

    def __enter__(self) -> _Planes:
        from safetensors import safe_open

        for path in sorted(self.folder.glob("delta-*.safetensors")):
            opened = self._stack.enter_context(safe_open(path, "np"))
            self._of |= dict.fromkeys(opened.keys(), opened)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def read(self, tensor: str, block: int, place: TensorPlace) -> Planes:
        names = [f"{tensor}/{block}/{number}" for number in range(np.dtype(_integers(place.dtype)).itemsize)]
        if lacking := [name for name in names if name not in self._of]:
            raise DataError(f"{self.folder}: {lacking[0]} is absent, so a file is damaged: delete the artifact and run again")
        return [self._of[name].get_tensor(name).tobytes() for name in names]
