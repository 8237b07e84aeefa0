"""What Arrow's JSON reader, which `datasets` uses, does not survive: it ends the process. Found before it reads a file."""

from __future__ import annotations

import re
from pathlib import Path

from harness import DataError
from harness_plugins.sources.hh_rlhf import lines

DEEPEST = 500  # Arrow falls at some thousand levels, Python's own reader at a thousand
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"')
_TOKENS = re.compile(rb"[\[\]{}]|null")


def check_json(file: Path) -> None:
    """Raises DataError, with the line, where brackets are nested deeper than any data set's, or `null` stands for a row."""
    depth = 0
    for number, line in lines(file):
        for token in _TOKENS.findall(_TEXT.sub(b"", line)):
            if token == b"null":
                if depth == 0:
                    raise DataError(f"{file}, line {number}: null stands where a row should: remove the line")
            else:
                depth = depth + 1 if token in b"[{" else max(0, depth - 1)
                if depth > DEEPEST:
                    raise DataError(f"{file}, line {number}: nested deeper than {DEEPEST} levels, or no JSON: is it whole?")
