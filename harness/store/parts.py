"""Folders that are being written. Each has its owner's machine and process in its name, and is touched while the owner lives.

So those of dead processes can be swept: at once on the machine that they ran on, and anywhere once nobody has touched them for
long.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from harness.store.owner import LEASE_SECONDS, beating, machine

SILENT_SECONDS = 86400.0
PARTIAL_DAYS = 30  # unfinished work that nobody resumed for so long is swept
LEAST_SILENT_SECONDS = 10 * LEASE_SECONDS  # a machine that stands still for a minute or two is not dead


class Parts:
    """The half-written folders of a store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def new(self) -> Path:
        """Return a new path whose name holds the machine and the process."""
        return self.folder / f"{machine()}-{os.getpid()}-{uuid.uuid4().hex}"

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a folder that is touched until the block ends and then removed; a dead process's is swept."""
        folder = self.new()
        folder.mkdir()
        try:
            with beating(lambda: _touched(folder)):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self, silent_seconds: float = SILENT_SECONDS) -> int:
        """Remove folders of this machine's dead processes, and others not touched for so long; return how many.

        Args:
            silent_seconds: at least `LEAST_SILENT_SECONDS`, since a living process touches its folders more often.
        """
        os.utime(self.folder)
        oldest = self.folder.stat().st_mtime - max(silent_seconds, LEAST_SILENT_SECONDS)  # by the file server's clock
        removed = 0
        for part in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # its owner was faster
                lives = _lives(part.name)
                if part.stat().st_mtime < oldest if lives is None else not lives:
                    shutil.rmtree(part, ignore_errors=True)
                    removed += 1
        return removed


def sweep_partial(folder: Path, done: Callable[[str], bool]) -> int:
    """Remove unfinished work whose artifact is there by now, or that nobody resumed; return how many.

    Args:
        folder: of folders named by key.
        done: returns whether the artifact of a key is in the store.
    """
    removed = 0
    for partial in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # another run published it
            old = time.time() - partial.stat().st_mtime > PARTIAL_DAYS * 24 * 3600
            if old or done(partial.name):
                shutil.rmtree(partial, ignore_errors=True)
                removed += 1
    return removed


def _lives(name: str) -> bool | None:
    """Return whether the owner of a folder lives; None if it ran on another machine."""
    owner, _, process = name.rpartition("-")[0].rpartition("-")
    return psutil.pid_exists(int(process)) if owner == machine() and process.isdigit() else None


def _touched(folder: Path) -> bool:
    with contextlib.suppress(OSError):  # a network file system that fails for a moment; or it has just been put in its place
        os.utime(folder)
    return True
