"""Locks between the processes of one machine, beside the store and not in it."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import pytest

from harness.errors import StoreWriteError
from harness.store.locks import lock_folder, locked

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of this test's own."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


def test_a_lock_lies_outside_the_store_and_leaves_nothing(store: Path, temporary: Path) -> None:
    with locked(store, KEY, None):
        (place,) = (path for path in temporary.rglob("*") if path.is_file())
        assert place == lock_folder(store) / KEY
        assert place.parent.parent.stat().st_mode & 0o777 == 0o700
    assert list(store.iterdir()) == list(lock_folder(store).iterdir()) == []


def test_a_store_under_another_path_has_the_same_locks(store: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(store)
    waiting, order = threading.Event(), []

    def second() -> None:
        with locked(tmp_path / "link", KEY, waiting.set):
            order.append("second")

    thread = threading.Thread(target=second)
    with locked(store, KEY, lambda: pytest.fail("nobody had it")):
        thread.start()
        assert waiting.wait(timeout=60)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    other = tmp_path / "other"
    other.mkdir()
    assert lock_folder(other) != lock_folder(store)


@pytest.mark.parametrize("trap", ["of another user", "open to others", "a link", "a file"])
def test_a_folder_that_others_can_write_is_refused(
    trap: str, store: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = temporary / f"harness-locks-{os.getuid()}"
    if trap == "a link":
        (temporary / "elsewhere").mkdir()
        top.symlink_to(temporary / "elsewhere")
    elif trap == "a file":
        top.touch()
    else:
        top.mkdir()
        top.chmod(0o777 if trap == "open to others" else 0o700)
    if trap == "of another user":
        mine = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: mine + 1)
        top.rename(temporary / f"harness-locks-{mine + 1}")
    with pytest.raises(StoreWriteError, match=r"harness-locks-\d+.*TMPDIR"), locked(store, KEY, None):
        pytest.fail("the lock was given")


def test_what_the_block_raises_goes_through(store: Path) -> None:
    with pytest.raises(FileNotFoundError), locked(store, KEY, None):
        raise FileNotFoundError
    assert list(lock_folder(store).iterdir()) == []
