"""The new lines of a file that another process appends to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

MOST_BYTES = 1 << 24  # read at a time; a longer line is passed over


@dataclass
class Tail:
    """Reads a file from where it came to. A last line without its end is left for the next read: it is being written."""

    path: Path
    _identity: tuple[int, int] = (0, 0)
    _offset: int = 0
    _skipping: bool = False  # within a line that is too long

    def read(self) -> tuple[bool, list[bytes]]:
        """Return whether the file is another one than before, or was cut, so that it is read anew; and its next whole lines."""
        try:
            with self.path.open("rb") as file:
                stat = os.fstat(file.fileno())
                identity = (stat.st_dev, stat.st_ino)
                anew = self._offset > 0 and (identity != self._identity or stat.st_size < self._offset)
                if anew:
                    self._offset, self._skipping = 0, False
                self._identity = identity
                file.seek(self._offset)
                block = file.read(MOST_BYTES)
        except FileNotFoundError:
            anew = self._offset > 0
            self._offset = 0
            return anew, []
        end = block.rfind(b"\n") + 1
        if not end and len(block) == MOST_BYTES:
            self._offset, self._skipping = self._offset + len(block), True
            return anew, []
        self._offset += end
        lines = block[:end].splitlines()
        if self._skipping and lines:
            lines, self._skipping = lines[1:], False
        return anew, lines
