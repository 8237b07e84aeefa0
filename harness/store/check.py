"""Check all of a store, metadata included, and repair it: put aside what is damaged or foreign, make again what can be.

Every name is looked at and nothing is opened but plain files, so a FIFO, a device or a link that lies in a store is listed and
never waited for. What living processes write (`parts`, `engines`) and what was put aside (`damaged`) is left out.
"""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from harness.errors import StoreError, StoreWriteError
from harness.store import index as catalogue
from harness.store.artifact import KEY, OWN_FILES, listed_files, read_artifact
from harness.store.atomic import ENDING
from harness.store.index import IndexEntry
from harness.store.roots import roots
from harness.store.store import Store

# Folders of a store. Judges' answers are checked by who writes them, `models/judge/answer_files.py`.
CHECKED, LEFT_OUT = ("artifacts", "index", "roots", "claims", "partial", "judgments"), ("parts", "damaged", "engines")
KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
}


@dataclass(frozen=True)
class StoreFault:
    """Something in a store that does not belong there, or is not as it was written.

    Attributes:
        place: the file or folder.
        problem: in words.
        key: of the artifact that is damaged; None where no artifact is.
        entry: whether it is an entry of the index, which is made again.
    """

    place: Path
    problem: str
    key: str | None = None
    entry: bool = False


def check(store: Store) -> Iterator[StoreFault]:
    """Yield every fault of a store; nothing is changed."""
    for place in sorted(store.root.iterdir()):
        if place.name not in (*CHECKED, *LEFT_OUT):
            yield _foreign(place)
        elif not _is(place, stat.S_IFDIR):
            yield StoreFault(place, f"{_kind(place)} in place of a folder")
        elif place.name in CHECKED and place.name not in ("artifacts", "index"):
            yield from _odd_kinds(place)
    of_artifacts = list(_artifact_faults(store))
    yield from of_artifacts
    # An artifact that is damaged, or holds a file too many, has another size than the index says: that is no second fault.
    yield from _index_faults(store, {part for fault in of_artifacts for part in fault.place.parts if KEY.fullmatch(part)})
    for place, root in roots(store.root):
        if root is None and _is(place, stat.S_IFREG):
            yield StoreFault(place, "the note of what a run needs cannot be read: run it again")


def repair(store: Store, faults: list[StoreFault]) -> None:
    """Put aside what faults name, fetch artifacts from the mirror if there is one, and make the index again.

    Raises:
        StoreWriteError: something cannot be moved.
    """
    for fault in faults:
        if fault.key is not None:
            store.put_aside(fault.key)
        elif fault.entry:
            with contextlib.suppress(OSError):
                fault.place.unlink()
        else:
            put_aside(store, fault.place)
    for fault in faults:
        if fault.key is not None:
            store.holds(fault.key)  # asks the mirror
    for _ in store.entries():  # each artifact without an entry gets one
        pass


def put_aside(store: Store, place: Path) -> Path:
    """Move a file or folder of a store to `damaged`; return where it is now.

    Raises:
        StoreWriteError: it cannot be moved.
    """
    aside = store.root / "damaged" / f"{place.name[:100]}-{uuid.uuid4().hex[:8]}"
    try:
        if not _is(aside.parent, stat.S_IFDIR) and os.path.lexists(aside.parent):
            aside.parent.unlink()  # something else in place of the folder itself
        aside.parent.mkdir(exist_ok=True)
        if os.path.lexists(place):
            place.rename(aside)
    except OSError as error:
        raise StoreWriteError(f"{place} cannot be put aside ({error.strerror}): move it away") from error
    return aside


def _artifact_faults(store: Store) -> Iterator[StoreFault]:
    for first in _listed(store.root / "artifacts"):
        if not _is(first, stat.S_IFDIR) or len(first.name) != 2:
            yield _foreign(first)
            continue
        for folder in _listed(first):
            if KEY.fullmatch(folder.name) is None or folder.name[:2] != first.name:
                yield _foreign(folder)
            elif not _is(folder, stat.S_IFDIR):
                yield StoreFault(folder, f"{_kind(folder)} in place of an artifact's folder", folder.name)
            else:
                yield from _faults_of(folder)


def _faults_of(folder: Path) -> Iterator[StoreFault]:
    """Yield the faults of one artifact: its own, and the files that its manifest does not list."""
    try:
        read_artifact(folder, folder.name, verify=True)
        listed = listed_files(folder)
    except StoreError as error:
        yield StoreFault(folder, str(error).partition(": delete")[0], folder.name)
        return
    for place, folders, names in os.walk(folder):
        for name in (*names, *(name for name in folders if not _is(Path(place, name), stat.S_IFDIR))):
            path = Path(place, name)
            unfinished = name.startswith(".") and name.endswith(ENDING)  # a seal that is being written
            if path.relative_to(folder).as_posix() not in {*listed, *OWN_FILES} and not unfinished:
                yield _foreign(path)


def _index_faults(store: Store, damaged: Set[str]) -> Iterator[StoreFault]:
    for first in _listed(store.root / "index"):
        if not _is(first, stat.S_IFDIR):
            yield _foreign(first)
            continue
        for place in _listed(first):
            entry = IndexEntry.read(place.name)
            if entry is None or entry.key[:2] != first.name or not _is(place, stat.S_IFREG):
                yield _foreign(place)
            elif entry.key not in damaged and (problem := _entry_problem(store, entry)) is not None:
                yield StoreFault(place, problem, entry=True)


def _entry_problem(store: Store, entry: IndexEntry) -> str | None:
    """Return how an entry differs from its artifact; None where it does not."""
    try:
        artifact = read_artifact(store.place(entry.key), entry.key, verify=False)
    except StoreError:
        return "the index names an artifact that is not there"
    if artifact.kind != entry.kind:
        return f"the index calls an artifact {entry.kind!r}, and it is {artifact.kind!r}"
    size = catalogue.folder_size(artifact.folder)
    # An artifact of format 1 was sealed after it was indexed.
    seal = (artifact.folder / OWN_FILES[1]).lstat().st_size if (artifact.folder / OWN_FILES[1]).exists() else 0
    return None if entry.size in (size, size - seal) else f"the index says {entry.size:,} bytes, and there are {size:,}"


def _odd_kinds(folder: Path) -> Iterator[StoreFault]:
    """Yield what is neither a plain file nor a folder."""
    for place, folders, names in os.walk(folder):
        for path in (Path(place, name) for name in (*folders, *names)):
            if not _is(path, stat.S_IFREG) and not _is(path, stat.S_IFDIR) and os.path.lexists(path):
                yield _foreign(path)


def _foreign(place: Path) -> StoreFault:
    return StoreFault(place, f"{_kind(place)} that is no part of the store")


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if _is(folder, stat.S_IFDIR) else []


def _is(place: Path, kind: int) -> bool:
    """Return whether a path, itself and not what a link leads to, is of a kind (`stat.S_IFDIR`, …)."""
    try:
        return stat.S_IFMT(place.lstat().st_mode) == kind
    except OSError:
        return False


def _kind(place: Path) -> str:
    try:
        return KINDS.get(stat.S_IFMT(place.lstat().st_mode), "something")
    except OSError:
        return "something"
