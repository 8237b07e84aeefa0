"""What a stage prints, kept so that it can travel to whoever asked for the stage."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

MOST_BYTES = 200_000  # of one stage's output travel: the end, where the reason of a failure stands
STREAMS = (1, 2)


@contextmanager
def captured() -> Iterator[BinaryIO]:
    """Standard output and error of this process go to the file for a while, also what libraries below Python write."""
    with tempfile.TemporaryFile() as file:
        _flush()
        before = {number: os.dup(number) for number in STREAMS}
        try:
            for number in STREAMS:
                os.dup2(file.fileno(), number)
            yield file
        finally:
            _flush()
            for number, kept in before.items():
                os.dup2(kept, number)
                os.close(kept)


def tail(file: BinaryIO) -> str:
    """The end of what was written so far, as text."""
    _flush()
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - MOST_BYTES))
    return file.read().decode("utf-8", "replace")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
