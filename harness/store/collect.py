"""Garbage collection: remove artifacts that no run needs, the longest unused first; only needed ones' manifests are opened."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace

from harness.errors import StoreError
from harness.store.artifact import read_artifact
from harness.store.index import DAMAGED, IndexEntry
from harness.store.roots import Root, register, roots
from harness.store.store import Store

# Runs register what they need under this claim, and collections remove artifacts under it. So a run cannot find an artifact,
# rely on it, and have it removed before it is registered as needed.
COLLECTION = "collection"


@dataclass(frozen=True)
class Rules:
    """Limits on what a collection removes.

    Attributes:
        limit: bytes that may stay; None to remove all that is not needed.
        unused_seconds: an artifact used more recently stays: a run in progress may be about to need it.
    """

    limit: int | None = None
    unused_seconds: float = 86400.0


@dataclass(frozen=True)
class Collection:
    """A plan: the artifacts to remove, and how many stay and why.

    Attributes:
        remove: the longest unused first.
        needed: how many are needed by runs, and `needed_bytes` their size.
        recent: how many nobody needs but were used lately, and `recent_bytes` their size.
    """

    remove: tuple[IndexEntry, ...]
    total: int
    total_bytes: int
    needed: int
    needed_bytes: int
    recent: int
    recent_bytes: int

    @property
    def remove_bytes(self) -> int:
        return sum(entry.size for entry in self.remove)


def need(store: Store, root: Root) -> None:
    """Register a run's artifacts, and those that they used, before the run looks for them; wait for a collection in progress.

    Raises:
        StoreWriteError: the store cannot be written.
    """
    with store.claim(COLLECTION):
        register(store.root, replace(root, keys=tuple(sorted(with_used(store, root.keys)))))


def needed_by_runs(store: Store) -> set[str]:
    """Return the keys that the runs of this store need; also what a run's artifacts used that were made since it registered.

    Raises:
        StoreError: a run's note cannot be read: it is not known what it needs.
    """
    keys: set[str] = set()
    for place, root in roots(store.root):
        if root is None:
            raise StoreError(f"{place} cannot be read, so it is not known what that run needs: delete it, or run it again")
        if not root.gone:
            keys.update(root.keys)
    return with_used(store, keys)


def with_used(store: Store, keys: Iterable[str]) -> set[str]:
    """Return `keys` and the artifacts that these, where present, used beside their declared inputs."""
    found = set(keys)
    for key in tuple(found):
        with contextlib.suppress(StoreError):
            found.update(read_artifact(store.place(key), key, verify=False).facts.get("used", ()))
    return found


def choose(store: Store, needed: Set[str], rules: Rules) -> Collection:
    """Plan a collection by the rules."""
    now, entries = time.time(), list(store.entries())
    kept = [entry for entry in entries if entry.key in needed]
    idle: list[tuple[float, IndexEntry]] = []
    recent: list[tuple[float, IndexEntry]] = []
    for entry in entries:
        if entry.key not in needed:
            age = now - _last_used(store, entry)
            (recent if age < rules.unused_seconds else idle).append((age, entry))
    total = sum(entry.size for entry in entries)
    remove, left = [], total
    for _, entry in sorted(idle, key=lambda pair: (-pair[0], pair[1].key)):
        if rules.limit is None or left > rules.limit:
            remove.append(entry)
            left -= entry.size
    return Collection(
        remove=tuple(remove),
        total=len(entries),
        total_bytes=total,
        needed=len(kept),
        needed_bytes=sum(entry.size for entry in kept),
        recent=len(recent),
        recent_bytes=sum(entry.size for _, entry in recent),
    )


@contextmanager
def collecting(store: Store) -> Iterator[None]:
    """Block runs from registering their needs, so that nothing is removed that a run has just found."""
    with store.claim(COLLECTION):
        yield


def collect(store: Store, collection: Collection, rules: Rules) -> None:
    """Remove the chosen artifacts, unfinished work of dead processes, and damaged artifacts put aside long ago.

    Raises:
        StoreWriteError: something cannot be removed.
    """
    for entry in collection.remove:
        store.remove(entry)
    store.sweep(rules.unused_seconds)
    oldest = time.time() - rules.unused_seconds
    for folder in (store.root / "damaged").glob("*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)


def _last_used(store: Store, entry: IndexEntry) -> float:
    """Return when an artifact was last used, in seconds since the epoch; 0 for a damaged one."""
    try:
        return 0.0 if entry.kind == DAMAGED else store.place(entry.key).stat().st_mtime
    except FileNotFoundError:
        return time.time()
