"""Who makes what: a lock between the processes of a machine, a lease between machines that share a file system.

A process first takes the kernel's lock (`locks`), which ends with it, however it dies. Then it takes the lease: the folder
`claims/<key>` with one file in it, named by the claim's nonce. It is written elsewhere and renamed into place, which fails
where a folder with something in it is: so one of several machines wins, also on NFS. Its owner touches the file while it lives.
A lease is stale when its owner was a process of this machine that is gone, or when nobody has touched it for `LEASE_SECONDS`;
the age is told by a folder touched just now, so that only the file server's clock counts and not those of the machines. Whoever
finds one stale removes that owner's file, which can be nobody else's, and again one of several wins.

A lease that is taken from a living owner (a machine that stood still for long) costs double work: artifacts are published
whole, the first one stays, and whoever comes second takes it for its own (`Store.draft`). What both keep in `partial/<key>` is
put there whole. At worst one of them reads a checkpoint while the other replaces it: its stage fails, and the next run finds
what the other made.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from harness.errors import StoreWriteError
from harness.store.locks import locked
from harness.store.owner import LEASE_SECONDS, beating, machine
from harness.store.parts import Parts

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 2.0
HELD = {errno.ENOTEMPTY, errno.EEXIST}
CHANGED = {errno.ENOENT, errno.ESTALE, *HELD}  # between two looks at a lease


@dataclass(frozen=True)
class Owner:
    """A process among all processes of all machines.

    Attributes:
        born: when the process started, in seconds since the epoch: numbers of processes come again.
        nonce: of this one claim.
    """

    machine: str
    process: int
    born: float
    nonce: str

    @classmethod
    def this(cls) -> Owner:
        return cls(machine(), os.getpid(), psutil.Process().create_time(), uuid.uuid4().hex)

    @property
    def gone(self) -> bool:
        """Whether it was a process of this machine, and is no more."""
        if self.machine != machine():
            return False
        try:
            return abs(psutil.Process(self.process).create_time() - self.born) > 1
        except psutil.NoSuchProcess:
            return True


class Claims:
    """Claims on keys in a store's folder.

    Args:
        root: the store's folder, with `claims` and `parts` in it.
        pause: waits for that many seconds between looks at another machine's lease.
    """

    def __init__(self, root: Path, pause: Callable[[float], None] = time.sleep) -> None:
        self.root = root
        self.pause = pause
        self._parts = Parts(root / "parts")

    @contextmanager
    def hold(self, key: str, before_waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the right to make `key`; waits while another living process has it, after `before_waiting`.

        Raises:
            StoreWriteError: the store cannot be written or locked.
        """
        with locked(self.root, key, before_waiting), self._lease(key, before_waiting):
            yield

    @contextmanager
    def _lease(self, key: str, before_waiting: Callable[[], None] | None) -> Iterator[None]:
        lease, owner = self.root / "claims" / key, Owner.this()
        try:
            self._take(lease, owner, before_waiting)
        except OSError as error:
            raise StoreWriteError(
                f"the store {self.root} cannot be written ({error.strerror}): choose another with --store"
            ) from error
        try:
            with beating(lambda: self._beat(lease, owner)):
                yield
        finally:
            with contextlib.suppress(OSError):  # another took it, or the file system is gone
                (lease / owner.nonce).unlink()
                lease.rmdir()

    def _take(self, lease: Path, owner: Owner, before_waiting: Callable[[], None] | None) -> None:
        """Make the lease ours: at once, when its owner gives it back, or when it is stale."""
        wait = FIRST_PAUSE_SECONDS
        with self._written(owner) as mine:
            while not _placed(mine, lease, owner):
                if _freed(lease, mine):
                    continue
                if before_waiting is not None and wait == FIRST_PAUSE_SECONDS:
                    before_waiting()
                self.pause(wait)
                wait = min(2 * wait, LONGEST_PAUSE_SECONDS)

    def _beat(self, lease: Path, owner: Owner) -> bool:
        """Touch the lease, and put it there again where it is gone; whether to go on: not when another has it."""
        try:
            os.utime(lease / owner.nonce)
        except FileNotFoundError:
            with contextlib.suppress(OSError), self._written(owner) as mine:
                return _placed(mine, lease, owner)
        except OSError:
            pass  # a network file system that fails for a moment
        return True

    @contextmanager
    def _written(self, owner: Owner) -> Iterator[Path]:
        """An owner's lease, to be put in its place."""
        with self._parts.scratch() as folder:
            (folder / owner.nonce).write_text(json.dumps(asdict(owner)), encoding="utf-8")
            yield folder


def _placed(mine: Path, lease: Path, owner: Owner) -> bool:
    """Put the lease there unless another has it."""
    try:
        mine.rename(lease)
    except OSError as error:
        if error.errno in HELD:
            return False
        if not (lease / owner.nonce).exists():  # a file server may have done it, and be asked once more
            raise
    return True


def _freed(lease: Path, mine: Path) -> bool:
    """Remove a lease that is stale, or a folder that nobody has put one in; whether there was one."""
    try:
        for place in lease.iterdir():
            owner = _owner(place)  # opened, so that a network file system looks again
            os.utime(mine)
            age = mine.stat().st_mtime - place.stat().st_mtime
            if age <= LEASE_SECONDS and not (owner is not None and owner.gone):
                return False
            place.unlink()
        lease.rmdir()
    except OSError as error:
        if error.errno not in CHANGED:
            raise
        return False
    return True


def _owner(place: Path) -> Owner | None:
    """Whose a lease's file is; None if it does not say."""
    try:
        return Owner(**json.loads(place.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        return None
