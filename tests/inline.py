"""Comparisons in this process: no worker process and no second Python loads the libraries, which takes seconds each.

Worker processes, signals and exit codes of the shell have tests of their own (`run/executors`, `test_compare.py`).
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.run.executors.process import Inbox, Worker
from harness.run.executors.worker import attempt, make_context
from harness.run.graph import Stage
from harness.run.stages.context import Context
from harness.run.stages.live import Live


class InlineWorker(Worker):
    """Runs each stage as it is given, in the thread of the executor, which reads the same messages from it."""

    def __init__(self, number: int, settings: Mapping[str, Any], inbox: Inbox, log: Path, gpu: str | None = None) -> None:
        self.number, self.gpu, self.stage, self.began = number, gpu, None, 0.0
        self.used = self.ready = True
        self._inbox, self._log = inbox, log

        @cache
        def context() -> Context:
            live = Live(lambda values: inbox.put((self, {"event": "measured", "values": values})))
            return make_context(settings, self._progress, live)

        self._context = context
        log.touch()

    def give(self, stage: Stage, gpus: Sequence[str] = ()) -> None:
        self.stage = stage
        with self._log.open("a", encoding="utf-8") as log, redirect_stderr(log), redirect_stdout(log):
            message = attempt(stage, lambda: replace(self._context(), gpus=tuple(gpus)))
        self._inbox.put((self, message))

    def stop(self) -> None:
        """There is no process to end."""

    def look(self) -> None:
        """There is no process to look for."""

    def _progress(self, done: int, total: int, note: str) -> None:
        self._inbox.put((self, {"event": "progress", "done": done, "total": total, "note": note}))


@contextmanager
def inline_workers() -> Iterator[None]:
    """Within the block the local executor starts no processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.run.executors.local.Worker", InlineWorker)
        yield


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def harness(*arguments: str | Path, environment: Mapping[str, str] | None = None) -> Ended:
    """Run a command of the command line in this process, without worker processes.

    Args:
        environment: in place of this process's environment variables.
    """
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, inline_workers(), redirect_stdout(out), redirect_stderr(err):
        if environment is not None:
            patch.setattr(os, "environ", _environment(environment))
        patch.setattr(sys, "argv", ["harness", *map(str, arguments)])
        patch.setattr("signal.signal", lambda *_: None)
        try:
            with pytest.raises(SystemExit) as left:
                main()
        except Exception:
            return Ended(1, out.getvalue(), err.getvalue() + traceback.format_exc())
    return Ended(int(left.value.code or 0), out.getvalue(), err.getvalue())


def _environment(variables: Mapping[str, str]) -> Any:
    """A copy of `os.environ` with these variables alone, which changes no variable of this process."""
    copied = os.environ.copy()
    copied.clear()
    return copied | dict(variables)
