"""Starting models: a folder, or a hub repository at a commit, and how it is loaded.

A `Checkpoint` is resolved while planning, before any weight is read, and goes to the workers as JSON.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.api.limits import read_json
from harness.errors import DataError
from harness.models.delta_note import Base, is_delta
from harness.models.fetched import CAUSAL_LM, fetched, hashes_folder
from harness.models.hub import NAME, hub_commit, hub_files, hub_snapshot
from harness.models.options import LoadOptions
from harness.store import canonical
from harness.store.hashes import known_hashes

SANDBOX = "sandbox"
ADAPTER = "adapter_config.json"
WEIGHTS = ("*.safetensors",)
SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
CODE = ("*.py",)
_INDEX = "model.safetensors.index.json"
OTHER_FORMATS = ("*.bin", "*.pt", "*.pth", "*.msgpack", "*.h5", "*.gguf")
_HASHED = frozenset({".safetensors", ".json", ".jinja", ".model", ".txt"})
_IGNORED = {"recipe.json", "artifact.json"}


@dataclass(frozen=True)
class Checkpoint:
    """A starting model.

    Attributes:
        folder: of a local one; None of the hub's.
        hub: `owner/name` of a hub model; None of a local one.
        commit: of a hub model: the whole hash.
        options: how it is loaded.
        template_hash: SHA-256 of the chat template that it is used with.
        deltas: whether models that are trained from it are kept as their difference from it (`harness.models.delta`); no part
            of its identity.
    """

    folder: str | None
    hub: str | None = None
    commit: str | None = None
    options: LoadOptions = field(default_factory=LoadOptions)
    template_hash: str | None = None
    deltas: bool = False

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Checkpoint:
        """Return the checkpoint that `as_dict` wrote."""
        return cls(**{**row, "options": LoadOptions(**row["options"])})

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    @cached_property
    def digest(self) -> str:
        """A hash of all that decides what it computes. With default options a folder's is that of its files alone."""
        suffixes = _HASHED | ({".py"} if self.options.trust_remote_code else frozenset())
        content = f"hub:{self.hub}@{self.commit}" if self.hub else checkpoint_hash(Path(self.folder or ""), suffixes)
        changed = self.options.changed()
        if not changed and not self.hub:
            return content
        return hashlib.sha256(f"{content} {canonical(changed)}".encode()).hexdigest()[:32]

    def provenance(self) -> dict[str, object]:
        """Return its names and hashes for a board; no path of this machine."""
        named = {"hub": self.hub, "commit": self.commit} if self.hub else {}
        changed = {name: value for name, value in self.options.changed().items() if name != "chat_template"}
        return {**named, **changed, "hash": self.digest, "chat_template_sha256": self.template_hash}

    @property
    def place(self) -> str:
        """Its folder, or `owner/name@commit`, from which `base_checkpoint` finds it again."""
        return f"{self.hub}@{self.commit}" if self.hub else str(Path(self.folder or "").resolve())

    def files(self, *, weights: bool = True) -> Path:
        """The folder with its files, downloaded if they are the hub's and not in its cache."""
        if self.hub is None or self.commit is None:
            return Path(self.folder or "")
        patterns = (*SMALL_FILES, *(CODE if self.options.trust_remote_code else ()), *(WEIGHTS if weights else ()))
        folder = hub_snapshot(self.hub, self.commit, patterns)
        if weights:
            _check_weights([path.name for path in folder.iterdir()], folder, self.hub)
        return folder


def base_checkpoint(base: Base) -> Checkpoint:
    """Return the starting model that a delta is added to, from where the training had it.

    Raises:
        DataError: it is not there any more.
    """
    place = base.place or ""
    hub, _, commit = place.rpartition("@")
    if NAME.fullmatch(hub) and not Path(place).is_dir():
        return Checkpoint(None, hub, commit)
    if not Path(place).is_dir():
        raise DataError(
            f"the model is kept as its difference from {base.model}, and {place or 'that'} is no folder of this machine: bring "
            "the starting model back there, or name it as the config's model.path"
        )
    return Checkpoint(place)


def locate(path: str, revision: str | None = None) -> Checkpoint:
    """The starting model that `model.path` names: `sandbox`, a local folder, a fetched one, or a hub model at its commit.

    Raises:
        DataError: there is none, it cannot be reached, or its weights are not safetensors.
    """
    if path == SANDBOX or Path(path).expanduser().is_dir() or not NAME.fullmatch(path):
        if revision is not None:
            raise DataError(f"model.revision = {revision!r}: {path!r} is a folder, and only hub models have revisions")
        return Checkpoint(str(checkpoint_folder(path)))
    commit = hub_commit(path, revision)
    files = hub_files(path, commit)
    if not any(name.endswith(".safetensors") for name in files):
        formats = _formats([Path(name).name for name in files])
        raise DataError(f"model.path = {path!r}: no *.safetensors at commit {commit[:12]}; {formats}")
    return Checkpoint(None, path, commit)


def checkpoint_folder(path: str) -> Path:
    """The folder of a local starting model: `sandbox` is the one in the package, `smollm2` the one that `harness fetch` made.

    Raises:
        DataError: no such folder, or no safetensors in it, or not all of them.
    """
    folder = Path(__file__).parent.parent / "sandbox" / "base" if path == SANDBOX else Path(path).expanduser()
    if not folder.is_dir():
        try:
            known = fetched(path, CAUSAL_LM)
        except DataError as error:
            raise DataError(f"model.path = {path!r}: {error}") from error
        if known is None:
            raise DataError(
                f"model.path = {path!r}: no such folder; give 'sandbox', a local checkpoint folder, 'smollm2' after `harness "
                "fetch smollm2`, or a hub model as owner/name"
            )
        folder = known
    if (folder / ADAPTER).exists() and not (folder / "config.json").exists():
        raise DataError(f"model.path = {path!r}: it is a PEFT adapter; name its base here and the adapter as model.adapter")
    if is_delta(folder):
        raise DataError(
            f"model.path = {path!r}: it holds a difference from another model (model.storage: delta): write the whole model "
            "with `harness export`, and name that"
        )
    _check_weights([file.name for file in folder.iterdir()], folder, path)
    return folder


def adapter_folder(path: str) -> Path:
    """The folder of a PEFT adapter.

    Raises:
        DataError: there is none, or it is not in safetensors.
    """
    folder = Path(path).expanduser()
    if not (folder / ADAPTER).is_file():
        raise DataError(f"model.adapter = {path!r}: no {ADAPTER} in it; give a local folder that PEFT saved")
    if not (folder / "adapter_model.safetensors").is_file():
        formats = _formats([file.name for file in folder.iterdir()])
        raise DataError(f"model.adapter = {path!r}: no adapter_model.safetensors; {formats}")
    return folder


def checkpoint_hash(folder: Path, suffixes: frozenset[str] = _HASHED) -> str:
    """A hash of everything that decides what the checkpoint computes: weights, configuration, tokenizer, template.

    Large files are read once on a machine: `harness.store.hashes`.
    """
    digest = hashlib.sha256()
    files = [file for file in sorted(folder.iterdir()) if file.suffix in suffixes and file.name not in _IGNORED]
    for file, checksum in zip(files, known_hashes(files, hashes_folder()), strict=True):
        digest.update(f"{file.name} {checksum}\n".encode())
    return digest.hexdigest()[:32]


def _check_weights(names: list[str], folder: Path, path: str) -> None:
    """At least one safetensors file, every shard that the index names, and nothing that would be waited for."""
    odd = [
        name
        for name in names
        if Path(name).suffix in _HASHED and not (folder / name).is_file() and not (folder / name).is_dir()
    ]
    if odd:
        raise DataError(f"model.path = {path!r}: {odd[0]} in it is no file: is the download complete?")
    if not any(name.endswith(".safetensors") for name in names):
        raise DataError(f"model.path = {path!r}: no *.safetensors in {folder}; {_formats(names)}")
    if _INDEX not in names:
        return
    try:
        shards = set(read_json(folder / _INDEX)["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"model.path = {path!r}: {_INDEX} cannot be read ({error}); is the download complete?") from error
    if missing := sorted(shards - set(names)):
        raise DataError(f"model.path = {path!r}: {_INDEX} names {missing[0]}, which is not there; is the download complete?")


def _formats(names: list[str]) -> str:
    other = sorted(name for name in names if any(Path(name).match(pattern) for pattern in OTHER_FORMATS))
    if not other:
        return "other weight formats are not read"
    return f"{other[0]} is not read, because it may run code: convert it with save_pretrained(safe_serialization=True)"
