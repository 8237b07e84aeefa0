"""One artifact: finished and read, or being written."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import StoreError

MANIFEST = "artifact.json"


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
    """

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    earlier_seconds: float = 0.0

    def write_json(self, name: str, value: Any) -> None:
        (self.folder / name).write_text(canonical(value) + "\n", encoding="utf-8")

    def write_lines(self, name: str, rows: Iterator[Any] | list[Any]) -> None:
        with (self.folder / name).open("w", encoding="utf-8") as stream:
            for row in rows:
                stream.write(canonical(row) + "\n")


def read_artifact(folder: Path, key: str, *, verify: bool) -> Artifact:
    """Read an artifact's manifest; if `verify`, compare every file with its checksum.

    Raises:
        StoreError: it is absent or damaged.
    """
    try:
        manifest = _manifest(folder / MANIFEST)
        dropped, changed = manifest.get("dropped", {}), manifest.get("changed", False)
        artifact = Artifact(key, manifest["kind"], folder, manifest["facts"], manifest["seconds"], dropped, changed)
        for name, checksum in manifest["files"].items() if verify else ():
            if file_hash(folder / name) != checksum:
                raise StoreError(f"{folder / name} does not match its checksum: delete {folder} and run again")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(f"artifact {folder} cannot be read ({error}): delete it and run again") from error
    return artifact


def _manifest(path: Path) -> Any:
    """Read and check a manifest of unknown origin: its kind becomes part of a file's name, and the files it names are read.

    Raises:
        ValueError: it names what lies elsewhere, or is no manifest.
    """
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(manifest["kind"], str) or not KIND.fullmatch(manifest["kind"]):
        raise ValueError(f"its kind {str(manifest['kind'])[:60]!r} is no word of letters and digits")
    if not isinstance(manifest["facts"], dict) or not isinstance(manifest["seconds"], int | float):
        raise ValueError("its facts should be a mapping and its seconds a number")
    if not isinstance(manifest.get("dropped", {}), dict) or not isinstance(manifest.get("changed", False), bool):
        raise ValueError("its dropped files should be a mapping, and `changed` true or false")
    for name in manifest["files"]:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or "\0" in name or ".." in parts or (path.parent / name).is_symlink():
            raise ValueError(f"it names the file {name[:60]!r}, which is none of its own")
    return manifest


def contents(folder: Path) -> dict[str, Path]:
    """Map the name of every file in an artifact's folder to its path; the manifest is left out."""
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    found.pop(MANIFEST, None)
    return found


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
    """Return a file's SHA-256, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
