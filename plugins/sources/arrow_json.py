"""Errors of JSON and CSV files found before the readers of `datasets`: some end the process, others name no line."""

from __future__ import annotations

import re
from pathlib import Path

from harness import DataError, decode, read_json_rows, read_lines

DEEPEST = 500  # Arrow falls at some thousand levels, Python's own reader at a thousand
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"')
_TOKENS = re.compile(rb"[\[\]{}]|null")
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


def check_json(file: Path) -> None:
    """Refuse a file that Arrow does not read, or reads as something else.

    Raises:
        DataError: names the line where brackets are nested deeper than any data set's, `null` stands for a row, bytes are not
            UTF-8, or a text holds half a surrogate pair.
    """
    depth, halves = 0, False
    for number, line in read_lines(file):
        halves = halves or _HALF.search(line) is not None
        decode(line, f"{file}, line {number}")
        for token in _TOKENS.findall(_TEXT.sub(b"", line)):
            if token == b"null":
                if depth == 0:
                    raise DataError(f"{file}, line {number}: null stands where a row should: remove the line")
            else:
                depth = depth + 1 if token in b"[{" else max(0, depth - 1)
                if depth > DEEPEST:
                    raise DataError(f"{file}, line {number}: nested deeper than {DEEPEST} levels, or no JSON: is it whole?")
    if halves:  # escapes of whole pairs look alike until they are read
        for where, _, row in read_json_rows(file):
            if isinstance(row, ValueError) and "surrogate" in str(row):
                raise DataError(f"{where}: {row}") from row


def check_csv(file: Path) -> None:
    """Refuse a file that is not UTF-8; raises DataError naming the line."""
    for number, line in read_lines(file):
        decode(line, f"{file}, line {number}")
