"""A store elsewhere: fetched on a miss, sent after a publication, never in the way."""

from __future__ import annotations

import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import HarnessError
from harness.store import Store
from harness.store.mirror import Mirror

KEY = "0123456789abcdef0123456789abcdef"


def make(store: Store, key: str = KEY) -> None:
    with store.draft("test", key) as draft:
        draft.write_json("value.json", {"a": 1})
        draft.facts["tokens"] = 3


@pytest.fixture(params=["memory", "file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path / 'mirror'}"
    elif request.param == "memory":
        from fsspec.implementations.memory import MemoryFileSystem

        yield "memory://harness"
        MemoryFileSystem.store.clear()
    else:
        yield from bucket(monkeypatch)


def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of an S3-compatible server on this machine."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    name = f"boards-{uuid.uuid4().hex}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}/harness"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_what_one_store_made_another_finds(url: str, tmp_path: Path) -> None:
    make(Store(tmp_path / "here", Mirror(url)))
    there = Store(tmp_path / "there", Mirror(url))
    assert there.holds(KEY)
    artifact = there.open(KEY)
    assert (artifact.kind, artifact.facts, artifact.read_json("value.json")) == ("test", {"tokens": 3}, {"a": 1})
    assert [entry.key for entry in there.entries()] == [KEY]
    assert not there.holds("f" * 32)
    assert there.mirror is not None
    assert there.mirror.failed is None
    assert list((there.root / "parts").iterdir()) == []


def test_what_is_damaged_is_fetched_and_what_is_damaged_there_is_made(url: str, tmp_path: Path) -> None:
    mirror, folder = Mirror(url), tmp_path / "here"
    make(Store(folder, mirror))
    (Store(folder).place(KEY) / "value.json").write_text("damaged")
    assert Store(folder, mirror).holds(KEY)
    assert Store(folder).open(KEY).read_json("value.json") == {"a": 1}
    mirror.fs.pipe_file(mirror.place(KEY), b"cut off")
    assert not Store(tmp_path / "there", mirror).holds(KEY)
    make(Store(tmp_path / "there", mirror))
    assert Store(tmp_path / "third", mirror).holds(KEY)


def test_an_odd_object_costs_one_artifact_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = Mirror(f"file://{tmp_path / 'mirror'}")
    make(Store(tmp_path / "here", mirror))
    whole = Path(mirror.place(KEY)).read_bytes()
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 7
    there = Store(tmp_path / "there", mirror)
    for content in (b"", (header.tobuf() + b"7 a=bc\n".ljust(512, b"\0")) * 3000):
        Path(mirror.place(KEY)).write_bytes(content)
        assert not there.holds(KEY)
    Path(mirror.place(KEY)).write_bytes(whole)
    with monkeypatch.context() as odd:
        odd.setattr("harness.store.mirror.unpack", lambda *_: int("odd"))
        assert not there.holds(KEY)
    assert mirror.failed is None
    assert there.holds(KEY)


class Broken:
    """A file system that is not there, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def fail(*_: object, **__: object) -> None:
            self.asked.append(name)
            raise ConnectionError("no route to host")

        return fail


@pytest.mark.parametrize("act", ["fetch", "push"])
def test_a_mirror_that_fails_is_left_out(act: str, tmp_path: Path) -> None:
    mirror = Mirror("memory://gone")
    mirror.fs = broken = Broken()
    store = Store(tmp_path / "store", mirror)
    if act == "fetch":
        assert not store.holds(KEY)
    make(store)
    assert store.holds(KEY)
    assert mirror.failed == "the mirror memory://gone failed and was left out: ConnectionError: no route to host"
    assert broken.asked == [{"fetch": "get_file", "push": "put_file"}[act]]
    assert not store.holds("f" * 32)
    make(store, "e" * 32)
    assert store.holds("e" * 32)
    assert len(broken.asked) == 1  # neither fetching nor sending asks a mirror again that failed


def test_a_url_of_no_known_kind() -> None:
    with pytest.raises(HarnessError, match=r"--mirror 'nowhere://x': .*install alignment-harness\[remote\]"):
        Mirror("nowhere://x")
