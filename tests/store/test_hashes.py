"""Checksums of large files are remembered for as long as the files stay as they are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.store import hashes
from harness.store.hashes import known_hashes


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read."""
    names: list[str] = []
    monkeypatch.setattr(hashes, "LARGE", 10)
    whole = hashes.file_hash
    monkeypatch.setattr(hashes, "file_hash", lambda path: names.append(path.name) or whole(path))
    return names


def write(path: Path, content: bytes, time: int = 1_000_000_000) -> Path:
    path.write_bytes(content)
    os.utime(path, (time, time))
    return path


def same_size(path: Path) -> None:
    write(path, b"other weights", 1_000_000_001)


def replaced(path: Path) -> None:
    """A new file with the old one's name, size and times."""
    write(path.with_name("new"), b"other weights")
    path.with_name("new").replace(path)


@pytest.mark.parametrize("change", [same_size, replaced])
def test_a_large_file_is_read_once_until_it_changes(reads: list[str], tmp_path: Path, change: Callable[[Path], None]) -> None:
    large, small = write(tmp_path / "large", b"three weights"), write(tmp_path / "small", b"{}")
    expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (large, small)]
    for _ in range(2):
        assert known_hashes([large, small], tmp_path / "memory") == expected
    assert sorted(reads) == ["large", "small", "small"]
    change(large)
    assert known_hashes([large], tmp_path / "memory") == [hashlib.sha256(b"other weights").hexdigest()]


def test_a_file_that_was_just_written_is_not_remembered_nor_is_anything_where_nothing_can_be_written(
    reads: list[str], tmp_path: Path
) -> None:
    fresh, old = tmp_path / "fresh", write(tmp_path / "old", b"three weights")
    fresh.write_bytes(b"a file of now")
    (tmp_path / "memory").write_text("a file in the folder's place")
    for memory, path in ((tmp_path / "other", fresh), (tmp_path / "memory", old)):
        assert known_hashes([path, path], memory) == [hashlib.sha256(path.read_bytes()).hexdigest()] * 2
    assert sorted(reads) == ["fresh", "fresh", "old", "old"]


@pytest.mark.parametrize("content", ["", "[]", '{"identity": 1, "sha256": "forged"}'])
def test_a_damaged_note_is_not_believed(reads: list[str], tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "large", b"three weights")
    expected = known_hashes([path], tmp_path / "memory")
    (note,) = (tmp_path / "memory").iterdir()
    note.write_text(content)
    assert known_hashes([path], tmp_path / "memory") == expected and reads == ["large", "large"]
