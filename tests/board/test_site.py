"""Published boards: the index, each board's files, its history, cards for the hub, and workflows that are valid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.api.types import Metric, Score
from harness.board import Board, RowResult, build_board
from harness.board.verify import verify
from harness.board.views.site import build_site, model_metadata, site_card, slug, workflows
from harness.errors import DataError


@pytest.fixture
def folder(board: Board, tmp_path: Path) -> Path:
    board.write(tmp_path / "run")
    return tmp_path / "run"


def test_a_site_holds_each_board_whole_and_an_index(folder: Path, tmp_path: Path) -> None:
    site = build_site([folder], tmp_path / "site")
    assert list(site.files)[-1] == "index.html" and not (tmp_path / "site").exists()
    site.write(tmp_path / "site")
    assert verify(tmp_path / "site" / "quickstart") == []
    index = (tmp_path / "site" / "index.html").read_text()
    assert 'href="quickstart/index.html"' in index and index.count("<script") == 1
    names = {
        "board.csv",
        "board.json",
        "board.md",
        "board.tex",
        "examples.jsonl",
        "history.html",
        "index.html",
        "scores.parquet",
    }
    assert {path.name for path in (tmp_path / "site" / "quickstart").iterdir()} == names


def test_a_board_that_changed_keeps_the_one_before_and_says_what_changed(board: Board, folder: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    build_site([folder], site).write(site)
    build_site([folder], site).write(site)
    assert not (site / "quickstart" / "history").exists()  # the same board again is no new version
    rows = tuple(row for row in board.rows if row.method != "simpo")
    newer = board.model_copy(update={"rows": rows, "created": "2025-02-02T00:00:00+00:00"})
    newer.write(tmp_path / "newer")
    build_site([tmp_path / "newer"], site).write(site)
    (kept,) = (site / "quickstart" / "history").iterdir()
    assert json.loads(kept.read_text()) == json.loads((folder / "board.json").read_text())
    assert "simpo: gone, was measured" in (site / "quickstart" / "history.html").read_text()
    assert "1 earlier" in (site / "index.html").read_text()


def test_boards_published_earlier_stay_in_the_index(board: Board, folder: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    build_site([folder], site).write(site)
    board.model_copy(update={"name": "Other <b>board</b>"}).write(tmp_path / "other")
    build_site([tmp_path / "other"], site).write(site)
    index = (site / "index.html").read_text()
    assert 'href="quickstart/index.html"' in index and 'href="other-b-board-b/index.html"' in index and "<b>" not in index


def test_the_index_has_each_boards_caveats(board: Board, tmp_path: Path) -> None:
    one_seed = [Score(f"p{i}", "m", float(i % 2)) for i in range(9)]
    rows = [RowResult(name, None, None, 1, "measured", {"e": {0: one_seed}}, {}, {}, {}) for name in ("sft", "dpo")]  # type: ignore[arg-type]
    shared: Any = {"description": "", "config": {}, "examples": (), "sharing": {}, "created": ""}
    metrics = {"e": [Metric("m", "A score", primary=True)]}
    single = build_board(name="single", baseline="sft", rows=rows, metrics=metrics, warnings=["<i>read</i> this"], **shared)
    board.write(tmp_path / "many")
    single.write(tmp_path / "single")
    build_site([tmp_path / "many", tmp_path / "single"], tmp_path / "site").write(tmp_path / "site")
    many, one = (tmp_path / "site" / "index.html").read_text().split("<article>")[1:]
    assert "Seeds were not sampled" in one and "&lt;i&gt;read&lt;/i&gt; this" in one and one.count("Seeds were not") == 1
    assert "Seeds were not sampled" not in many and "Failed rows: evil" in many and "no judge is configured" in many


def test_two_boards_of_one_name_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="are both called 'quickstart'"):
        build_site([folder, folder / "board.json"], tmp_path / "site")
    assert slug("///") != slug("???") and slug("../Up & Away") == "up-away"


def test_cards_are_what_the_hub_reads(board: Board) -> None:
    _, head, body = site_card([board], "space", "Boards").split("---\n", 2)
    assert yaml.safe_load(head)["sdk"] == "static" and "quickstart/board.md" in body
    configs = yaml.safe_load(site_card([board], "dataset", "Boards").split("---\n")[1])["configs"]
    assert configs == [{"config_name": "quickstart", "data_files": "quickstart/scores.parquet"}]
    (found,) = model_metadata(board, "kto", "model")["model-index"]
    metrics = {metric["type"]: metric["value"] for result in found["results"] for metric in result["metrics"]}
    entry = board.row("kto")
    assert entry is not None and metrics["gold/win_rate"] == pytest.approx(entry.scores["gold/win_rate"].mean, abs=1e-6)
    with pytest.raises(DataError, match="did you mean 'kto'"):
        model_metadata(board, "kta", "model")


def test_workflow_templates_are_yaml_without_write_access_to_code() -> None:
    found: dict[str, Any] = {name: yaml.safe_load(content) for name, content in workflows().items()}
    assert set(found) == {".github/workflows/publish-boards.yaml", ".github/workflows/verify-boards.yaml"}
    for name, workflow in found.items():
        assert workflow["permissions"] == {"contents": "read"}, name
        assert "pull_request_target" not in workflow[True]  # YAML reads the key `on` as true
        commands = " ".join(step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"])
        assert "harness verify" in commands and "${{" not in commands
