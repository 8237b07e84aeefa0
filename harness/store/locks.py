"""Locks between the processes of one machine. They are the kernel's, so they end with their process however it dies.

A store's locks lie on the machine's own disk and not in the store: on a network file system the kernel asks the file server,
which may wait for a machine that is gone. Processes of other users, or with another folder for temporary files, have other
locks; between them leases decide (`claims`), as between machines. A run's lock lies in the run's folder.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import HarnessError, StoreWriteError

LOCK = ".lock"  # in a run's folder
POLL_SECONDS = 0.1
# How long to try before the lock counts as another's. A single try is not enough: it also fails where the holder before us
# removed the file between our opening and our locking it.
PATIENCE_SECONDS = 3 * POLL_SECONDS
FOREVER = -1.0
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}  # a file system without locks


def lock_folder(store: Path) -> Path:
    """Return the folder of a store's locks, which is the same under whatever path the store is reached.

    Raises:
        StoreWriteError: another user could put something else there.
        OSError: the store is gone, or the folder cannot be made.
    """
    top, identity = Path(tempfile.gettempdir()) / f"harness-locks-{os.getuid()}", store.stat()
    top.mkdir(mode=0o700, exist_ok=True)
    status = top.lstat()  # not `stat`: a link may lead to a folder that passes the checks now and is exchanged later
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise StoreWriteError(
            f"{top} is no folder that only this user can write: remove it, or set TMPDIR to a folder of your own"
        )
    folder = top / f"{identity.st_dev:x}-{identity.st_ino:x}"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def locked(store: Path, key: str, before_waiting: Callable[[], None] | None) -> Iterator[None]:
    """Hold this machine's lock on a key of a store; while another process has it, call `before_waiting` and wait.

    Raises:
        StoreWriteError: the lock cannot be taken.
    """
    try:
        place = lock_folder(store) / key
        try:
            lock = _acquire(place, PATIENCE_SECONDS)
        except Timeout:
            if before_waiting is not None:
                before_waiting()
            lock = _acquire(place, FOREVER)
    except OSError as error:
        raise StoreWriteError(
            f"the store {store} cannot be locked ({error.filename}: {error.strerror}): choose another with --store, "
            "or another folder for temporary files with TMPDIR"
        ) from error
    with _released(place, lock):
        yield


def sweep_locks(store: Path) -> int:
    """Remove the files of locks of a store that no process holds: killed processes leave them; return how many."""
    removed = 0
    with suppress(OSError, StoreWriteError):
        for place in lock_folder(store).iterdir():
            # Who asks for this very lock meanwhile tries for longer than it is held here (`PATIENCE_SECONDS`).
            with suppress(OSError), _released(place, _acquire(place, 0)):  # an error: another process has it, or was faster
                removed += 1
    return removed


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold a run's folder.

    Raises:
        HarnessError: another run holds it.
        StoreWriteError: it cannot be written.
    """
    place = folder / LOCK
    try:
        lock = _acquire(place, PATIENCE_SECONDS)
    except Timeout as error:
        raise HarnessError(
            f"another run writes to {folder}: wait for its end (`harness status {folder}` shows it), or "
            "choose another folder with --out"
        ) from error
    except OSError as error:
        raise StoreWriteError(f"{folder} cannot be written ({error.strerror}): choose another folder with --out") from error
    with _released(place, lock):
        yield


def _acquire(place: Path, timeout: float) -> FileLock | None:
    """Lock the file at `place`; None where the file system has no locks: there the lease alone decides.

    Raises:
        Timeout: another process has it for all of `timeout`, in seconds.
        OSError: the file cannot be opened or locked.
    """
    held: list[os.stat_result] = []

    def note(descriptor: int) -> None:
        held[:] = [os.fstat(descriptor)]

    # `fallback_to_soft` is off since a soft lock, a file that is there, outlives a process that is killed.
    lock = FileLock(place, poll_interval=POLL_SECONDS, fallback_to_soft=False, on_acquired=note)
    while True:
        try:
            lock.acquire(timeout)
        except Timeout:  # an OSError itself
            raise
        except OSError as error:
            if error.errno in NO_LOCKS:
                return None
            raise
        # The holder before us removes the file while it has the lock. Who opened the file before that gets the lock on a file
        # without a name, while the next process locks a new one under the name: both would hold "the" lock. filelock looks at
        # the count of names, which NFS does not lower while the file is open, so compare the files themselves.
        with suppress(FileNotFoundError):
            if os.path.samestat(held[0], place.stat()):
                return lock
        lock.release()


@contextmanager
def _released(place: Path, lock: FileLock | None) -> Iterator[None]:
    """Remove the file and release the lock when the block ends."""
    try:
        yield
    finally:
        with suppress(OSError):
            place.unlink()  # before the release: afterwards it may be the file that another process has locked
        if lock is not None:
            lock.release()
