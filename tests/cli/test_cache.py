"""`harness cache` as a user meets it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.api.registry import Registry
from harness.cli import main
from harness.cli.cache import _bytes, _size
from harness.config import resolve
from harness.models.judge.answer_files import Lines, line_of
from harness.run.plan import plan
from harness.store import Store
from harness.store.collect import need
from harness.store.mirror import Mirror
from harness.store.roots import Root

KEYS = tuple(f"{number:032x}" for number in range(3))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three artifacts, long unused; a run needs the first."""
    store = Store(tmp_path / "store")
    for key in KEYS:
        with store.draft("test", key) as draft:
            (draft.folder / "data").write_bytes(bytes(2000))
        os.utime(store.place(key), (0, 0))
    (tmp_path / "run").mkdir()
    need(store, Root.of("quick", tmp_path / "run", {KEYS[0]}))
    return store


@pytest.fixture
def cache(store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["harness", "cache", *arguments, "--store", str(store.root)])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


def test_ls(cache: Any, store: Store) -> None:
    code, out, err = cache("ls", "--all")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [[key, "test"] for key in KEYS]
    assert lines[3].split()[:2] == ["test", "3"]
    assert lines[-1] == f"{store.root.parent / 'run'} needs 1"
    said = json.loads(cache("ls", "--json")[1])
    assert said["kinds"]["test"]["artifacts"] == 3
    assert said["kinds"]["test"]["bytes"] > 6000
    assert said["runs"][0]["name"] == "quick"
    assert "artifacts" not in said


def test_verify_lists_what_is_damaged_and_repair_puts_it_aside(cache: Any, store: Store) -> None:
    assert cache("verify") == (0, "3 of 3 artifacts are as they were written\n", "")
    (store.place(KEYS[0]) / "data").write_bytes(b"x")
    os.mkfifo(store.root / "pipe")
    for _ in range(2):  # it changes nothing
        code, out, _ = cache("verify", "--json")
        answer = json.loads(out)
        assert (code, answer["artifacts"], answer["damaged"], answer["repaired"]) == (4, 3, [KEYS[0]], False)
        assert [problem["path"] for problem in answer["problems"]] == ["pipe", f"artifacts/00/{KEYS[0]}"]
    code, out, _ = cache("verify", "--repair")
    assert code == 4
    assert out.splitlines()[0] == "2 of 3 artifacts are as they were written"
    assert out.splitlines()[-1] == f"{store.root.parent / 'run'} needs 1 of them: run quick again, and they are made again"
    assert cache("verify")[:2] == (0, "2 of 2 artifacts are as they were written\n")
    assert len(list((store.root / "damaged").iterdir())) == 2


def test_repair_fetches_from_the_mirror_and_keeps_whole_answers(cache: Any, store: Store, tmp_path: Path) -> None:
    url = (tmp_path / "mirror").as_uri()
    with store.part() as scratch:
        Mirror(url).push(store.place(KEYS[1]), scratch)
    (store.place(KEYS[1]) / "data").write_bytes(b"x")
    lines = [line_of({"key": str(number)}) for number in range(3)]
    (store.root / "judgments").mkdir()
    (store.root / "judgments" / "m-1-a.jsonl").write_bytes(lines[0] + lines[1].replace(b'"1"', b'"7"') + lines[2] + b"torn")
    code, out, _ = cache("verify", "--repair", "--mirror", url, "--json")
    answer = json.loads(out)
    assert (code, answer["fetched"]) == (4, [KEYS[1]])
    assert [problem["problem"] for problem in answer["problems"]][1:] == ["1 damaged answer of judges"]
    assert [row for _, row in Lines(store.root / "judgments").new()] == [{"key": "0"}, {"key": "2"}]
    assert cache("verify")[0] == 0


def test_gc_shows_and_then_removes(cache: Any, store: Store) -> None:
    code, out, _ = cache("gc")
    assert (code, out.splitlines()[0].partition(",")[0]) == (0, "would remove 2 of 3 artifacts")
    assert out.endswith("nothing was removed: add --delete to remove them\n")
    assert len(list(store.entries())) == 3
    said = json.loads(cache("gc", "--json", "--max-size", "5kB")[1])
    assert said["would_remove"] == [KEYS[1]]
    assert cache("gc", "--delete")[1].startswith("removed 2 of 3 artifacts")
    assert [entry.key for entry in store.entries()] == [KEYS[0]]
    (store.root.parent / "run").rmdir()
    assert json.loads(cache("gc", "--delete", "--json")[1])["removed"] == [KEYS[0]]


def test_what_a_config_needs_stays(cache: Any, store: Store, tmp_path: Path, tiny_checkpoint: Path) -> None:
    raw = {
        "name": "tiny",
        "source": {"name": "sandbox", "sft": 8, "train": 8, "tuning": 8, "heldout": 8},
        "model": {"path": str(tiny_checkpoint)},
        "budget": {"prompts": 4},
        "methods": ["sft"],
        "evaluators": ["gold_reward"],
        "baseline": "sft",
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(raw))
    needed = next(iter(plan(resolve(raw, Registry.load(), "here")).stages))
    with store.draft("source", needed) as draft:
        draft.facts["used"] = [KEYS[1]]
    assert json.loads(cache("gc", "--json", "--unused-hours", "0", "--keep", str(path))[1])["would_remove"] == [KEYS[2]]
    said = json.loads(cache("export", str(tmp_path / "a.tar"), "--json", "--keep", str(path))[1])
    assert said["artifacts"] == 2
    assert said["absent"] > 0


def test_export_and_import(cache: Any, store: Store, tmp_path: Path) -> None:
    place = tmp_path / "all.tar.gz"
    assert cache("export", str(place))[:2] == (0, f"3 artifacts written to {place}; 0 were not in the store\n")
    for entry in list(store.entries())[:2]:
        store.remove(entry)
    assert cache("import", str(place))[:2] == (0, f"2 new artifacts in {store.root}; 1 were already in it\n")
    code, out, err = cache("import", str(tmp_path / "absent.tar"))
    assert (code, out) == (2, "")
    assert err.startswith("error: no archive at")
    code, out, err = cache("import", str(tmp_path))
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {tmp_path} cannot be read (Is a directory)")
    code, _, err = cache("export", str(tmp_path / "no" / "such" / "a.tar"))
    assert code == 4
    assert "cannot be written" in err


def test_looking_at_no_store_makes_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["harness", "cache", "ls", "--store", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 4
    assert "no store at" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


def test_sizes() -> None:
    assert [_bytes(text) for text in ("5", "5kB", "1.5 GB", "2GiB", None)] == [5, 5000, 1_500_000_000, 2**31, None]
    assert [_size(count) for count in (5, 5000, 2**31, 10**16)] == ["5 B", "5.0 kB", "2.1 GB", "10.0 PB"]


def test_a_size_that_is_none(cache: Any) -> None:
    code, _, err = cache("gc", "--max-size", "many")
    assert code == 2
    assert "write a number with a unit, for example --max-size 20GB" in err
