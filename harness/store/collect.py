"""Making room: what no run needs, the longest unused first; nothing is opened but the manifests of what is needed."""

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

COLLECTION = "collection"  # the claim under which runs say what they need, and what nobody needs is removed


@dataclass(frozen=True)
class Rules:
    """What may go.

    Attributes:
        limit: bytes that may stay; None to remove all that is not needed.
        unused_seconds: what was of use since then stays: a run that goes on now may be about to need it.
    """

    limit: int | None = None
    unused_seconds: float = 86400.0


@dataclass(frozen=True)
class Collection:
    """What would go and what would stay.

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
    """Say what a run needs, and with it what that used, before it looks for it: a collection that goes on now is waited for.

    Raises:
        StoreWriteError: the store cannot be written.
    """
    with store.claim(COLLECTION):
        register(store.root, replace(root, keys=tuple(sorted(with_used(store, root.keys)))))


def needed_by_runs(store: Store) -> set[str]:
    """The keys that the runs of this store need.

    Raises:
        StoreError: a run's note cannot be read: it is not known what it needs.
    """
    keys: set[str] = set()
    for place, root in roots(store.root):
        if root is None:
            raise StoreError(f"{place} cannot be read, so it is not known what that run needs: delete it, or run it again")
        if not root.gone:
            keys.update(root.keys)
    return keys


def with_used(store: Store, keys: Iterable[str]) -> set[str]:
    """`keys`, and what those of them that are there used of the store beside their inputs."""
    found = set(keys)
    for key in tuple(found):
        with contextlib.suppress(StoreError):
            found.update(read_artifact(store.place(key), key, verify=False).facts.get("used", ()))
    return found


def choose(store: Store, needed: Set[str], rules: Rules) -> Collection:
    """What the rules let go of a store."""
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
    """No run says what it needs while this goes on: nothing that it will find is removed."""
    with store.claim(COLLECTION):
        yield


def collect(store: Store, collection: Collection, rules: Rules) -> None:
    """Remove what was chosen, and what dead processes left half-written or what was put aside long ago.

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
    """Seconds since the epoch; a damaged one is as if never used."""
    try:
        return 0.0 if entry.kind == DAMAGED else store.place(entry.key).stat().st_mtime
    except FileNotFoundError:
        return time.time()
