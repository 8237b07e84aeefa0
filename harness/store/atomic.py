"""Atomic writes: a reader sees the old file or the new one, and never half of one, wherever the writer was stopped."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from harness.store.owner import machine

ENDING = ".part"
ABANDONED_SECONDS = 86400.0  # a file that another machine began to write, and has not touched for so long


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a new path beside `path` to write to; rename it over `path` when the block ends, remove it when the block raises.

    Several processes may replace one file: each writes under a name of its own, and the last one wins.

    Args:
        durable: flush to the disk before the rename, for what must survive a power failure.

    Raises:
        OSError: the file cannot be written.
    """
    # An ending of its own, since `Path.glob("*.json")` finds hidden files too; cut, since a name holds at most 255 bytes. The
    # writer is in the name, so that `sweep_unfinished` knows the files of writers that were killed.
    beside = path.with_name(f".{path.name[:20]}.{machine()}-{os.getpid()}-{uuid.uuid4().hex}{ENDING}")
    try:
        yield beside
        if durable:
            with beside.open("rb") as stream:
                os.fsync(stream.fileno())  # else a crash may leave the new name without its bytes
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Write a file whole or not at all; text is written in UTF-8. `durable` and errors as for `replacing`."""
    with replacing(path, durable=durable) as beside:
        beside.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def sweep_unfinished(folder: Path, *, deep: bool = False) -> int:
    """Remove the files in `folder` whose writers were killed before the rename; return how many.

    Args:
        deep: also in the folders under it; links are not followed.
    """
    removed = 0
    for place, folders, names in os.walk(folder):
        if not deep:
            folders.clear()
        for name in names:
            if name.startswith(".") and name.endswith(ENDING) and _is_abandoned(Path(place, name)):
                with contextlib.suppress(OSError):
                    Path(place, name).unlink()
                    removed += 1
    return removed


def _is_abandoned(path: Path) -> bool:
    """Return whether a file's writer was a process of this machine that has ended, or has not touched it for a day."""
    writer, _, number = path.name.removesuffix(ENDING).rpartition("-")[0].rpartition("-")
    if number.isdigit() and writer.endswith(f".{machine()}"):
        return not psutil.pid_exists(int(number))
    with contextlib.suppress(OSError):
        return time.time() - path.lstat().st_mtime > ABANDONED_SECONDS
    return False
