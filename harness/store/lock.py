"""A run folder belongs to one run at a time."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from harness.errors import HarnessError, StoreWriteError
from harness.store.locks import NO_LOCKS, is_at

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder. The lock is the kernel's: it ends with the process, however that dies.

    Raises:
        HarnessError: another run holds it.
        StoreWriteError: it cannot be written.
    """
    place = folder / LOCK
    with _lock(place):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                place.unlink()


def _lock(place: Path) -> IO[str]:
    """The file that is at `place`, locked."""
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
