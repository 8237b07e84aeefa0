"""Checksums of large files that stay as they are: computed once on a machine, by all cores, and remembered.

    <memory>/<hash of path>.json    path, size, time of the last change (ns), inode and SHA-256 of one file

A file that was written to, replaced or moved differs in one of these, and is read again. This serves to name content, as in the
key of a starting model; where a copy must be shown to be undamaged, it is read (`file_hash`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.store.artifact import file_hash
from harness.store.atomic import write_atomically

LARGE = 2**24  # bytes: below, reading the file takes about as long as reading what is remembered of it
SETTLED_SECONDS = 2.0  # a file changed later than this may change again within one tick of the file system's clock


def known_hashes(paths: Sequence[Path], memory: Path) -> list[str]:
    """Return the SHA-256 of each file, hexadecimal.

    Args:
        memory: a folder for what is remembered; made when first needed. One that cannot be written is done without.

    Raises:
        OSError: a file cannot be read.
    """
    # Hashing releases the interpreter's lock, so that threads use all cores.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(lambda path: _known_hash(path, memory), paths))


def _known_hash(path: Path, memory: Path) -> str:
    before = path.stat()
    if before.st_size < LARGE:
        return file_hash(path)
    name = str(path.resolve())
    identity = [name, before.st_size, before.st_mtime_ns, before.st_ino]
    place = memory / f"{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        remembered = json.loads(place.read_text(encoding="utf-8"))
        if remembered["identity"] == identity and isinstance(remembered["sha256"], str):
            return remembered["sha256"]
    checksum = file_hash(path)
    after = path.stat()
    settled = time.time() - after.st_mtime > SETTLED_SECONDS
    if settled and (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino):
        with contextlib.suppress(OSError):
            memory.mkdir(parents=True, exist_ok=True)
            write_atomically(place, json.dumps({"identity": identity, "sha256": checksum}), durable=False)
    return checksum
