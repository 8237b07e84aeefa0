"""Folders that are being written: each tells by its name whose it is, and by its age that its owner lives.

Those of dead processes can so be swept: at once on the machine that they ran on, and anywhere once nobody has touched them for
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
PARTIAL_DAYS = 30  # what nobody went on with for so long is swept
LEAST_SILENT_SECONDS = 10 * LEASE_SECONDS  # a machine that stands still for a minute or two is not dead


class Parts:
    """The half-written folders of a store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def new(self) -> Path:
        """A new name: machine, process, anything unique."""
        return self.folder / f"{machine()}-{os.getpid()}-{uuid.uuid4().hex}"

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder that is touched until the block ends, and goes then, or is swept once its process is gone."""
        folder = self.new()
        folder.mkdir()
        try:
            with beating(lambda: _touched(folder)):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self, silent_seconds: float = SILENT_SECONDS) -> int:
        """Remove what dead processes of this machine left, and what others have not touched for so long; how many.

        Args:
            silent_seconds: `LEAST_SILENT_SECONDS` if that is more: who lives touches its parts more often.
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
    """Remove how far making came, of what is done by now or what nobody went on with; how many.

    Args:
        folder: of folders named by key.
        done: whether the artifact of a key is there.
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
    """Whether a part's owner lives; None if it is not of this machine."""
    owner, _, process = name.rpartition("-")[0].rpartition("-")
    return psutil.pid_exists(int(process)) if owner == machine() and process.isdigit() else None


def _touched(folder: Path) -> bool:
    with contextlib.suppress(OSError):  # a network file system that fails for a moment; or it has just been put in its place
        os.utime(folder)
    return True
