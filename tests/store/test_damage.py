"""Damage of every kind: one bit anywhere in an artifact shows, and what does not belong into a store is listed, unopened."""

from __future__ import annotations

import json
import os
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_store import KEY, make, store

from harness.errors import StoreError
from harness.store import MANIFEST, Store
from harness.store.artifact import SEAL, contents
from harness.store.check import check, repair
from harness.store.exchange import export_artifacts, import_artifacts
from harness.store.roots import Root, register

__all__ = ["store"]  # the fixture


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_flipped_bit_anywhere_is_noticed(store: Store) -> None:
    make(store)
    paths, rng = files(store.place(KEY)), random.Random(0)
    assert {path.name for path in paths} >= {MANIFEST, SEAL}
    for path in paths:
        content = path.read_bytes()
        for place in [0, len(content) - 1, *(rng.randrange(len(content)) for _ in range(30))]:
            changed = bytearray(content)
            changed[place] ^= 1 << rng.randrange(8)
            path.write_bytes(changed)
            with pytest.raises(StoreError, match="run again"):
                Store(store.root).open(KEY)
            path.write_bytes(content)
    assert Store(store.root).open(KEY).facts == {"tokens": 3}


@pytest.mark.parametrize("verified_before", [True, False])
def test_a_fact_that_is_changed_is_noticed_without_reading_the_files(store: Store, verified_before: bool) -> None:
    make(store)
    reader = Store(store.root)
    if verified_before:
        reader.open(KEY)
    path = store.place(KEY) / MANIFEST
    path.write_text(path.read_text().replace('"tokens":3', '"tokens":1'))
    with pytest.raises(StoreError, match=r"artifact\.json does not match its checksum in artifact\.sha256"):
        reader.open(KEY)


@pytest.mark.parametrize("lost", [MANIFEST, SEAL])
def test_a_manifest_or_seal_that_is_lost_is_noticed(store: Store, lost: str) -> None:
    make(store)
    (store.place(KEY) / lost).unlink()
    with pytest.raises(StoreError, match=lost):
        Store(store.root).open(KEY)


# An artifact as version 0.1.0 wrote it: no format in the manifest, no seal.
OLD_MANIFEST = (
    '{"facts":{"tokens":5398},"files":{"text":"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"},'
    '"kind":"train","seconds":1.5}\n'
)


def write_old(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "text").write_text("hello")
    (folder / MANIFEST).write_text(OLD_MANIFEST)


def test_an_old_store_is_sealed_as_it_is_read_and_loses_nothing(store: Store, tmp_path: Path) -> None:
    write_old(store.place(KEY))
    os.utime(store.place(KEY), (1e9, 1e9))
    reader = Store(store.root)
    assert [entry.name for entry in reader.entries()] == [f"{KEY}.train.{5 + len(OLD_MANIFEST)}"]
    assert reader.holds(KEY)
    artifact = reader.open(KEY)
    assert (artifact.kind, artifact.facts, artifact.seconds) == ("train", {"tokens": 5398}, 1.5)
    assert (artifact.folder / MANIFEST).read_text() == OLD_MANIFEST  # whoever holds its hash finds it as it was
    assert {path.name for path in files(artifact.folder)} == {"text", MANIFEST, SEAL}
    assert list(check(reader)) == []
    (artifact.folder / MANIFEST).write_text(OLD_MANIFEST.replace("5398", "1398"))
    assert not Store(store.root).holds(KEY)


def test_an_old_store_that_cannot_be_written_is_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write_old(store.place(KEY))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("harness.store.artifact.write_atomically", refuse)
    assert Store(store.root).holds(KEY)
    assert not (store.place(KEY) / SEAL).exists()


def test_an_old_archive_is_imported_and_sealed(store: Store, tmp_path: Path) -> None:
    write_old(store.place(KEY))
    export_artifacts(store, [KEY], tmp_path / "new.tar")
    (store.place(KEY) / SEAL).unlink()
    from harness.store.archive import pack

    pack([store.place(KEY)], tmp_path / "old.tar")
    for name in ("old.tar", "new.tar"):
        there = Store(tmp_path / name.removesuffix(".tar"))
        assert import_artifacts(there, tmp_path / name) == (1, 0)
        assert (there.place(KEY) / SEAL).exists() and list(check(there)) == []
        assert contents(there.place(KEY)).keys() == {"text"}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        before = Path.cwd()
        os.chdir(path.parent)  # such a name is short
        server.bind(path.name)
        os.chdir(before)


def plain(path: Path) -> None:
    path.write_text("mine")


ODD = [fifo, link, listening, plain]
PLACES = [
    "odd",
    "artifacts/odd",
    "artifacts/01/odd",
    f"artifacts/01/{KEY}/odd",
    f"artifacts/01/{KEY}/deep/odd",
    "index/odd",
    "index/01/odd",
    "claims/odd",
    f"claims/{KEY}/odd",
    "roots/odd.json",
    f"partial/{KEY}/checkpoint.json",
    "judgments/odd.jsonl",
]
FREE = {"claims/odd", f"claims/{KEY}/odd", f"partial/{KEY}/checkpoint.json", "judgments/odd.jsonl"}  # for plain files


@pytest.mark.parametrize("make_odd", ODD)
def test_what_does_not_belong_there_is_listed_and_repaired_without_waiting(
    store: Store, make_odd: Callable[[Path], None], tmp_path: Path
) -> None:
    make(store)
    register(store.root, Root.of("run", tmp_path, {KEY}))
    places = [place for place in PLACES if make_odd is not plain or place not in FREE]
    for place in places:
        (store.root / place).parent.mkdir(parents=True, exist_ok=True)
        make_odd(store.root / place)
    faults = list(check(store))
    assert sorted(str(fault.place.relative_to(store.root)) for fault in faults) == sorted(places)
    repair(store, faults)
    assert list(check(store)) == []
    assert len(list((store.root / "damaged").iterdir())) == len(places)
    assert Store(store.root).holds(KEY)


@pytest.mark.parametrize("make_odd", [fifo, link, listening])
@pytest.mark.parametrize("name", [MANIFEST, SEAL, "value.json", "deep/text", ""])
def test_a_file_or_an_artifact_that_is_a_fifo_or_a_link_is_made_again(
    store: Store, make_odd: Callable[[Path], None], name: str
) -> None:
    make(store)
    place = store.place(KEY)
    if name:
        (place / name).unlink()
    else:
        place.rename(store.root / "damaged")
    make_odd(place / name if name else place)
    (fault,) = check(store)
    assert fault.key == KEY
    fresh = Store(store.root)
    assert not fresh.holds(KEY)
    make(fresh)
    assert Store(store.root).holds(KEY)


def test_the_index_is_made_again_where_it_is_wrong(store: Store) -> None:
    make(store)
    (right,) = [entry.name for entry in store.entries()]
    kind, size = right.split(".")[1:]
    wrong = [f"{KEY}.{kind}x.{size}", f"{KEY}.{kind}.1{size}", f"{'01' + 'f' * 30}.test.5"]
    for name in wrong:
        (store.root / "index" / "01" / name).touch()
    faults = list(check(store))
    assert sorted(fault.place.name for fault in faults) == sorted(wrong)
    repair(store, faults)
    assert [path.name for path in files(store.root / "index")] == [right]
    assert list(check(store)) == []


def test_a_note_of_a_run_that_cannot_be_read_is_listed(store: Store, tmp_path: Path) -> None:
    register(store.root, Root.of("run", tmp_path, {KEY}))
    (note,) = (store.root / "roots").iterdir()
    note.write_text("[" * 100_000)
    (fault,) = check(store)
    assert fault.place == note and "run it again" in fault.problem


def test_a_fifo_in_a_claim_is_waited_for_no_longer_than_a_lease(store: Store) -> None:
    lease = store.root / "claims" / KEY / "theirs"
    lease.parent.mkdir()
    os.mkfifo(lease)
    os.utime(lease, (time.time() - 3600,) * 2)
    with store.claim(KEY):
        assert json.loads(next(lease.parent.iterdir()).read_text())["process"] == os.getpid()
