"""What cannot be written: nothing half-written stays, and the store's own failures are one error."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_store import KEY, make, parts, store

from harness import StoreError
from harness.errors import StoreWriteError
from harness.store import Store
from harness.store.locks import lock_folder

__all__ = ["store"]  # the fixture


@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), KeyboardInterrupt(), FileNotFoundError(2, "no", "/their/file"), StoreError("of another")]
)
def test_a_failure_leaves_nothing_and_goes_through(store: Store, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, store.draft("test", KEY) as draft:
        draft.write_json("value.json", 1)
        raise error
    assert caught.value is error
    assert parts(store) == []
    assert not store.place(KEY).exists()


@pytest.mark.parametrize("size", [10, 10_000_000])
@pytest.mark.parametrize("free", [1 << 20, 1 << 40])
def test_a_full_disk_in_torch_s_words(store: Store, monkeypatch: pytest.MonkeyPatch, size: int, free: int) -> None:
    """Found where there is still no room: a training's own folder is gone before its artifact's."""
    torch = pytest.importorskip("torch")
    room = [free]
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=room[0]))
    rmtree = shutil.rmtree
    monkeypatch.setattr("shutil.rmtree", lambda *a, **k: (room.__setitem__(0, 1 << 40), rmtree(*a, **k)))
    full = free < 1 << 30
    said = r"an artifact of kind train cannot be written to .*No space left" if full else "iostream|inline_container"
    with pytest.raises(StoreWriteError if full else RuntimeError, match=said), store.draft("train", KEY), store.part():
        torch.save(torch.zeros(size), "/dev/full")
    assert parts(store) == []


def test_who_comes_second_takes_what_the_first_has_published(store: Store) -> None:
    """Two make one artifact when a machine stood still for so long that it lost its lease."""
    for failure in (None, RuntimeError("their server is gone"), FileNotFoundError(2, "no", str(store.partial(KEY)))):
        with store.draft("test", KEY) as draft:
            make(Store(store.root), "first")
            (draft.folder / "deep").mkdir()
            if failure:
                raise failure
        assert (Store(store.root).open(KEY) / "deep" / "text").read_text() == "first"
        shutil.rmtree(store.place(KEY))
    with pytest.raises(KeyboardInterrupt), store.draft("test", KEY):
        make(Store(store.root))
        raise KeyboardInterrupt
    assert parts(store) == []


def test_a_damaged_artifact_of_another_is_no_excuse(store: Store) -> None:
    with pytest.raises(RuntimeError, match="a bug"), store.draft("test", KEY):
        make(store)
        (store.place(KEY) / "value.json").write_text("damaged")
        raise RuntimeError("a bug")


def test_a_full_disk_is_the_store_s_error(store: Store) -> None:
    with (
        pytest.raises(StoreError, match=r"an artifact of kind test cannot be written to .*No space left"),
        store.draft("test", KEY),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert parts(store) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"the store .* cannot be written .*: choose another with --store"):
        Store(tmp_path / "file")


def test_a_lock_that_cannot_be_taken(store: Store) -> None:
    (lock_folder(store.root) / KEY).mkdir()
    with pytest.raises(StoreError, match="choose another with --store"), store.claim(KEY):
        pytest.fail("the claim was given")
