"""A run folder belongs to one run at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_compare import tiny_config

from harness import HarnessError
from harness.errors import StoreWriteError
from harness.run.compare import compare
from harness.store.locks import LOCK, run_lock

HOLDER = """
import sys, time
from pathlib import Path
from harness.store.locks import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_folder_is_held_by_one_and_left_as_it_was(tmp_path: Path) -> None:
    said = rf"another run writes to {re.escape(str(tmp_path))}: wait .*, or choose another folder with --out"
    with run_lock(tmp_path):
        with pytest.raises(HarnessError, match=said), run_lock(tmp_path):
            pytest.fail("held twice")
        with pytest.raises(HarnessError, match=said), run_lock(tmp_path):
            pytest.fail("the first who asks in vain takes it away")
    assert list(tmp_path.iterdir()) == []
    with run_lock(tmp_path):
        pass


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(HarnessError), run_lock(tmp_path):
            pytest.fail("held twice")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert (tmp_path / LOCK).exists()
    with run_lock(tmp_path):
        pass


def test_who_locks_a_file_that_was_just_removed_locks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock, removed = fcntl.flock, []

    def late(lock: int, how: int) -> None:
        if not removed:
            removed.append((tmp_path / LOCK).unlink())
        flock(lock, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with run_lock(tmp_path):
        assert (tmp_path / LOCK).exists()


def test_a_file_system_without_locks_and_one_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(lock: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unable)
    with run_lock(tmp_path), run_lock(tmp_path):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(StoreWriteError, match="choose another folder with --out"), run_lock(tmp_path / "file"):
        pytest.fail("held a file")


def test_a_second_run_in_a_folder_leaves_the_status_of_the_first(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "status.json").write_text("of the first")
    with run_lock(folder), pytest.raises(HarnessError, match="another run writes to "):
        compare(tiny_config(tiny_checkpoint), folder=folder, store=tmp_path / "store", workers=1)
    assert (folder / "status.json").read_text() == "of the first"
    assert list((tmp_path / "store" / "roots").iterdir()) == []
