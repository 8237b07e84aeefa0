"""Artifacts: whole or absent, verified, made once."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness import StoreError
from harness.store import MANIFEST, Store, canonical, key_of
from harness.store.artifact import Artifact, read_artifact

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def make(store: Store, text: str = "hello", key: str = KEY) -> None:
    with store.draft("test", key) as draft:
        (draft.folder / "deep").mkdir()
        (draft.folder / "deep" / "text").write_text(text)
        draft.write_json("value.json", {"b": 1, "a": [1.5]})
        draft.write_lines("rows.jsonl", [[1], {"x": "é"}])
        draft.facts["tokens"] = 3


def parts(store: Store) -> list[Path]:
    return list((store.root / "parts").iterdir())


def test_keys_and_canonical_text_never_change() -> None:
    assert canonical({"b": 1, "a": [True, None, "é", 0.1]}) == '{"a":[true,null,"é",0.1],"b":1}'
    assert key_of("train", 1, {"b": 1.0, "a": "x"}, {"model": "m"}) == "c9d7ab0786fe4e3772f4afccc8d9f308"
    assert key_of("train", 1, {"a": "x", "b": 1.0}, {"model": "m"}) == key_of("train", 1, {"b": 1.0, "a": "x"}, {"model": "m"})


def test_a_key_changes_with_all_that_decides_the_result() -> None:
    base = ("train", 1, {"a": 1}, {"model": "m"})
    others = [
        ("build", 1, {"a": 1}, {"model": "m"}),
        ("train", 2, {"a": 1}, {"model": "m"}),
        ("train", 1, {"a": 2}, {"model": "m"}),
        ("train", 1, {"a": "1"}, {"model": "m"}),
        ("train", 1, {"a": 1}, {"model": "n"}),
        ("train", 1, {"a": 1}, {"start": "m"}),
    ]
    assert len({key_of(*base), *(key_of(*other) for other in others)}) == 1 + len(others)  # type: ignore[arg-type]


def test_what_is_no_number_has_no_key() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"x": float("nan")})


def test_an_artifact_is_read_as_it_was_written(store: Store) -> None:
    assert not store.holds(KEY)
    make(store)
    assert store.holds(KEY)
    artifact = Store(store.root).open(KEY)
    assert (artifact.kind, artifact.facts, artifact.key) == ("test", {"tokens": 3}, KEY)
    assert artifact.seconds >= 0
    assert (artifact / "deep" / "text").read_text() == "hello"
    assert artifact.read_json("value.json") == {"a": [1.5], "b": 1}
    assert list(artifact.read_lines("rows.jsonl")) == [[1], {"x": "é"}]
    assert parts(store) == []


def test_checksums_are_compared_once_per_process(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    make(store)
    verified: list[bool] = []
    read = read_artifact

    def recorded(folder: Path, key: str, *, verify: bool) -> Artifact:
        verified.append(verify)
        return read(folder, key, verify=verify)

    monkeypatch.setattr("harness.store.store.read_artifact", recorded)
    another = Store(store.root)
    assert another.open(KEY).facts == another.open(KEY).facts == {"tokens": 3}
    assert verified == [True, False]


def test_nothing_is_seen_before_the_block_ends(store: Store) -> None:
    with store.draft("test", KEY) as draft:
        draft.write_json("value.json", 1)
        assert not store.holds(KEY)
        assert not store.place(KEY).exists()
    assert store.holds(KEY)


def test_the_first_of_two_artifacts_stays(store: Store) -> None:
    make(store, "first")
    make(store, "second")
    assert (Store(store.root).open(KEY) / "deep" / "text").read_text() == "first"


@pytest.mark.parametrize("damage", ["changed", "missing file", "missing manifest", "broken manifest", "manifest of nothing"])
def test_a_damaged_artifact_is_put_aside_and_made_again(store: Store, damage: str) -> None:
    make(store)
    place = store.place(KEY)
    if damage == "changed":
        (place / "deep" / "text").write_text("hellO")
    elif damage == "missing file":
        (place / "deep" / "text").unlink()
    elif damage == "missing manifest":
        (place / MANIFEST).unlink()
    else:
        (place / MANIFEST).write_text("{" if damage == "broken manifest" else "[]")
    fresh = Store(store.root)
    with pytest.raises(StoreError, match="run again"):
        fresh.open(KEY)
    assert not fresh.holds(KEY)
    assert len(list((store.root / "damaged").iterdir())) == 1
    make(fresh)
    assert (fresh.open(KEY) / "deep" / "text").read_text() == "hello"


def test_an_absent_artifact_is_an_error(store: Store) -> None:
    with pytest.raises(StoreError, match=r"cannot be read .* delete it and run again"):
        store.open(KEY)


def test_what_earlier_runs_spent_counts(store: Store) -> None:
    with store.draft("test", KEY) as draft:
        draft.earlier_seconds = 1000.0
    assert 1000 < store.open(KEY).seconds < 1100


def test_two_processes_that_want_one_artifact_make_it_once(store: Store, tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = f"""
import sys
import threading
from pathlib import Path
from harness.store import Store
store = Store(Path({str(store.root)!r}))
print("ready", flush=True)
sys.stdin.readline()
with store.claim({KEY!r}):
    if not store.holds({KEY!r}):
        with store.draft("test", {KEY!r}) as draft, Path({str(log)!r}).open("a") as stream:
            stream.write("made\\n")
            draft.write_json("value.json", 1)
print("done", flush=True)
"""
    pipe = subprocess.PIPE
    with store.claim(KEY):  # nobody makes it before both wait
        both = [subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
        for process in both:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
    outputs = [process.communicate()[0] for process in both]
    assert outputs == ["done\n", "done\n"]
    assert log.read_text() == "made\n"


def test_the_manifest_names_every_file(store: Store) -> None:
    make(store)
    manifest = json.loads((store.place(KEY) / MANIFEST).read_text())
    assert sorted(manifest["files"]) == ["deep/text", "rows.jsonl", "value.json"]
    assert sorted(manifest) == ["facts", "files", "format", "kind", "seconds"]


def test_who_must_wait_for_a_claim_is_told_first(store: Store) -> None:
    waiting, order = threading.Event(), []

    def second() -> None:
        with store.claim(KEY, waiting.set):
            order.append("second")

    thread = threading.Thread(target=second)
    with store.claim(KEY, lambda: pytest.fail("nobody had it")):
        thread.start()
        assert waiting.wait(timeout=60)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


# Dropped files


def test_a_dropped_folder_frees_its_bytes_and_leaves_the_rest_whole(store: Store) -> None:
    make(store, "weights" * 1000)
    before = next(store.entries()).size
    assert store.drop(KEY, "deep") > 0 and not (store.place(KEY) / "deep").exists()
    again = Store(store.root)  # which verifies anew
    artifact = again.open(KEY)
    assert again.holds(KEY) and artifact.facts == {"tokens": 3} and next(iter(artifact.read_lines("rows.jsonl"))) == [1]
    assert list(artifact.dropped) == ["deep/text"] == list(store.dropped(KEY))
    assert [entry.size < before for entry in store.entries()] == [True]
    assert store.dropped("f" * 32) == {} and parts(store) == []


@pytest.mark.parametrize(("text", "changed"), [("hello" * 99, False), ("other" * 99, True)])
def test_a_dropped_artifact_is_made_again_and_says_whether_it_came_out_the_same(store: Store, text: str, changed: bool) -> None:
    make(store, "hello" * 99)
    store.drop(KEY, "deep")
    make(store, text)
    artifact = Store(store.root).open(KEY)
    assert ((artifact / "deep/text").read_text(), artifact.dropped, artifact.changed) == (text, {}, changed)
    assert [entry.size > 400 for entry in store.entries()] == [True]  # the index has the new size alone


def test_a_dropped_artifact_that_cannot_be_made_again_is_a_failure(store: Store) -> None:
    make(store)
    store.drop(KEY, "deep")
    with pytest.raises(RuntimeError, match="no memory"), store.draft("test", KEY):
        raise RuntimeError("no memory")
    assert list(store.dropped(KEY)) == ["deep/text"]
