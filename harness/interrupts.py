"""Ctrl-C while the command line is still importing, or already ending: one line, exit code 130, no traceback.

This module is imported before everything else, so it imports next to nothing itself.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType


def end_at_once(number: int, frame: FrameType | None) -> None:
    """Handle a signal where nothing has to be cleaned up. An exception could be swallowed by whoever is being imported."""
    with suppress(OSError):  # nobody may read it
        os.write(2, b"interrupted\n")
    os._exit(128 + number)


def runs_as_command(arguments: list[str], original: list[str]) -> bool:
    """Return whether this process is the command `harness` or `python -m harness`, and not a program that imports us.

    Args:
        arguments: `sys.argv`; while Python imports the package of `-m`, its first item is `-m`.
        original: `sys.orig_argv`.
    """
    script = arguments[0] if arguments else ""
    if script == "-m":
        return "harness" in original
    # A script of the same name elsewhere keeps its own Ctrl-C: only the one in this environment is ours.
    return Path(script).resolve() == (Path(sys.prefix) / "bin" / "harness").resolve()


def end_on_interrupt() -> None:
    """End at once on Ctrl-C, from here until another handler is set."""
    # Only in place of Python's own handler: a parent may have asked that Ctrl-C is ignored, as `nohup` and shells do.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)
