"""Boards as pages: finished ones from `board.json`, provisional ones from a process that builds them while a run goes on."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from harness.board.board import Board
from harness.board.files import BOARD
from harness.board.views.page import model_pages, to_html
from harness.view.provisional import Provisional
from harness.view.run import LiveRun, Snapshot

PAUSE = 2.0  # times the seconds that the last provisional board took: the pause before the next
LONGEST_SECONDS = 900.0  # that one may take
INDEX = "index.html"


@dataclass
class BoardPages:
    """The pages of the board that was asked for last, rendered again where the file has changed.

    They are rendered here, and not read from the run's folder: a page there could hold anything.
    """

    _stamp: tuple[Path, int, int] | None = None
    _pages: dict[str, str] = field(default_factory=dict)

    def page(self, folder: Path, path: str) -> str | None:
        """Return a page by its path beside the board; None where there is none.

        Raises:
            DataError: the board cannot be read.
        """
        try:
            stat = (folder / BOARD).stat()
        except FileNotFoundError:
            return None
        stamp = (folder, stat.st_mtime_ns, stat.st_size)
        if stamp != self._stamp:
            board = Board.read(folder)
            self._pages = {INDEX: to_html(board, board.example_rows), **model_pages(board)}
            self._stamp = stamp
        return self._pages.get(path)


@dataclass
class ProvisionalBuilder:
    """Builds the provisional board of one run, when another row is complete, and never two at a time."""

    run: LiveRun
    _built: tuple[str, int] = ("", 0)  # start of the run, and rows that were complete, at the last one
    _task: asyncio.Task[None] | None = None
    _next: float = 0.0  # the earliest time of the next one

    def consider(self, snapshot: Snapshot) -> None:
        """Begin to build, if there is something new to show."""
        events = self.run.events
        state = (events.began, events.rows_done)
        if not events.rows_done:
            self.run.provisional = None
        idle = self._task is None or self._task.done()
        if snapshot.provisional and events.rows_done and idle and state != self._built and time.monotonic() >= self._next:
            self._built = state
            self._task = asyncio.create_task(self._build())

    async def _build(self) -> None:
        began = time.monotonic()
        fresh = await _provisional(self.run.folder)
        if fresh.summary is None and self.run.provisional is not None:
            fresh = self.run.provisional.model_copy(update={"problem": fresh.problem})  # the last one still stands
        self.run.provisional = fresh
        self._next = time.monotonic() + PAUSE * (time.monotonic() - began)


async def _provisional(folder: Path) -> Provisional:
    """Run the process that builds a provisional board."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "harness.view.provisional", str(folder)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), LONGEST_SECONDS)
        return Provisional.model_validate_json(output)
    except (TimeoutError, ValidationError):
        return Provisional(problem=f"the provisional board could not be built: `harness report {folder}` says why")
    finally:
        with suppress(ProcessLookupError):
            process.kill()
