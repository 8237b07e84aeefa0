"""Failed writes as the store's own errors."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import StoreError, StoreWriteError

FULL = (errno.ENOSPC, errno.EDQUOT)
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
TORCH = ("inline_container", "PytorchStreamWriter", "iostream error", "unexpected pos")  # in what torch.save then says
ALMOST_FULL_BYTES = 64 << 20


@contextmanager
def telling_full_disk(folder: Path) -> Iterator[None]:
    """Translate torch's errors on a full disk into the system's ENOSPC. Wrap it around the block that removes what was written:
    afterwards the disk has room again."""
    try:
        yield
    except Exception as error:
        if any(words in str(error) for words in TORCH) and shutil.disk_usage(folder).free < ALMOST_FULL_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise


@contextmanager
def as_store_errors(root: Path, what: str) -> Iterator[None]:
    """Raise a full disk anywhere, and failures on files under `root`, as the store's own error; all else goes through."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        code, own = _code(error), _names(error, root)
        if code in FULL or (code in READ_ONLY and own):
            raise StoreWriteError(f"{what} cannot be written to {root}: {error}") from error
        if own:
            raise StoreError(f"{what} cannot be made: {error}; run again") from error
        raise


def _names(error: Exception, root: Path) -> bool:
    """Whether an error is about a file under `root`."""
    return isinstance(error, OSError) and str(root) in f"{error.filename} {error.filename2}"


def _code(error: Exception) -> int | None:
    """Return the errno of an error. safetensors raises an error of its own that holds only the system's text."""
    if isinstance(error, OSError):
        return error.errno
    return next((code for code in FULL if os.strerror(code) in str(error)), None)
