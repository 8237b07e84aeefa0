"""Claims on keys: a lock between the processes of one machine, a lease between machines that share a file system.

A process first takes the kernel's lock (`locks`), which ends with it, however it dies. Then it takes the lease: the folder
`claims/<key>` with one file in it, named by the claim's nonce. It is written elsewhere and renamed into place, which fails if a
folder with a file in it is there: so one of several machines wins, also on NFS. Its owner touches the file as long as it lives.

A lease is stale if its owner was a process of this machine that has ended, or if nobody has touched it for `LEASE_SECONDS`. The
age is measured against a folder touched just now, so that only the file server's clock counts and not those of the machines. A
process that finds a lease stale removes its owner's file, and again one of several wins the rename.

A lease that is taken from a living owner (a machine that stood still for long) costs double work: artifacts are published
whole, the first one stays, and the second process uses it (`Store.draft`). Files in `partial/<key>` are written
atomically. At worst one of them reads a checkpoint while the other replaces it: its stage fails, and the next run finds what
the other made.
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
from harness.store.reading import read_plain

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 2.0
HELD = {errno.ENOTEMPTY, errno.EEXIST}
FOREIGN = {errno.EINVAL, errno.ELOOP, errno.EFBIG, errno.ENXIO}  # no plain file, a link, one that is far too large, a socket
CHANGED = {errno.ENOENT, errno.ESTALE, *HELD}  # another process changed the lease while we looked at it


@dataclass(frozen=True)
class Owner:
    """A process among all processes of all machines.

    Attributes:
        born: when the process started, in seconds since the epoch.
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
        """Whether it was a process of this machine that has ended; False for other machines, which nobody here can know of."""
        if self.machine != machine():
            return False
        try:
            # The kernel reuses process numbers: the same number with another start time is another process.
            return abs(psutil.Process(self.process).create_time() - self.born) > 1
        except psutil.NoSuchProcess:
            return True


class Claims:
    """Claims on keys in a store's folder.

    Args:
        root: the store's folder, with `claims` and `parts` in it.
        pause: sleeps for that many seconds between looks at another machine's lease.
    """

    def __init__(self, root: Path, pause: Callable[[float], None] = time.sleep) -> None:
        self.root = root
        self.pause = pause
        self._parts = Parts(root / "parts")

    @contextmanager
    def hold(self, key: str, before_waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the right to make `key`; while another living process has it, call `before_waiting` once and wait.

        Raises:
            StoreWriteError: the store cannot be written or locked.
        """
        with locked(self.root, key, before_waiting), self._lease(key, before_waiting):
            yield

    def sweep(self) -> int:
        """Remove the leases of processes that are gone, which nobody has claimed since; return how many."""
        removed = 0
        with self._parts.scratch() as mine:
            for lease in (self.root / "claims").glob("*"):
                with contextlib.suppress(OSError):  # what is no lease stays where it is
                    removed += _freed(lease, mine)
        return removed

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
                (lease / owner.nonce).unlink()  # by our own name: a lease that was taken over stays
                lease.rmdir()

    def _take(self, lease: Path, owner: Owner, before_waiting: Callable[[], None] | None) -> None:
        """Take the lease: at once, when its owner releases it, or when it is stale."""
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
        """Touch the lease, or put it back if it is gone; return whether to go on: False once another process has it."""
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
        """Yield a folder with the owner's lease, to be renamed into place."""
        with self._parts.scratch() as folder:
            (folder / owner.nonce).write_text(json.dumps(asdict(owner)), encoding="utf-8")
            yield folder


def _placed(mine: Path, lease: Path, owner: Owner) -> bool:
    """Rename the lease into place; return False if another process has one there."""
    try:
        # POSIX: renaming a folder onto one that holds a file fails, and onto an empty one succeeds. So this is an atomic test
        # and set, on NFS too, and a lease's folder that a crash left empty does not stand in the way.
        mine.rename(lease)
    except OSError as error:
        if error.errno in HELD:
            return False
        # NFS may lose the answer to a rename that it has done. The client repeats the request, which fails since the source is
        # gone: look whether our file is in its place before taking that for a failure.
        if not (lease / owner.nonce).exists():
            raise
    return True


def _freed(lease: Path, mine: Path) -> bool:
    """Remove a stale lease, or a lease's folder without a file; return whether the place is free now."""
    try:
        for place in lease.iterdir():
            # NFS revalidates cached attributes when a file is opened: without this read, `stat` below may be seconds old.
            owner = _owner(place)
            # Touch a folder of ours and compare the two times: both are of the file server's clock, so machines whose clocks
            # differ still agree on the age.
            os.utime(mine)
            age = mine.stat().st_mtime - place.stat().st_mtime
            if age <= LEASE_SECONDS and not (owner is not None and owner.gone):
                return False
            # The file is named by its claim's nonce: if another process was faster and has its own lease here already, this
            # removes nothing of it.
            place.unlink()
        lease.rmdir()  # fails if a new lease came in between
    except OSError as error:
        if error.errno not in CHANGED:
            raise
        return False
    return True


def _owner(place: Path) -> Owner | None:
    """Read the owner from a lease's file; None if the file is not readable as one, or is a FIFO or a link.

    Raises:
        OSError: it cannot be read, or has just been removed.
    """
    try:
        return Owner(**json.loads(read_plain(place)))
    except (ValueError, TypeError, RecursionError):
        return None
    except OSError as error:
        if error.errno not in FOREIGN:
            raise
        return None
