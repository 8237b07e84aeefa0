"""Locks between the processes of one machine: the kernel's, which end with their process however it dies.

They lie on the machine's own disk and not in the store: on a network file system the kernel asks the file server, which may
wait for a machine that is gone. Processes of other users, or with another folder for temporary files, have other locks;
between them leases decide (`claims`), as between machines.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from harness.errors import HarnessError, StoreWriteError

LOCK = ".lock"


NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}  # a file system without them: the lease alone decides


def lock_folder(store: Path) -> Path:
    """Where a store's locks lie: the same under whatever path it is seen.

    Raises:
        StoreWriteError: another user could put something else there.
        OSError: the store is gone, or the folder cannot be made.
    """
    top, seen = Path(tempfile.gettempdir()) / f"harness-locks-{os.getuid()}", store.stat()
    top.mkdir(mode=0o700, exist_ok=True)
    made = top.lstat()
    if not stat.S_ISDIR(made.st_mode) or made.st_uid != os.getuid() or made.st_mode & 0o022:
        raise StoreWriteError(
            f"{top} is no folder that only this user can write: remove it, or set TMPDIR to a folder of your own"
        )
    folder = top / f"{seen.st_dev:x}-{seen.st_ino:x}"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def locked(store: Path, key: str, before_waiting: Callable[[], None] | None) -> Iterator[None]:
    """Hold this machine's lock on a key of a store; waits while another has it, after `before_waiting`.

    Raises:
        StoreWriteError: it cannot be taken.
    """
    while True:
        with _reported(store):
            place = lock_folder(store) / key
            lock = place.open("a")
        with lock:
            with _reported(store):
                _lock(lock, before_waiting)
                ours = is_at(lock, place)
            if not ours:
                continue
            try:
                yield
            finally:
                with suppress(OSError):
                    place.unlink()  # while it is ours; who waits for it sees that it is gone and opens another
            return


@contextmanager
def _reported(store: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreWriteError(
            f"the store {store} cannot be locked ({error.filename}: {error.strerror}): choose another with --store, "
            "or another folder for temporary files with TMPDIR"
        ) from error


def _lock(stream: IO[str], before_waiting: Callable[[], None] | None) -> None:
    """The kernel's lock on a file, after `before_waiting` if another has it."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if before_waiting is not None:
            before_waiting()
        fcntl.flock(stream, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


def is_at(stream: IO[str], place: Path) -> bool:
    """Whether an open file is the one at a place, and not one that was there before."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), place.stat())
    except FileNotFoundError:
        return False


@contextmanager
def locked_lock(folder: Path) -> Iterator[None]:
    """Hold a run folder. The lock is the kernel's: it ends with the process, however that dies.

    Raises:
        HarnessError: another run holds it.
        StoreWriteError: it cannot be written.
    """
    place = folder / LOCK
    with _lock_lock(place):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                place.unlink()


def _lock_lock(place: Path) -> IO[str]:
    """The file that is at `place`, locked_lock."""
    while True:
        try:
            lock = place.open("a")
        except OSError as error:
            raise StoreWriteError(
                f"{place.parent} cannot be written ({error.strerror}): choose another folder with --out"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                lock.close()
                raise HarnessError(
                    f"another run writes to {place.parent}: wait for its end (`harness status {place.parent}` shows it), or "
                    "choose another folder with --out"
                ) from error
        if is_at(lock, place):
            return lock
        lock.close()  # whoever had it has just removed it
