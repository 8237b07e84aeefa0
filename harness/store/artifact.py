"""One artifact: finished and read, or being written.

`artifact.json`, the manifest, holds the checksum of every file, and `artifact.sha256`, its seal, the manifest's own: one
changed bit anywhere shows. `sha256sum -c artifact.sha256` checks it too. Artifacts from before there were seals (manifests
without a `format`) get theirs when their files are next verified.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import StoreError
from harness.store.atomic import write_atomically
from harness.store.reading import open_plain, read_plain

MANIFEST, SEAL = "artifact.json", "artifact.sha256"
OWN_FILES = (MANIFEST, SEAL)  # of every artifact, whatever its stage wrote
FORMAT = 2  # of manifests that have a seal; those of format 1 do not say their format
KIND = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Artifact:
    """A finished artifact.

    Attributes:
        facts: numbers that the stage noted: tokens, counts, losses.
        seconds: wall time it took to make.
        dropped: names of the files that were removed on purpose (`Store.drop`), with their checksums.
        changed: whether it was made again after that, to other bytes.
    """

    key: str
    kind: str
    folder: Path
    facts: Mapping[str, Any]
    seconds: float
    dropped: Mapping[str, str] = field(default_factory=dict)
    changed: bool = False

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def read_json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def read_lines(self, name: str) -> Iterator[Any]:
        """Yield the rows of a JSON-lines file."""
        with (self.folder / name).open(encoding="utf-8") as stream:
            for line in stream:
                yield json.loads(line)


@dataclass
class ArtifactDraft:
    """An artifact being written: put files into `folder`, numbers into `facts`.

    Attributes:
        earlier_seconds: spent by earlier runs on the work that this run resumes.
        stands_for: files that are not written, since others of the artifact give them again, with their checksums.
    """

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    earlier_seconds: float = 0.0
    stands_for: dict[str, str] = field(default_factory=dict)

    def write_json(self, name: str, value: Any) -> None:
        (self.folder / name).write_text(canonical(value) + "\n", encoding="utf-8")

    def write_lines(self, name: str, rows: Iterator[Any] | list[Any]) -> None:
        with (self.folder / name).open("w", encoding="utf-8") as stream:
            for row in rows:
                stream.write(canonical(row) + "\n")


def read_artifact(folder: Path, key: str, *, verify: bool) -> Artifact:
    """Read an artifact's manifest, which must have its seal; if `verify`, compare every file with its checksum.

    An artifact of format 1 is sealed once its files are verified.

    Raises:
        StoreError: it is absent or damaged.
    """
    try:
        content = read_plain(folder / MANIFEST)
        manifest = _manifest(content, folder)
        sealed = _check_seal(content, folder, manifest.get("format", 1))
        dropped, changed = manifest.get("dropped", {}), manifest.get("changed", False)
        artifact = Artifact(key, manifest["kind"], folder, manifest["facts"], manifest["seconds"], dropped, changed)
        for name, checksum in manifest["files"].items() if verify else ():
            if _plain_hash(folder / name) != checksum:
                raise StoreError(f"{folder / name} does not match its checksum: delete {folder} and run again")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(f"artifact {folder} cannot be read ({error}): delete it and run again") from error
    if verify and not sealed:
        with suppress(OSError):  # a store that this user may only read
            seal(folder)
    return artifact


def seal(folder: Path) -> None:
    """Write the checksum of an artifact's manifest beside it, in the form of `sha256sum`. The folder keeps its time.

    Raises:
        OSError: the manifest cannot be read, or the folder cannot be written.
    """
    status = folder.stat()
    write_atomically(folder / SEAL, _seal_of(read_plain(folder / MANIFEST)))
    os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns))  # its time is when it was last used


def _seal_of(manifest: bytes) -> str:
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n"


def _check_seal(manifest: bytes, folder: Path, written_as: int) -> bool:
    """Return whether a manifest has its seal; False where it is of a format without one.

    Raises:
        ValueError: it has another's, or has lost its own.
    """
    try:
        if read_plain(folder / SEAL).decode("utf-8") != _seal_of(manifest):
            raise ValueError(f"{MANIFEST} does not match its checksum in {SEAL}")
    except FileNotFoundError:
        if written_as >= FORMAT:
            raise ValueError(f"{SEAL}, the checksum of {MANIFEST}, is gone") from None
        return False
    return True


def _manifest(content: bytes, folder: Path) -> Any:
    """Check a manifest of unknown origin: its kind becomes part of a file's name, and the files it names are read.

    Raises:
        ValueError: it names what lies elsewhere, or is no manifest.
    """
    manifest = json.loads(content)
    if not isinstance(manifest["kind"], str) or not KIND.fullmatch(manifest["kind"]):
        raise ValueError(f"its kind {str(manifest['kind'])[:60]!r} is no word of letters and digits")
    if not isinstance(manifest["facts"], dict) or not isinstance(manifest["seconds"], int | float):
        raise ValueError("its facts should be a mapping and its seconds a number")
    if not isinstance(manifest.get("dropped", {}), dict) or not isinstance(manifest.get("changed", False), bool):
        raise ValueError("its dropped files should be a mapping, and `changed` true or false")
    if not isinstance(manifest.get("format", 1), int):
        raise ValueError("its format should be a number")
    for name in manifest["files"]:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or "\0" in name or ".." in parts or name in OWN_FILES:
            raise ValueError(f"it names the file {name[:60]!r}, which is none of its own")
    return manifest


def listed_files(folder: Path) -> frozenset[str]:
    """Return the names of the files that an artifact's manifest lists.

    Raises:
        OSError, ValueError, KeyError: there is no manifest, or none that can be read.
    """
    return frozenset(json.loads(read_plain(folder / MANIFEST))["files"])


def contents(folder: Path) -> dict[str, Path]:
    """Map the name of every file that a stage wrote to its path; the manifest and its seal are left out."""
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path for name, path in paths.items() if name not in OWN_FILES}


KEY = re.compile(r"[0-9a-f]{32}")


def canonical(value: Any) -> str:
    """Return JSON that is the same for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def key_of(
    kind: str, version: int, payload: Mapping[str, Any], inputs: Mapping[str, str], environment: Mapping[str, str] | None = None
) -> str:
    """Return the key of what a stage makes from `payload` and `inputs` in an environment: 32 hexadecimal digits."""
    parts = {"kind": kind, "version": version, "payload": payload, "inputs": inputs}
    if environment is not None:
        parts["environment"] = environment
    return hashlib.sha256(canonical(parts).encode()).hexdigest()[:32]


def file_hash(path: Path) -> str:
    """Return a file's SHA-256, hexadecimal; a link is followed.

    Raises:
        OSError: it cannot be read, or is no plain file.
    """
    with open_plain(path, follow=True) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _plain_hash(path: Path) -> str:
    with open_plain(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
