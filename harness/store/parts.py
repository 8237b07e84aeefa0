"""Folders that are being written: each tells by its name whose it is, so that those of dead processes can be swept."""

from __future__ import annotations

import os
import platform
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


class Parts:
    """The half-written folders of a store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def new(self) -> Path:
        """A new name: machine, process, anything unique."""
        return self.folder / f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex}"

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder that goes when the block ends, or is swept once its process is gone."""
        folder = self.new()
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self) -> int:
        """Remove what dead processes of this machine left; how many."""
        removed = 0
        for part in self.folder.iterdir():
            machine, _, owner = part.name.rpartition("-")[0].rpartition("-")
            if machine == platform.node() and owner.isdigit() and not psutil.pid_exists(int(owner)):
                shutil.rmtree(part, ignore_errors=True)
                removed += 1
        return removed
