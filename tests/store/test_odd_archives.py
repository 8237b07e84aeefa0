"""Archives that no export wrote: headers that lie, damage, and what is no archive at all."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import DataError
from harness.errors import StoreWriteError
from harness.store import Store
from harness.store.exchange import export_artifacts, import_artifacts

KEY = "0123456789abcdef0123456789abcdef"


def make(store: Store, text: str = "hello") -> None:
    with store.draft("test", KEY) as draft:
        (draft.folder / "text").write_text(text)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def with_headers(place: Path, headers: Mapping[str, str], data: bytes = b"0\n".ljust(512, b"\0")) -> Path:
    """An archive of one file with an extended header."""
    info = tarfile.TarInfo(f"{KEY}/x")
    info.pax_headers, info.size = dict(headers), len(data)
    with tarfile.open(place, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(data))
    return place


VERSION_1 = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
HEADERS = {
    "sparse 1.0": (VERSION_1 | {"GNU.sparse.realsize": str(1 << 50)}, "holds a sparse file"),
    "sparse 0.1": ({"GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 50)}, "holds a sparse file"),
    "sparse 0.0": ({"GNU.sparse.size": "5", "GNU.sparse.numblocks": "0"}, "holds a sparse file"),
    "negative sparse size": ({"GNU.sparse.size": "-5"}, r"x' has -5 bytes"),
    "negative real size": ({"GNU.sparse.realsize": str(-1 << 50)}, r"x' has -1,125,899,906,842,624 bytes"),
    "negative size": ({"size": "-1024"}, r"x' has -1,024 bytes"),
    "size of no digits": ({"GNU.sparse.realsize": "many"}, "is no archive of artifacts, or is cut off"),
    "map of no digits": ({"GNU.sparse.map": "a,b"}, "is no archive of artifacts, or is cut off"),
    "null in a name": ({"path": f"{KEY}/a\0b"}, "is no archive of artifacts, or is cut off"),
    "name that no disk takes": ({"path": f"{KEY}/{'a' * 300}"}, "no file can have the name of a member"),
}


@pytest.mark.parametrize(("headers", "said"), HEADERS.values(), ids=HEADERS)
def test_headers_that_lie_are_refused(headers: Mapping[str, str], said: str, store: Store, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"odd\.tar.*{said}"):
        import_artifacts(store, with_headers(tmp_path / "odd.tar", headers))
    assert list(store.entries()) == list((store.root / "parts").iterdir()) == []


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE])
def test_a_header_of_less_than_nothing_is_refused(kind: bytes, store: Store, tmp_path: Path) -> None:
    """Where the file says how long the next header is, less than nothing would read all that follows."""
    info = tarfile.TarInfo(f"{KEY}/x")
    info.type, info.size = kind, -(1 << 20)
    (tmp_path / "odd.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(DataError, match=r"odd\.tar: a member's header has -1,048,576 bytes"):
        import_artifacts(store, tmp_path / "odd.tar")


def test_an_old_sparse_file_is_refused(store: Store, tmp_path: Path) -> None:
    info = tarfile.TarInfo(f"{KEY}/x")
    info.type = tarfile.GNUTYPE_SPARSE
    (tmp_path / "odd.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(DataError, match=r"odd\.tar: holds a sparse file"):
        import_artifacts(store, tmp_path / "odd.tar")


def test_headers_of_headers_come_to_an_end(store: Store, tmp_path: Path) -> None:
    record = b"7 a=bc\n"
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    (tmp_path / "deep.tar").write_bytes((info.tobuf() + record.ljust(512, b"\0")) * 3000)
    with pytest.raises(DataError, match=r"deep\.tar is no archive of artifacts"):
        import_artifacts(store, tmp_path / "deep.tar")


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz"])
def test_a_damaged_compression_is_refused(ending: str, store: Store, tmp_path: Path) -> None:
    make(store, text="hello" * 5000)
    place = tmp_path / f"all.tar.{ending}"
    export_artifacts(store, [KEY], place)
    raw = bytearray(place.read_bytes())
    middle = len(raw) // 2
    raw[middle : middle + 8] = b"\xff" * 8
    place.write_bytes(raw)
    with pytest.raises(DataError, match=rf"all\.tar\.{ending}"):
        import_artifacts(Store(tmp_path / "there"), place)


def test_what_cannot_be_read_is_named(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"folder cannot be read \(Is a directory\): give the path of a file"):
        import_artifacts(store, tmp_path / "folder")
    (tmp_path / "text").touch()
    with pytest.raises(DataError, match=r"text/x cannot be read \(Not a directory\)"):
        import_artifacts(store, tmp_path / "text" / "x")
    closed = tmp_path / "closed.tar"

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(closed))

    monkeypatch.setattr("tarfile.open", refuse)
    with pytest.raises(DataError, match=r"closed\.tar cannot be read \(Permission denied\)"):
        import_artifacts(store, closed)


def test_that_the_store_cannot_be_written_is_no_fault_of_the_archive(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(store)
    export_artifacts(store, [KEY], tmp_path / "a.tar")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tarfile.copyfileobj", full)
    with pytest.raises(StoreWriteError, match=r"a\.tar holds cannot be written .*No space left"):
        import_artifacts(Store(tmp_path / "there"), tmp_path / "a.tar")


SPARSE = ("major", "minor", "map", "size", "realsize", "name", "offset", "numbytes")
NAMES = ("size", "mtime", "uid", "path", "hdrcharset", *(f"GNU.sparse.{name}" for name in SPARSE))
VALUES = st.one_of(st.integers().map(str), st.floats().map(str), st.text(max_size=20), st.sampled_from(("0", "1")))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(headers=st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1, max_size=4), data=st.binary(max_size=1200))
def test_no_header_gets_further_than_an_error(headers: dict[str, str], data: bytes, tmp_path: Path) -> None:
    there = Store(tmp_path / "there")
    with pytest.raises(DataError, match=r"odd\.tar"):  # none has a manifest
        import_artifacts(there, with_headers(tmp_path / "odd.tar", headers, data))
    assert {path.name for path in tmp_path.iterdir()} == {"there", "odd.tar"}
    assert list((there.root / "parts").iterdir()) == []
