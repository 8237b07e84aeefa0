"""The runs that a page may show: those under one folder, and no file outside of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.board.files import BOARD
from harness.errors import HarnessError
from harness.run.executors.journal import EVENTS, STATUS
from harness.run.folders import RUN, run_folders

ITSELF = "-"  # the name of a folder that is a run itself
LOGS = "logs"
LOG_BYTES = 20_000  # of a log's end


class OutsideError(HarnessError):
    """A path leads outside of the folder."""


@dataclass(frozen=True)
class Runs:
    """The folder that is shown.

    Attributes:
        root: resolved, so without symbolic links.
    """

    root: Path

    @classmethod
    def of(cls, folder: Path) -> Runs:
        """Raises HarnessError if there is no such folder."""
        if not folder.is_dir():
            raise HarnessError(f"no folder {folder}: run `harness compare` first, or give the folder of a run or of your runs")
        return cls(folder.resolve())

    @property
    def single(self) -> bool:
        """Whether the folder is a run itself."""
        return _is_run(self.root)

    def name(self, folder: Path) -> str:
        """Return the name of a run's folder: its path beneath the root."""
        return ITSELF if folder == self.root else folder.relative_to(self.root).as_posix()

    def folder(self, name: str) -> Path:
        """Return the folder of a run.

        Raises:
            OutsideError: the name, or a symbolic link on its way or in the folder, leads outside of the root.
            HarnessError: there is no such run.
        """
        place = self.root if name == ITSELF else self.root / name
        try:
            resolved = place.resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # missing, a null character, a loop of links
            raise HarnessError("no such run") from None
        self._check(resolved)
        if not _is_run(resolved):
            raise HarnessError("no such run")
        for entry in resolved.iterdir():  # whatever is read of a run is one of these
            if entry.is_symlink():
                self._check(entry.resolve())
        return resolved

    def folders(self) -> Iterator[Path]:
        """Yield the folders of all runs that may be shown."""
        for folder in run_folders(self.root):
            try:
                yield self.folder(self.name(folder))
            except HarnessError:
                continue

    def logs(self, name: str) -> dict[str, str]:
        """Return the end of each log of a run, by its file's name."""
        folder = self.folder(name) / LOGS
        tails = {}
        for path in sorted(folder.glob("*.log")) if folder.is_dir() else ():
            self._check(path.resolve())
            with path.open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - LOG_BYTES))
                tails[path.name] = file.read().decode("utf-8", "replace")
        return tails

    def _check(self, resolved: Path) -> None:
        if not resolved.is_relative_to(self.root):
            raise OutsideError("outside of the folder that is shown")


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (BOARD, STATUS, EVENTS, RUN))
