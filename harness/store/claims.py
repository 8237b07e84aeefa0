"""Who makes what: a lock between the processes of a machine, a lease between machines that share a file system.

A process first takes the kernel's lock on `locks/<key>`, which ends with it, however it dies. Then it takes the lease: the
file `leases/<key>`, made by a hard link, which one of several machines wins also on NFS. Its owner touches it as long as it
lives. A lease is stale when its owner was a process of this machine that is gone, or when nobody has touched it for
`LEASE_SECONDS`; the age is told by a file touched just now beside it, so that only the file server's clock counts and not
those of the machines.

A lease that is taken from a living owner (a machine that stood still for long) costs double work and nothing else: artifacts
are published whole, the first one stays, and both are the same.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import psutil

from harness.errors import StoreWriteError

LEASE_SECONDS = 60.0
BEATS_PER_LEASE = 6
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 2.0
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}  # a file system without them: the lease alone decides
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS}  # a file system without hard links: an exclusive open decides


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
        return cls(platform.node(), os.getpid(), psutil.Process().create_time(), uuid.uuid4().hex)

    @property
    def gone(self) -> bool:
        """Whether it was a process of this machine, and is no more."""
        if self.machine != platform.node():
            return False
        try:
            return abs(psutil.Process(self.process).create_time() - self.born) > 1
        except psutil.NoSuchProcess:
            return True


class Claims:
    """Claims on keys in a store's folder.

    Args:
        root: the store's folder, with `locks` and `leases` in it.
        pause: waits for that many seconds between looks at another machine's lease.
    """

    def __init__(self, root: Path, pause: Callable[[float], None] = time.sleep) -> None:
        self.root = root
        self.pause = pause

    @contextmanager
    def hold(self, key: str, before_waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the right to make `key`; waits while another living process has it, after `before_waiting`.

        Raises:
            StoreWriteError: the store cannot be written or locked.
        """
        place = self.root / "locks" / key
        with self._locked(place, before_waiting), self._lease(key, before_waiting):
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    place.unlink()  # while it is ours; who waits for it sees that it is gone and opens another

    @contextmanager
    def _locked(self, place: Path, before_waiting: Callable[[], None] | None) -> Iterator[None]:
        """The kernel's lock on the file that is at `place` once we have it."""
        while True:
            try:
                lock = place.open("a")
            except OSError as error:
                raise self._unwritable(error) from error
            with lock:
                try:
                    _lock(lock, before_waiting)
                except OSError as error:
                    if error.errno not in NO_LOCKS:
                        raise self._unwritable(error) from error
                if _is(lock, place):
                    yield
                    return

    @contextmanager
    def _lease(self, key: str, before_waiting: Callable[[], None] | None) -> Iterator[None]:
        lease, owner = self.root / "leases" / key, Owner.this()
        try:
            self._take(lease, owner, before_waiting)
        except OSError as error:
            raise self._unwritable(error) from error
        done = threading.Event()
        heart = threading.Thread(target=_beat, args=(lease, owner, done), daemon=True)
        heart.start()
        try:
            yield
        finally:
            done.set()
            heart.join()
            if _owner(lease) == owner:
                with contextlib.suppress(OSError):
                    lease.unlink()

    def _take(self, lease: Path, owner: Owner, before_waiting: Callable[[], None] | None) -> None:
        """Make the lease ours: at once, when its owner gives it back, or when it is stale."""
        mine = lease.with_name(f"{lease.name}.{owner.nonce}")
        wait = FIRST_PAUSE_SECONDS
        try:
            mine.write_text(json.dumps(asdict(owner)), encoding="utf-8")
            while True:
                if _placed(mine, lease):
                    return
                if (stale := _stale(lease, mine)) is not None:
                    _put_away(lease, stale)
                    continue
                if before_waiting is not None and wait == FIRST_PAUSE_SECONDS:
                    before_waiting()
                self.pause(wait)
                wait = min(2 * wait, LONGEST_PAUSE_SECONDS)
        finally:
            mine.unlink(missing_ok=True)

    def _unwritable(self, error: OSError) -> StoreWriteError:
        return StoreWriteError(f"the store {self.root} cannot be written ({error.strerror}): choose another with --store")


def _lock(stream: IO[str], before_waiting: Callable[[], None] | None) -> None:
    """The kernel's lock on a file, after `before_waiting` if another has it."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if before_waiting is not None:
            before_waiting()
        fcntl.flock(stream, fcntl.LOCK_EX)


def _is(stream: IO[str], place: Path) -> bool:
    """Whether an open file is the one at a place, and not one that was there before."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), place.stat())
    except FileNotFoundError:
        return False


def _placed(mine: Path, lease: Path) -> bool:
    """Put the lease there unless there is one."""
    try:
        lease.hardlink_to(mine)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        try:
            with lease.open("x", encoding="utf-8") as stream:
                stream.write(mine.read_text(encoding="utf-8"))
        except FileExistsError:
            return False
    return True


def _beat(lease: Path, owner: Owner, done: threading.Event) -> None:
    """Touch the lease until `done`, or until it is ours no more."""
    while not done.wait(LEASE_SECONDS / BEATS_PER_LEASE):
        if _owner(lease) != owner:
            return
        with contextlib.suppress(OSError):
            os.utime(lease)


def _owner(lease: Path) -> Owner | None:
    """Who holds a lease; None if nobody does, or the file says nothing."""
    try:
        return Owner(**json.loads(lease.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _stale(lease: Path, mine: Path) -> bytes | None:
    """What a lease that may be taken over says; None if it is alive, or gone."""
    try:
        said = lease.read_bytes()  # opened, so that a network file system looks again
        touched = lease.stat().st_mtime
        os.utime(mine)
        age = mine.stat().st_mtime - touched
    except FileNotFoundError:
        return None
    owner = _owner(lease)
    return said if age > LEASE_SECONDS or (owner is not None and owner.gone) else None


def _put_away(lease: Path, stale: bytes) -> None:
    """Remove a stale lease, unless another machine has just put its own there."""
    aside = lease.with_name(f"{lease.name}.{uuid.uuid4().hex}")
    try:
        lease.rename(aside)
    except FileNotFoundError:
        return
    if aside.read_bytes() != stale:
        _placed(aside, lease)
    aside.unlink()
