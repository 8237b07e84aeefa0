"""Atomic writes: a reader sees the old file or the new one, and never half of one, wherever the writer was stopped."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ENDING = ".part"


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a new path beside `path` to write to; rename it over `path` when the block ends, remove it when the block raises.

    Several processes may replace one file: each writes under a name of its own, and the last one wins.

    Args:
        durable: flush to the disk before the rename, for what must survive a power failure.

    Raises:
        OSError: the file cannot be written.
    """
    # An ending of its own, since `Path.glob("*.json")` finds hidden files too; cut, since a name holds at most 255 bytes.
    beside = path.with_name(f".{path.name[:50]}.{uuid.uuid4().hex}{ENDING}")
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
