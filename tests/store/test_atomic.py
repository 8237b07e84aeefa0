"""Atomic writes: readers see a whole file, and a failed write leaves the old one and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.store.atomic import replacing, write_atomically


def test_a_file_is_written_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, "grüße")
    assert path.read_bytes() == "grüße".encode()
    with replacing(path) as beside:
        beside.write_bytes(b"new, ")
        assert path.read_bytes() == "grüße".encode()
        assert list(tmp_path.glob("*.json")) == [path]  # readers of a folder never take the unfinished file for one of theirs
        with beside.open("ab") as stream:
            stream.write(b"whole")
    assert path.read_bytes() == b"new, whole"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("moment", ["write", "fsync"])
def test_a_failed_write_leaves_the_old_file_alone(
    error: BaseException, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(*((os, "fsync") if moment == "fsync" else (Path, "write_bytes")), fail)
    with pytest.raises(type(error)):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_longest_name_that_a_file_can_have_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    write_atomically(path, b"x")
    assert path.read_bytes() == b"x"
    write_atomically(tmp_path / ("ü" * 127), b"x")  # 254 bytes
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_that_was_never_written_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_text() == "old"
