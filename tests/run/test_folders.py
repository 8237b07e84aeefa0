"""Folders of runs: no board is lost, and every run is listed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.board.board import Board
from harness.config import Comparison
from harness.config.schema import Config
from harness.errors import HarnessError
from harness.run.folders import board_folder, find_board, latest_boards, list_runs, note_run, update_index

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "leaderboards" / "quickstart"


def board(folder: Path, *labels: str, created: str = "2026-01-01", **changes: Any) -> Config:
    """Write a board of the quickstart's config with the changes, and return that config."""
    published = Board.read(QUICKSTART, examples=False)
    raw = {**published.config, "methods": [{"method": label} for label in labels], "baseline": "sft", **changes}
    config = Config.model_validate(raw)
    rows = tuple(row for row in published.rows if row.method in labels)
    content = config.model_dump(mode="json", by_alias=True)
    update = {"rows": rows, "config": content, "name": folder.name, "created": created}
    folder.mkdir(parents=True)
    (folder / "board.json").write_text(published.model_copy(update=update).to_json())
    return config


def changed(config: Config, **changes: Any) -> Config:
    return Config.model_validate({**config.model_dump(mode="json", by_alias=True), **changes})


def run(config: Config, labels: list[str], start: str | None = None) -> list[Comparison]:
    """What a run of the config resolves to, as far as folders ask."""
    rows = tuple(SimpleNamespace(label=label) for label in labels)
    return [cast(Comparison, SimpleNamespace(config=config, rows=rows, start=start))]


ALL = [{"method": "sft"}, {"method": "dpo"}]


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ({}, ["sft", "dpo"]),
        ({"description": "x", "run": {"checkpoint_minutes": 1}, "name": "y"}, ["sft", "dpo"]),  # no result changes
        ({"methods": [*ALL, {"method": "ipo"}]}, ["sft", "dpo", "ipo"]),
        ({"seeds": [0, 1, 2]}, ["sft", "dpo"]),
    ],
)
def test_a_run_that_makes_every_row_again_replaces_the_board(
    changes: dict[str, Any], labels: list[str], tmp_path: Path
) -> None:
    config = board(tmp_path / "run", "sft", "dpo")
    assert board_folder(tmp_path / "run", run(changed(config, **changes), labels), {}, "refuse") == tmp_path / "run"


@pytest.mark.parametrize(
    ("changes", "labels", "difference"),
    [
        ({"methods": ALL[:1]}, ["sft"], "its row 'dpo' is not in this run"),
        ({"seeds": [0]}, ["sft", "dpo"], "seeds: 1 is not in this run"),
        ({"budget": {"prompts": 7}}, ["sft", "dpo"], r"budget\.prompts: \d+ there, 7 now"),
        (
            {"methods": [ALL[0], {"method": "dpo", "objective": {"beta": 0.7}}]},
            ["sft", "dpo"],
            "methods: dpo is not in this run, or has other settings",
        ),
    ],
)
def test_another_comparison_is_refused_or_goes_beside(
    changes: dict[str, Any], labels: list[str], difference: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    other = changed(board(folder, "sft", "dpo"), **changes)
    with pytest.raises(HarnessError, match=rf"{difference}.*choose another folder with --out, or give --replace"):
        board_folder(folder, run(other, labels), {}, "refuse")
    assert board_folder(folder, run(other, labels), {}, "replace") == folder
    assert board_folder(folder, run(other, labels), {}, "beside") == tmp_path / "run-2"
    board(tmp_path / "run-2", "kto")  # a third comparison's
    assert board_folder(folder, run(other, labels), {}, "beside") == tmp_path / "run-3"


def test_the_same_command_replaces_its_board(tmp_path: Path) -> None:
    """A search settles fields: then the board's config is not the command's."""
    other = changed(board(tmp_path / "run", "sft"), budget={"prompts": 7})
    note_run(tmp_path / "run", {"name": "x"}, tmp_path / "store", "harness compare")
    assert board_folder(tmp_path / "run", run(other, ["sft"]), {"name": "x"}, "refuse") == tmp_path / "run"
    with pytest.raises(HarnessError, match="another comparison"):
        board_folder(tmp_path / "run", run(other, ["sft"]), {"name": "y"}, "refuse")


@pytest.mark.parametrize("content", ["{", json.dumps({"schema": 99})])
def test_a_board_that_cannot_be_read_is_not_replaced(content: str, tmp_path: Path) -> None:
    config = board(tmp_path / "run", "sft")
    (tmp_path / "run" / "board.json").write_text(content)
    with pytest.raises(HarnessError, match="another comparison"):
        board_folder(tmp_path / "run", run(config, ["sft"]), {}, "refuse")


def test_boards_of_several_starting_models(tmp_path: Path) -> None:
    config = board(tmp_path / "run", "sft")
    path = tmp_path / "run" / "board.json"
    content = json.loads(path.read_text())
    content["config"]["model"] = [{"label": "a", **content["config"]["model"]}]
    content["rows"][0]["method"] = "a/sft"
    path.write_text(json.dumps(content))
    assert board_folder(tmp_path / "run", run(config, ["sft"], "a"), {}, "refuse") == tmp_path / "run"
    with pytest.raises(HarnessError, match="its row 'a/sft' is not in this run"):
        board_folder(tmp_path / "run", run(config, ["sft"], "b"), {}, "refuse")
    with pytest.raises(HarnessError, match=r"budget\.prompts: \d+ there, 7 now"):
        board_folder(tmp_path / "run", run(changed(config, budget={"prompts": 7}), ["sft"], "a"), {}, "refuse")


def test_runs_are_listed_the_latest_first(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    board(runs / "old", "sft", "dpo", created="2026-01-01T10:00:00+00:00")
    board(runs / "analyses" / "new", "sft", created="2026-02-01T10:00:00+00:00")
    (runs / "broken").mkdir()
    (runs / "broken" / "board.json").write_text("{")
    (runs / "stopped").mkdir()
    status = {"name": "s", "state": "interrupted", "updated": "2026-01-15T00:00:00+00:00", "began": "2026-01-15T00:00:00+00:00"}
    (runs / "stopped" / "status.json").write_text(json.dumps({**status, "work": 4, "work_done": 1, "done": 3, "stages": 9}))
    (runs / "store" / "artifacts" / "aa").mkdir(parents=True)
    (runs / "store" / "roots").mkdir()
    (runs / "store" / "artifacts" / "aa" / "board.json").write_text("{}")  # no run: artifacts are not looked into
    listed = {Path(run.folder).relative_to(runs).as_posix(): run for run in list_runs(runs)}
    assert [name for name in listed if name != "broken"] == ["analyses/new", "stopped", "old"]
    assert (listed["old"].rows, listed["old"].best, listed["old"].metric) == (2, "dpo", "gold_reward/gold")
    assert (listed["stopped"].state, listed["stopped"].done, listed["stopped"].rows) == ("interrupted", 3, None)
    assert "cannot be read" in (listed["broken"].problem or "")
    assert latest_boards(runs, 2) == [runs / "old", runs / "analyses" / "new"]
    assert find_board("old", runs) == runs / "old"
    with pytest.raises(HarnessError, match="did you mean 'old'"):
        find_board("odl", runs)
    update_index(runs / "old")
    index = (runs / "index.html").read_text()
    assert 'href="old/index.html"' in index and "broken" not in index
    update_index(tmp_path / "elsewhere" / "run")  # such a folder may hold anything: nothing is written
    assert not (tmp_path / "elsewhere").exists()
