"""Lines of JSON in one folder, to which processes of several machines add at once without a lock or a database.

    <folder>/<machine>-<process>-<nonce>.jsonl    of that process alone, which adds at its end and changes nothing

Each line begins with a checksum of the rest. What is added at a time is written at once and flushed. A process that is killed
meanwhile leaves whole lines and at most one torn one, the last of a file that nobody adds to any more; so does a disk that is
full. Readers go as far as whole lines go, and look again from there.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import StoreError, StoreWriteError
from harness.store import canonical
from harness.store.atomic import write_atomically
from harness.store.failures import FULL, READ_ONLY
from harness.store.reading import open_plain

SUFFIX = ".jsonl"
START, END = b'{"checksum":"', b'",'
DIGITS = 16
Row = dict[str, Any]

_idle: defaultdict[tuple[Path, int], list[Path]] = defaultdict(list)  # of a folder and process: its files not in use


class Place(NamedTuple):
    """The place of a line; sorts by file, then by position in it."""

    file: str
    offset: int


class Lines:
    """All lines that processes have added to a folder, which may be absent.

    Every method raises StoreError where a file is damaged or cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[str, int] = {}  # how far each file was

    def new(self) -> Iterator[tuple[Place, Row]]:
        """Yield the lines added since the last call."""
        for name in self._files():
            path, offset = self.folder / name, self._read.get(name, 0)
            with _readable(path), open_plain(path) as stream:
                stream.seek(offset)
                for line in stream:
                    if not _arrived(line):
                        break
                    yield Place(name, offset), _row(line, path, offset)
                    offset += len(line)
                    self._read[name] = offset

    def at(self, places: Iterable[Place]) -> Iterator[tuple[Place, Row]]:
        """Yield the lines at `places`, in the places' order."""
        for name, in_file in groupby(sorted(places), key=lambda place: place.file):
            path = self.folder / name
            with _readable(path), open_plain(path) as stream:
                for place in in_file:
                    stream.seek(place.offset)
                    yield place, _row(stream.readline(), path, place.offset)

    def _files(self) -> list[str]:
        with _readable(self.folder):
            try:
                return sorted(path.name for path in self.folder.iterdir() if path.suffix == SUFFIX)
            except FileNotFoundError:
                return []


def damaged_files(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yield the files with damaged lines, and how many each has. The torn last line of a killed process is no damage."""
    for name in Lines(folder)._files():
        with suppress(OSError), open_plain(folder / name) as stream:  # what is no plain file is found by `store.check`
            if damaged := sum(_arrived(line) and not _is_whole(line) for line in stream):
                yield folder / name, damaged


def save_whole_lines(path: Path) -> Path:
    """Write the whole lines of a damaged file to a new one beside it; return that.

    Raises:
        OSError: it cannot be read or written.
    """
    with open_plain(path) as stream:
        whole = b"".join(line for line in stream if _arrived(line) and _is_whole(line))
    saved = path.with_name(f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:DIGITS]}{SUFFIX}")
    write_atomically(saved, whole)
    return saved


class OwnFile:
    """The file that this process adds to: made when first needed, and taken up again by the next `OwnFile` after `close`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stream: FileIO | None = None
        self._path = folder

    def add(self, rows: Iterable[Row]) -> None:
        """Add lines; they are on the disk when this returns. After an error they may be, and the next go into a new file.

        Raises:
            StoreWriteError: the disk is full, or the folder read-only.
            StoreError: they cannot be written for another reason.
        """
        data = b"".join(map(line_of, rows))
        try:
            _write(self._stream or self._opened(), data)
        except BaseException as error:
            self._give_up()
            if isinstance(error, OSError):
                raise _unwritable(self._path, error) from error
            raise

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
            _idle[self.folder, os.getpid()].append(self._path)

    def _opened(self) -> FileIO:
        self.folder.mkdir(exist_ok=True)
        process = os.getpid()
        try:
            self._path = _idle[self.folder, process].pop()
        except IndexError:
            self._path = self.folder / f"{platform.node()}-{process}-{uuid.uuid4().hex[:DIGITS]}{SUFFIX}"
        self._stream = FileIO(self._path, "ab")  # without a buffer, which would be written again when it is closed
        return self._stream

    def _give_up(self) -> None:
        """Add no more to a file whose last line may be torn."""
        if self._stream is not None:
            with suppress(OSError):
                self._stream.close()
            self._stream = None


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:DIGITS].encode()


def line_of(row: Row) -> bytes:
    """A row with its checksum, as it lies in a file."""
    body = canonical(row).encode()
    return START + _checksum(body) + END + body[1:] + b"\n"


def _is_whole(line: bytes) -> bool:
    checksum, _, rest = line.removeprefix(START).partition(END)
    return checksum == _checksum(b"{" + rest.removesuffix(b"\n"))


def _row(line: bytes, path: Path, offset: int) -> Row:
    if not _is_whole(line):
        raise StoreError(f"{path} is damaged at byte {offset}: move it away, and judges are asked again for what it holds")
    row: Row = json.loads(b"{" + line.partition(END)[2])
    return row


def _arrived(line: bytes) -> bool:
    """Whether a line is whole. Zeros, which JSON has none of, stand where a network file system has yet to show what was
    written, and where a machine lost its power before the end of a flush.
    """
    return line.endswith(b"\n") and b"\0" not in line


def _write(stream: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[stream.write(rest) :]  # a full disk takes a part
    os.fsync(stream.fileno())


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        fix = "fix that, or move it away, and judges are asked again"
        raise StoreError(f"the judges' answers in {path} cannot be read ({error.strerror}): {fix}") from error


def _unwritable(path: Path, error: OSError) -> StoreError:
    problem = f"the judges' answers cannot be written to {path} ({error.strerror})"
    if error.errno in (*FULL, *READ_ONLY):
        return StoreWriteError(f"{problem}: make room or choose another store with --store, and run again")
    return StoreError(f"{problem}: fix that or choose another store with --store, and run again")
