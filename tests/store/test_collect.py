"""The catalogue and what may be removed."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from harness import StoreError
from harness.api.registry import Registry
from harness.config import resolve
from harness.run.compare import RunOptions, compare
from harness.run.executors.events import Executor
from harness.run.plan import plan
from harness.store import Store, collect
from harness.store.collect import Rules, choose, need, needed_by_runs, with_used
from harness.store.index import DAMAGED, IndexEntry
from harness.store.owner import LEASE_SECONDS
from harness.store.roots import Root, register

KEYS = tuple(f"{number:032x}" for number in range(4))
HOUR = 3600.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Four artifacts of 100 bytes and a manifest, the later the longer unused; the last used the first."""
    store = Store(tmp_path / "store")
    for number, key in enumerate(KEYS):
        with store.draft("test" if number else "first", key) as draft:
            (draft.folder / "data").write_bytes(bytes(100))
            draft.facts["used"] = [KEYS[0]] if number == 3 else []
        age = store.place(key).stat().st_mtime - (number + 1) * HOUR
        os.utime(store.place(key), (age, age))
    return store


def keys(entries: object) -> list[str]:
    return [entry.key for entry in entries]  # type: ignore[attr-defined]


def test_the_catalogue_is_made_of_names(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", lambda *_, **__: pytest.fail("an artifact was opened"))
    listed = list(store.entries())
    assert keys(listed) == list(KEYS)
    assert [entry.kind for entry in listed] == ["first", "test", "test", "test"]
    assert all(entry.size > 100 for entry in listed)


def test_the_catalogue_follows_the_artifacts(store: Store) -> None:
    before = list(store.entries())
    shutil.rmtree(store.root / "index")  # a store from before there was an index
    assert list(store.entries()) == before
    shutil.rmtree(store.place(KEYS[0]))
    (store.place(KEYS[1]) / "artifact.json").write_text("{")
    index = store.root / "index" / KEYS[1][:2]
    for name in (IndexEntry(KEYS[1], "test", 9).name, "notes", "x.y.z"):
        (index / name).touch()
    assert list(store.entries()) == [IndexEntry(KEYS[1], DAMAGED, 0), *before[2:]]
    assert sorted(path.name for path in index.iterdir()) == sorted(["notes", "x.y.z", *(entry.name for entry in before[2:])])


def test_what_is_unused_goes_the_longest_unused_first(store: Store) -> None:
    found = choose(store, {KEYS[2]}, Rules(unused_seconds=1.5 * HOUR))
    assert keys(found.remove) == [KEYS[3], KEYS[1]]
    assert (found.needed, found.recent, found.total) == (1, 1, 4)
    assert found.total_bytes - found.remove_bytes == found.needed_bytes + found.recent_bytes


def test_a_limit_removes_only_what_it_must(store: Store) -> None:
    sizes = {entry.key: entry.size for entry in store.entries()}
    total = sum(sizes.values())
    assert keys(choose(store, set(), Rules(total, 0)).remove) == []
    assert keys(choose(store, set(), Rules(total - 1, 0)).remove) == [KEYS[3]]
    assert keys(choose(store, set(), Rules(sizes[KEYS[0]] + sizes[KEYS[1]], 0)).remove) == [KEYS[3], KEYS[2]]
    assert keys(choose(store, set(KEYS), Rules(0, 0)).remove) == []


def test_use_is_noted(store: Store) -> None:
    Store(store.root).open(KEYS[3])
    assert keys(choose(store, set(), Rules(unused_seconds=0.5 * HOUR)).remove) == [KEYS[2], KEYS[1], KEYS[0]]


def test_removing_leaves_nothing_but_what_is_being_written(store: Store) -> None:
    """Whatever the rules say of artifacts, a part is another machine's work until that was silent for many leases."""
    rules = Rules(unused_seconds=0)
    lives, mine = "another-machine-1-lives", store.parts.new().name
    for name in ("parts/another-machine-1-dead", f"parts/{lives}", f"parts/{mine}", "damaged/x"):
        (store.root / name).mkdir(parents=True)
        os.utime(store.root / name, (0, 0))
    os.utime(store.root / "parts" / lives, (time.time() - 5 * LEASE_SECONDS,) * 2)
    collect.collect(store, choose(store, {KEYS[0]}, rules), rules)
    assert keys(store.entries()) == [KEYS[0]]
    assert store.holds(KEYS[0])
    assert not store.holds(KEYS[1])
    files = [path for name in ("index", "artifacts", "damaged") for path in (store.root / name).rglob("*") if path.is_file()]
    assert len(files) == 4
    assert sorted(path.name for path in (store.root / "parts").iterdir()) == sorted([lives, mine])


def test_runs_need_what_they_noted_until_their_folder_is_gone(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    need(store, Root.of("a", folder, set(KEYS[:2])))
    need(store, Root.of("a", folder, {KEYS[1]}))
    register(store.root, Root("b", "another-machine", "/gone", (KEYS[2],)))
    assert needed_by_runs(store) == {KEYS[1], KEYS[2]}
    folder.rmdir()
    assert needed_by_runs(store) == {KEYS[2]}
    (store.root / "roots" / "x.json").write_text("{}")
    with pytest.raises(StoreError, match=r"x\.json cannot be read, so it is not known what that run needs"):
        needed_by_runs(store)


def test_what_an_artifact_used_is_needed_with_it(store: Store) -> None:
    absent = "f" * 32
    assert with_used(store, {KEYS[3], absent}) == {KEYS[3], KEYS[0], absent}


def test_a_run_notes_what_its_artifacts_used(store: Store, tmp_path: Path) -> None:
    """Also one that begins again, and is interrupted before it has a board."""
    need(store, Root.of("a", tmp_path, {KEYS[3]}))
    assert needed_by_runs(store) == {KEYS[3], KEYS[0]}


def test_what_artifacts_use_that_a_run_makes_later_is_needed(store: Store, tmp_path: Path) -> None:
    """A run of days, or one that was killed, registered before it made them."""
    late = "e" * 32
    need(store, Root.of("a", tmp_path, {late}))
    assert needed_by_runs(store) == {late}
    with store.draft("test", late) as draft:
        draft.facts["used"] = [KEYS[1]]
    assert needed_by_runs(store) == {late, KEYS[1]}


class StoppedError(Exception):
    """What stands for a run that is interrupted when its work begins."""


def test_a_run_looks_for_what_it_needs_when_that_is_noted(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = {
        "name": "tiny",
        "source": {"name": "sandbox", "sft": 8, "train": 8, "tuning": 8, "heldout": 8},
        "model": {"path": str(tiny_checkpoint)},
        "budget": {"prompts": 4},
        "methods": ["sft"],
        "evaluators": ["gold_reward"],
        "baseline": "sft",
    }
    stages, store = set(plan(resolve(raw, Registry.load(), "here")).stages), Store(tmp_path / "store")
    with store.draft("evaluate", max(stages)) as draft:
        draft.facts["used"] = [KEYS[0]]
    noted: list[set[str]] = []
    holds = Store.holds
    monkeypatch.setattr(Store, "holds", lambda self, key: bool(noted.append(needed_by_runs(self))) or holds(self, key))

    def interrupted(*_: object) -> Executor:
        raise StoppedError

    with pytest.raises(StoppedError):
        compare(raw, folder=tmp_path / "run", store=store.root, workers=1, options=RunOptions(interrupted), variables={})
    # The first look is for the rows of the source, to see before anything is computed that every split has examples.
    assert noted == [set(), *[stages | {KEYS[0]}] * len(stages)]
