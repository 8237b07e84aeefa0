"""What is being written: touched while its writer lives, and swept when that is gone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_store import KEY, make, parts, store

from harness.store import Store
from harness.store import owner as heart
from harness.store.parts import SILENT_SECONDS

__all__ = ["store"]  # the fixture


def test_sweep_removes_what_the_dead_left_and_nothing_else(store: Store) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    mine = store.parts.new()
    theirs = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-"))
    elsewhere = mine.with_name(f"another-machine-{dead.pid}-abc")
    silent = mine.with_name(f"another-machine-{dead.pid}-def")
    other = mine.with_name("notes")
    for part in (mine, theirs, elsewhere, silent, other):
        part.mkdir()
        (part / "file").touch()
    assert theirs != mine
    age = time.time() - SILENT_SECONDS
    os.utime(elsewhere, (age + 100, age + 100))
    os.utime(silent, (age - 100, age - 100))
    os.utime(mine, (0, 0))
    assert store.sweep() == 2
    assert sorted(parts(store)) == sorted([mine, elsewhere, other])


def test_what_is_being_written_is_touched(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that other machines see that its writer lives."""
    monkeypatch.setattr(heart, "LEASE_SECONDS", 0.06)
    with store.draft("test", KEY) as draft:
        os.utime(draft.folder, (0, 0))
        end = time.monotonic() + 30
        while draft.folder.stat().st_mtime == 0 and time.monotonic() < end:
            pass
        assert draft.folder.stat().st_mtime > 0


def test_a_sweep_beside_a_publication(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has listed may be gone when it looks at it."""
    listed = [store.partial("a" * 32), store.parts.folder / "another-machine-1-x"]
    monkeypatch.setattr(Path, "glob", lambda *_: iter(listed[:1]))
    monkeypatch.setattr(Path, "iterdir", lambda *_: iter(listed[1:]))
    assert store.sweep() == 0


def test_partial_work_goes_when_its_artifact_is_there_or_when_it_is_old(store: Store) -> None:
    kept, old, done = (store.partial(letter * 32) for letter in "abc")
    for folder in (kept, old, done, store.partial(KEY)):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    os.utime(old, (0, 0))
    make(store)
    assert not store.partial(KEY).exists()
    done.rename(store.root / "aside")
    make(store, key="c" * 32)
    (store.root / "aside").rename(done)  # as a process leaves it that is killed between publishing and removing
    assert store.sweep() == 2
    assert [path.name for path in (store.root / "partial").iterdir()] == ["a" * 32]


def test_a_killed_writer_leaves_a_part_that_is_swept(store: Store) -> None:
    code = f"""
import os, signal, sys
from pathlib import Path
from harness.store import Store
with Store(Path({str(store.root)!r})).draft("test", {KEY!r}) as draft:
    draft.write_json("value.json", 1)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert len(parts(store)) == 1
    assert not store.holds(KEY)
    assert store.sweep() == 1
    make(store)
    assert store.holds(KEY)


def test_what_the_dead_leave_goes_before_a_block_and_after_it(store: Store) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = store.parts.folder / store.parts.new().name.replace(f"-{os.getpid()}-", f"-{dead.pid}-")
    left.mkdir()
    with pytest.raises(KeyboardInterrupt), store.swept():
        assert parts(store) == []
        left.mkdir()
        raise KeyboardInterrupt
    assert parts(store) == []


def test_a_store_that_is_gone_hides_no_error(store: Store) -> None:
    with pytest.raises(RuntimeError, match="the first"), store.swept():
        shutil.rmtree(store.root)
        raise RuntimeError("the first")
