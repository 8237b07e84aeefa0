"""Archives: what is carried arrives as it was, and what is malicious stays outside."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import DataError, StoreError
from harness.store import MANIFEST, Store
from harness.store.exchange import export_artifacts, import_artifacts

KEY, OTHER = "0123456789abcdef0123456789abcdef", "f" * 32


def make(store: Store, key: str = KEY, text: str = "hello") -> None:
    with store.draft("test", key) as draft:
        (draft.folder / "deep").mkdir()
        (draft.folder / "deep" / "text").write_text(text)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def archive(place: Path, members: Mapping[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(place, "w") as tar:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return place


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def manifest(**files: str) -> bytes:
    return json.dumps({"kind": "test", "facts": {}, "seconds": 1.0, "files": files}).encode()


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.xz"])
def test_what_is_carried_arrives_as_it_was(store: Store, tmp_path: Path, ending: str) -> None:
    make(store)
    make(store, OTHER, "other")
    place, there = tmp_path / f"all.{ending}", Store(tmp_path / "there")
    assert export_artifacts(store, [KEY, OTHER], place) == 2
    make(there, OTHER, "mine")
    assert import_artifacts(there, place) == (1, 1)
    assert (there.open(KEY) / "deep" / "text").read_text() == "hello"
    assert (there.open(OTHER) / "deep" / "text").read_text() == "mine"
    assert [entry.key for entry in there.entries()] == [KEY, OTHER]
    assert list((there.root / "parts").iterdir()) == []
    again = tmp_path / "again.tar"
    export_artifacts(there, [KEY], again)
    export_artifacts(store, [KEY], place)
    assert ending != "tar" or again.read_bytes() == place.read_bytes()


def test_folders_within_folders_arrive(store: Store, tmp_path: Path) -> None:
    with store.draft("test", KEY) as draft:
        for name in ("one/two/three/first", "one/two/three/second", "one/four"):
            (draft.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (draft.folder / name).write_text(name)
    export_artifacts(store, [KEY], tmp_path / "all.tar")
    other = Store(tmp_path / "other")
    assert import_artifacts(other, tmp_path / "all.tar") == (1, 0)
    folder = other.open(KEY).folder
    texts = {str(path.relative_to(folder)): path.read_text() for path in (folder / "one").rglob("*") if path.is_file()}
    assert texts == {name: name for name in ("one/two/three/first", "one/two/three/second", "one/four")}


def test_a_damaged_artifact_is_replaced(store: Store, tmp_path: Path) -> None:
    make(store)
    export_artifacts(store, [KEY], tmp_path / "a.tar")
    (store.place(KEY) / "deep" / "text").write_text("hellO")
    fresh = Store(store.root)
    with pytest.raises(StoreError, match="does not match its checksum"):
        export_artifacts(fresh, [KEY], tmp_path / "b.tar")
    assert import_artifacts(fresh, tmp_path / "a.tar") == (1, 0)
    assert (fresh.open(KEY) / "deep" / "text").read_text() == "hello"
    assert [path.name for path in tmp_path.glob("*.tar")] == ["a.tar"]


BAD = {
    "upwards": {"../outside": b"x"},
    "upwards inside": {f"{KEY}/../../outside": b"x"},
    "absolute": {"/tmp/outside": b"x"},
    "no key": {"notes/x": b"x"},
    "no folder": {KEY: b"x"},
    "symbolic link": {"": special(f"{KEY}/x", tarfile.SYMTYPE, "/etc/passwd")},
    "hard link": {"": special(f"{KEY}/x", tarfile.LNKTYPE, "../../outside")},
    "device": {"": special(f"{KEY}/x", tarfile.CHRTYPE)},
    "no manifest": {f"{KEY}/x": b"x"},
    "wrong checksum": {f"{KEY}/x": b"x", f"{KEY}/{MANIFEST}": manifest(x="0" * 64)},
    "file too many": {f"{KEY}/x": b"x", f"{KEY}/{MANIFEST}": manifest()},
    "manifest that looks outside": {f"{KEY}/{MANIFEST}": manifest(**{"../../../x": "0" * 64})},
    "manifest of nothing": {f"{KEY}/{MANIFEST}": b"[]"},
    "long name": {f"{KEY}/{'a/' * 600}x": b"x"},
    "fifo": {"": special(f"{KEY}/x", tarfile.FIFOTYPE)},
    "file below a file": {f"{KEY}/x": b"x", f"{KEY}/x/y": b"x"},
    "file far below a file": {f"{KEY}/x": b"x", f"{KEY}/x/y/z": b"x"},
    "manifest of a kind that is a path": {f"{KEY}/{MANIFEST}": manifest().replace(b'"test"', b'"../../../outside"')},
    "manifest of no kind": {f"{KEY}/{MANIFEST}": manifest().replace(b'"test"', b'["test"]')},
    "manifest without end": {f"{KEY}/{MANIFEST}": b"[" * 100_000},
    "manifest that reads a device": {f"{KEY}/{MANIFEST}": manifest(**{"/dev/zero": "0" * 64})},
    "manifest of odd seconds": {f"{KEY}/{MANIFEST}": manifest().replace(b"1.0", b'"1"')},
}


@pytest.mark.parametrize("members", BAD.values(), ids=BAD)
def test_what_does_not_belong_there_is_refused(members: Mapping[str, bytes], store: Store, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=r"bad\.tar"):
        import_artifacts(store, archive(tmp_path / "bad.tar", members))
    assert set(tmp_path.rglob("*")) == before | {tmp_path / "bad.tar"}


def test_a_member_twice_is_refused(store: Store, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "twice.tar", "w") as tar:
        for _ in range(2):
            info = tarfile.TarInfo(f"{KEY}/x")
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(DataError, match=r"twice\.tar: holds x twice"):
        import_artifacts(store, tmp_path / "twice.tar")
    assert list(store.entries()) == []


def test_an_archive_that_unpacks_to_far_more_is_refused(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.store.archive.UNPACKED_BYTES", 1 << 20)
    place = tmp_path / "bomb.tar"
    with tarfile.open(place, "w:xz") as tar:
        info = tarfile.TarInfo(f"{KEY}/x")
        info.size = 32 << 20
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(DataError, match=r"bomb\.tar: it unpacks to more than [\d,]+ bytes, 100 times its size"):
        import_artifacts(store, place)
    assert list((store.root / "parts").iterdir()) == []


def test_many_small_files_count_with_what_they_take(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.store.archive.UNPACKED_BYTES", 1 << 20)
    with tarfile.open(tmp_path / "many.tar.xz", "w:xz") as tar:
        for number in range(1000):
            tar.addfile(tarfile.TarInfo(f"{KEY}/{number}"))
    with pytest.raises(DataError, match=r"many\.tar\.xz: it unpacks to more than"):
        import_artifacts(store, tmp_path / "many.tar.xz")


def test_a_header_that_would_fill_the_memory_is_not_read(store: Store, tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 10**9
    (tmp_path / "header.tar").write_bytes(info.tobuf() + bytes(10240))
    with pytest.raises(DataError, match=r"header\.tar: a member's header has 1,000,000,000 bytes"):
        import_artifacts(store, tmp_path / "header.tar")


def test_what_is_no_archive(store: Store, tmp_path: Path) -> None:
    make(store)
    whole = tmp_path / "whole.tar"
    export_artifacts(store, [KEY], whole)
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:700])
    (tmp_path / "text.tar").write_text("hello")
    for name, said in [("cut.tar", "cut off"), ("text.tar", "is no archive"), ("absent.tar", "no archive at")]:
        with pytest.raises(DataError, match=said):
            import_artifacts(Store(tmp_path / "there"), tmp_path / name)
    assert list(Store(tmp_path / "there").entries()) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60), at=st.integers(0, 4000), name=st.text(min_size=1, max_size=40))
def test_no_bytes_get_further_than_an_error(data: bytes, at: int, name: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    make(store)
    place = tmp_path / "fuzzed.tar"
    export_artifacts(store, [KEY], place)
    raw = bytearray(place.read_bytes())
    raw[at : at + len(data)] = data
    place.write_bytes(raw)
    there = Store(tmp_path / "there")
    for source in (place, archive(tmp_path / "named.tar", {name: data})):
        try:
            import_artifacts(there, source)
        except DataError:
            continue
    assert {path.name for path in tmp_path.iterdir()} <= {"store", "there", "fuzzed.tar", "named.tar"}
    assert {path.name for path in (tmp_path / "there" / "artifacts").glob("*/*")} <= {KEY}
