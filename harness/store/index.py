"""A store's index, in file names alone: a million artifacts are listed without opening one.

    <root>/index/<2 digits>/<key>.<kind>.<bytes>    an empty file for each artifact

The index follows the artifacts: an entry whose artifact is gone is dropped, and an artifact without one (from before there was
an index, or of a writer that was killed between the two) is read once and gets its own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import StoreError
from harness.store.artifact import KEY, read_artifact

DAMAGED = "damaged"  # stands for the kind of an artifact that cannot be read


@dataclass(frozen=True)
class IndexEntry:
    """An artifact as its index names it.

    Attributes:
        size: of its files, in bytes.
    """

    key: str
    kind: str
    size: int

    @property
    def name(self) -> str:
        return f"{self.key}.{self.kind}.{self.size}"

    @classmethod
    def read(cls, name: str) -> IndexEntry | None:
        """Parse an index file's name; None if it is none."""
        key, _, rest = name.partition(".")
        kind, _, size = rest.rpartition(".")
        return cls(key, kind, int(size)) if KEY.fullmatch(key) and kind and size.isdigit() else None


def entries(root: Path) -> Iterator[IndexEntry]:
    """Yield every artifact of the store in `root`, by key; repair the index on the way."""
    for first in sorted(_names(root / "artifacts")):
        indexed: dict[str, IndexEntry] = {}
        for entry in filter(None, map(IndexEntry.read, _names(root / "index" / first))):
            if entry.key in indexed:  # a damaged one was replaced by one of another size: trust neither, read the artifact
                forget(root, entry)
                forget(root, indexed.pop(entry.key))
            else:
                indexed[entry.key] = entry
        present = {name for name in _names(root / "artifacts" / first) if KEY.fullmatch(name)}
        for key in sorted(present):
            yield indexed.get(key) or _repaired(root, key)
        for key in indexed.keys() - present:
            forget(root, indexed[key])


def note(root: Path, entry: IndexEntry) -> None:
    """Put an entry into the index; errors are ignored, since the index can be rebuilt."""
    place = root / "index" / entry.key[:2] / entry.name
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()


def forget(root: Path, entry: IndexEntry) -> None:
    with contextlib.suppress(OSError):
        (root / "index" / entry.key[:2] / entry.name).unlink()


def folder_size(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _repaired(root: Path, key: str) -> IndexEntry:
    folder = root / "artifacts" / key[:2] / key
    try:
        entry = IndexEntry(key, read_artifact(folder, key, verify=False).kind, folder_size(folder))
    except (StoreError, OSError):
        return IndexEntry(key, DAMAGED, 0)
    note(root, entry)
    return entry


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as found:  # a Path for each name would take twice as long
            return [entry.name for entry in found]
    except (FileNotFoundError, NotADirectoryError):
        return []
