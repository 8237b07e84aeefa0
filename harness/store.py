"""Content-addressed artifacts: made once, verified when read, shared by methods, seeds and runs.

An artifact is a folder under the hash of everything that decides it. It is written beside its place, every file's checksum
is noted, and the folder is renamed into place: a reader sees a whole artifact or none, wherever a writer was killed. Writers
of the same key queue on a file lock, which the kernel frees when a process dies.

    <root>/artifacts/<2 digits>/<key>/   files and artifact.json
    <root>/locks/<key>                   who is making it
    <root>/parts/<machine>-<process>-…/  being written; swept when its process is gone
    <root>/damaged/                      what failed verification, kept for a look
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from harness.errors import StoreError

MANIFEST = "artifact.json"


def canonical(value: Any) -> str:
    """JSON that is the same for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def key_of(
    kind: str, version: int, payload: Mapping[str, Any], inputs: Mapping[str, str], environment: Mapping[str, str] | None = None
) -> str:
    """The address of what `kind` makes from `payload` and `inputs` in an environment: 32 hexadecimal digits."""
    parts = {"kind": kind, "version": version, "payload": payload, "inputs": inputs}
    if environment is not None:
        parts["environment"] = environment
    return hashlib.sha256(canonical(parts).encode()).hexdigest()[:32]


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A finished artifact.

    Attributes:
        facts: what its maker noted: tokens, counts, losses.
        seconds: wall time it took to make.
    """

    key: str
    kind: str
    folder: Path
    facts: Mapping[str, Any]
    seconds: float

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def read_json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def read_lines(self, name: str) -> Iterator[Any]:
        """The rows of a JSON-lines file."""
        with (self.folder / name).open(encoding="utf-8") as stream:
            for line in stream:
                yield json.loads(line)


@dataclass
class Draft:
    """An artifact being written: put files into `folder`, numbers into `facts`."""

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)

    def write_json(self, name: str, value: Any) -> None:
        (self.folder / name).write_text(canonical(value) + "\n", encoding="utf-8")

    def write_lines(self, name: str, rows: Iterator[Any] | list[Any]) -> None:
        with (self.folder / name).open("w", encoding="utf-8") as stream:
            for row in rows:
                stream.write(canonical(row) + "\n")


class Store:
    """Artifacts under one folder.

    Args:
        root: created if absent.

    Raises:
        StoreError: the folder cannot be written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._verified: set[str] = set()
        try:
            for name in ("artifacts", "locks", "parts"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            probe = self._part()
            probe.mkdir()
            probe.rmdir()
        except OSError as error:
            raise StoreError(
                f"the store {self.root} cannot be written ({error.strerror}): choose another with --store"
            ) from error

    def _part(self) -> Path:
        """A new name for something half-written, which tells whose it is: machine, process, anything unique."""
        return self.root / "parts" / f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex}"

    def place(self, key: str) -> Path:
        """Where the artifact is, or would be."""
        return self.root / "artifacts" / key[:2] / key

    def holds(self, key: str) -> bool:
        """Whether a whole, undamaged artifact is there. A damaged one is put aside, so that it is made again.

        Raises:
            StoreError: a damaged one cannot be put aside.
        """
        if not self.place(key).exists():
            return False
        try:
            self.open(key)
        except StoreError:
            self._put_aside(key)
            return False
        return True

    def _put_aside(self, key: str) -> None:
        aside = self.root / "damaged" / f"{key}-{uuid.uuid4().hex[:8]}"
        try:
            aside.parent.mkdir(exist_ok=True)
            self.place(key).rename(aside)
        except FileNotFoundError:
            return  # another process was faster
        except OSError as error:
            raise StoreError(f"the damaged artifact {self.place(key)} cannot be put aside ({error}): delete it") from error
        with contextlib.suppress(StoreError, OSError):  # what another process had just made again goes back
            self._read(aside, key, verify=True)
            aside.rename(self.place(key))

    def open(self, key: str) -> Artifact:
        """The artifact, verified once per process.

        Raises:
            StoreError: it is absent or damaged.
        """
        artifact = self._read(self.place(key), key, verify=key not in self._verified)
        self._verified.add(key)
        return artifact

    def _read(self, folder: Path, key: str, *, verify: bool) -> Artifact:
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            artifact = Artifact(key, manifest["kind"], folder, manifest["facts"], manifest["seconds"])
            for name, checksum in manifest["files"].items() if verify else ():
                if file_hash(folder / name) != checksum:
                    raise StoreError(f"{folder / name} does not match its checksum: delete {folder} and run again")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"artifact {folder} cannot be read ({error}): delete it and run again") from error
        return artifact

    @contextmanager
    def claim(self, key: str) -> Iterator[None]:
        """Hold the right to make `key`; waits while another live process has it.

        Raises:
            StoreError: the store cannot be written or locked.
        """
        try:
            lock = (self.root / "locks" / key).open("a")
        except OSError as error:
            raise StoreError(
                f"the store {self.root} cannot be written ({error.strerror}): choose another with --store"
            ) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def part(self) -> Iterator[Path]:
        """A scratch folder in the store that goes when the block ends, or is swept once its process is gone."""
        folder = self._part()
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def draft(self, kind: str, key: str) -> Iterator[Draft]:
        """Write an artifact; published whole when the block ends, dropped when it raises.

        Raises:
            StoreError: it cannot be written; whatever else the block raises goes through.
        """
        folder = self._part()
        started = time.monotonic()
        try:
            folder.mkdir()
            draft = Draft(folder)
            yield draft
            self._publish(kind, key, draft, time.monotonic() - started)
        except OSError as error:
            ours = str(self.root) in f"{error.filename} {error.filename2}"
            if not ours and error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise StoreError(f"an artifact of kind {kind} cannot be written to {self.root}: {error}") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _publish(self, kind: str, key: str, draft: Draft, seconds: float) -> None:
        files = {str(path.relative_to(draft.folder)): path for path in sorted(draft.folder.rglob("*")) if path.is_file()}
        manifest = {
            "kind": kind,
            "facts": draft.facts,
            "seconds": seconds,
            "files": {name: file_hash(path) for name, path in files.items()},
        }
        draft.write_json(MANIFEST, manifest)
        for path in (*files.values(), draft.folder / MANIFEST):
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        place = self.place(key)
        place.parent.mkdir(exist_ok=True)
        if not (place / MANIFEST).exists():
            draft.folder.rename(place)

    def sweep(self) -> int:
        """Remove what dead processes of this machine left half-written; returns how many folders."""
        removed = 0
        for part in (self.root / "parts").iterdir():
            machine, _, owner = part.name.rpartition("-")[0].rpartition("-")
            if machine == platform.node() and owner.isdigit() and not psutil.pid_exists(int(owner)):
                shutil.rmtree(part, ignore_errors=True)
                removed += 1
        return removed
