"""With `model.storage: delta` a comparison has the board of whole models; what it keeps is small and gives them back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_compare import tiny_config
from typer.testing import CliRunner

from harness.api.registry import Registry
from harness.board.board import Board
from harness.cli import app
from harness.models.delta_note import is_delta, read_note
from harness.run.compare import compare
from harness.run.graph import CHECKPOINT, MODEL
from harness.run.records import SftFacts, TrainFacts
from harness.run.stages.context import Context
from harness.store import Store, file_hash


@pytest.fixture(scope="module")
def runs(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of one comparison with either storage; each has a store of its own, `store`."""
    folder = tmp_path_factory.mktemp("runs")
    lora = {"method": "dpo", "label": "lora", "rounds": [{}, {}], "training": {"lora": {"rank": 2}}}
    rows = ["sft", {"method": "dpo", "rounds": [{}, {}]}, lora]
    places = {storage: folder / storage for storage in ("float32", "delta")}
    for storage, place in places.items():
        config: dict[str, Any] = tiny_config(tiny_checkpoint) | {"methods": rows, "evaluators": ["preference_accuracy"]}
        config["model"] = config["model"] | {"storage": storage}
        compare(config, folder=place / "run", store=place / "store", workers=1)
    return places


def models(store: Store) -> dict[str, Path]:
    """Return the folders of all trained models by key."""
    return {entry.key: store.place(entry.key) / MODEL for entry in store.entries() if entry.kind in ("sft", "train")}


def test_the_board_and_the_keys_are_those_of_whole_models(runs: dict[str, Path]) -> None:
    boards = {storage: Board.read(place / "run") for storage, place in runs.items()}
    scores = {storage: [row.scores for row in board.rows] for storage, board in boards.items()}
    assert scores["delta"] == scores["float32"] and all(scores["delta"])
    keys = {storage: set(models(Store(place / "store"))) for storage, place in runs.items()}
    assert keys["delta"] == keys["float32"] and len(keys["delta"]) == 5


def test_every_model_is_a_difference_from_one_that_stays_and_comes_back(runs: dict[str, Path], tmp_path: Path) -> None:
    store, whole = Store(runs["delta"] / "store"), models(Store(runs["float32"] / "store"))
    adapters: list[tuple[str, ...]] = []
    for key, folder in models(store).items():
        artifact, note = store.open(key), read_note(folder)
        assert is_delta(folder)
        # What adapters alone changed is kept beside the SFT model, which is a difference itself; the rest beside the start.
        assert store.open(note.base.model).kind == "sft" if note.adapters else note.base.model.startswith(CHECKPOINT)
        adapters.append(note.adapters)
        facts = (SftFacts if artifact.kind == "sft" else TrainFacts).of(artifact)
        assert facts.delta is not None and 0 < facts.delta.share < (0.5 if note.adapters else 1)
        assert facts.delta.base == note.base.model
        context = Context(store, Registry.load(), {}, lambda done, total, note: None)
        rebuilt = context.whole_folder(key)
        assert (rebuilt / "model.safetensors").read_bytes() == (whole[key] / "model.safetensors").read_bytes()
        context.engine.stop()
        assert not rebuilt.exists()
    assert sorted(adapters) == [(), (), (), ("../adapter",), ("adapter-1", "../adapter")]


def test_an_exported_row_is_whole(runs: dict[str, Path], tmp_path: Path) -> None:
    words = ["export", "", "lora", "--to", "", "--store", ""]
    exported = {}
    for storage, place in runs.items():
        words[1], words[4], words[6] = str(place / "run"), str(tmp_path / storage), str(place / "store")
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        exported[storage] = {path.name: path.read_bytes() for path in (tmp_path / storage).iterdir()}
    assert exported["delta"].keys() == exported["float32"].keys()
    assert exported["delta"]["model.safetensors"] == exported["float32"]["model.safetensors"]


@pytest.mark.parametrize(("again", "changed"), [("same", False), ("other", True)])
def test_a_dropped_difference_is_compared_by_what_it_stood_for(tmp_path: Path, again: str, changed: bool) -> None:
    store, name = Store(tmp_path), f"{MODEL}/model.safetensors"
    with store.draft("train", "a" * 32) as draft:
        (draft.folder / MODEL).mkdir()
        (draft.folder / MODEL / "delta.json").write_text("planes")
        draft.stands_for[name] = file_hash_of("same", tmp_path)
    store.drop("a" * 32, MODEL, dict(draft.stands_for))
    assert set(store.dropped("a" * 32)) == {name}
    with store.draft("train", "a" * 32) as draft:  # whole this time
        (draft.folder / MODEL).mkdir()
        (draft.folder / name).write_text(again)
    assert store.open("a" * 32).changed is changed


def file_hash_of(content: str, folder: Path) -> str:
    path = folder / "content"
    path.write_text(content)
    return file_hash(path)
