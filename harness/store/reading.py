"""Read plain files alone: where a FIFO, a device or a link lies in a file's place, reading is an error and never waits."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

LARGEST_RECORD = 64 << 20  # bytes of a manifest, a lease or another small file of the store


def open_plain(path: Path, *, follow: bool = False) -> io.BufferedReader:
    """Open a plain file for reading.

    Args:
        follow: whether the file may be reached through a link, as in the hub's cache.

    Raises:
        OSError: it is absent, no plain file, or a link.
    """
    # O_NONBLOCK: opening a FIFO would wait for a writer. What lies there is looked at after it is opened, so that it cannot
    # be exchanged in between.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    return open(descriptor, "rb")  # noqa: PTH123 (a descriptor)


def read_plain(path: Path, most: int = LARGEST_RECORD) -> bytes:
    """Return the bytes of a small plain file.

    Raises:
        OSError: it cannot be read, is no plain file, or has more than `most` bytes.
    """
    with open_plain(path) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return content
