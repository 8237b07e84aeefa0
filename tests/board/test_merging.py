"""Boards as one: the same numbers as if the rows had run together, or a refusal that says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.board import Board, RowResult
from harness.board.build import LoadedBoard
from harness.board.merge import merge
from harness.board.verify import verify
from harness.errors import DataError

Build = Callable[..., Board]
TABLE = """
name: a-paper
source: {title: A Paper, arxiv: "2404.00604", table: Table 9}
setting: A model.
baseline: SFT
columns:
  - {metric: gold/win_rate, printed: WR, description: wins in percent, scale: 0.01, primary: true}
  - {metric: other/score, printed: S, description: a score}
rows:
  - {method: SFT, values: ["40.02", "5.9"]}
  - {method: dpo, values: ["80.74%", null]}
"""


@pytest.fixture
def parts(build: Build, rows: list[RowResult], tmp_path: Path) -> tuple[Path, Path, Board]:
    """Two boards with the baseline on both, and the board of all rows together."""
    halves = rows[:4], [rows[0], *rows[4:]]
    for name, half in zip(("one", "two"), halves, strict=True):
        build(half, name=name).write(tmp_path / name)
    return tmp_path / "one", tmp_path / "two", build(rows)


def numbers(board: Board) -> dict[str, float]:
    """Every number of the scores and the analysis, by where it stands."""
    found: dict[str, float] = {}

    def walk(value: Any, where: str) -> None:
        if isinstance(value, dict | list):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, item in items:
                walk(item, f"{where}/{key}")
        elif isinstance(value, int | float):
            found[where] = float(value)

    walk({row.method: row.model_dump(mode="json")["scores"] for row in board.rows}, "rows")
    walk(board.analysis.model_dump(mode="json") if board.analysis else {}, "analysis")
    return found


def test_merged_boards_have_the_statistics_of_one(parts: tuple[Path, Path, Board], tmp_path: Path) -> None:
    one, two, whole = parts
    board = merge([LoadedBoard.read(one), LoadedBoard.read(two)], name="both", created="now")
    assert numbers(board) == pytest.approx(numbers(whole), rel=1e-9, abs=1e-12)  # sums in another order
    assert board.statistics == whole.statistics
    assert {row.method: row.cost for row in board.rows} == {row.method: row.cost for row in whole.rows}
    assert [source["name"] for source in board.sharing["merged"]] == ["one", "two"]
    board.write(tmp_path / "both")
    assert verify(tmp_path / "both") == []


def test_seeds_of_one_row_are_pooled(build: Build, rows: list[RowResult], tmp_path: Path) -> None:
    shifted = [
        replace(
            row,
            scores={e: {seed + 10: scores for seed, scores in runs.items()} for e, runs in row.scores.items()},
            costs={seed + 10: cost for seed, cost in row.costs.items()},
        )
        for row in rows[:3]
    ]
    build(rows[:3]).write(tmp_path / "one")
    build(shifted).write(tmp_path / "two")
    board = merge([LoadedBoard.read(tmp_path / "one"), LoadedBoard.read(tmp_path / "two")], name="both", created="now")
    assert [row.seeds for row in board.rows] == [(1, 2, 11, 12)] * 3
    delta = board.rows[0].scores["gold/win_rate"].delta
    assert delta is not None and delta.seeds == 4
    assert any("are pooled" in warning for warning in board.warnings)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"baseline": "kto"}, "its baseline is 'kto', that of"),
        ({"config": {"model": {"path": "else"}}}, 'model is {"path": "else"}'),
        ({"config": {"model": {"path": "sandbox/start"}, "source": "hh"}}, 'source is "hh", in'),
        ({"config": {"model": {"path": "sandbox/start"}, "judge": {"model": "gpt"}}}, "the judge is"),
        (
            {"config": {"model": {"path": "sandbox/start"}, "evaluators": [{"name": "gold", "x": 2}]}},
            "gold has other fields",
        ),
    ],
)
def test_what_is_no_comparison_is_refused(build: Build, rows: list[RowResult], changed: Any, said: str, tmp_path: Path) -> None:
    config = {"model": {"path": "sandbox/start"}, "evaluators": [{"name": "gold"}], "judge": {"model": "claude"}}
    build(rows[:7], config=config).write(tmp_path / "one")
    build(rows[:7], **{"config": config, **changed}).write(tmp_path / "two")
    with pytest.raises(DataError, match="these boards are not one comparison") as error:
        merge([LoadedBoard.read(tmp_path / "one"), LoadedBoard.read(tmp_path / "two")], name="both", created="now")
    assert said in str(error.value)


def test_a_baseline_with_other_scores_is_refused_and_other_rows_are_renamed(
    build: Build, rows: list[RowResult], tmp_path: Path
) -> None:
    def moved(row: RowResult) -> RowResult:
        first = row.scores["gold"][1]
        return replace(
            row, scores={**row.scores, "gold": {**row.scores["gold"], 1: [replace(first[0], value=9.0), *first[1:]]}}
        )

    build(rows[:3], name="one").write(tmp_path / "one")
    build([moved(rows[0]), *rows[1:3]], name="two").write(tmp_path / "two")
    with pytest.raises(DataError, match=r"the baseline 'dpo' is not the same on .*seed 1 has other scores of gold"):
        merge([LoadedBoard.read(tmp_path / "one"), LoadedBoard.read(tmp_path / "two")], name="both", created="now")
    build([rows[0], moved(rows[1])], name="two").write(tmp_path / "two")
    board = merge([LoadedBoard.read(tmp_path / "one"), LoadedBoard.read(tmp_path / "two")], name="both", created="now")
    assert f"{rows[1].label} (two)" in {row.method for row in board.rows}


def test_published_rows_stand_beside_and_are_never_tested(build: Build, rows: list[RowResult], tmp_path: Path) -> None:
    build(rows[:3]).write(tmp_path / "one")
    (tmp_path / "paper.yaml").write_text(TABLE)
    board = merge([LoadedBoard.read(tmp_path / "one"), LoadedBoard.read(tmp_path / "paper.yaml")], name="both", created="now")
    paper = board.row("dpo (a-paper)")
    assert paper is not None and paper.kind == "published" and list(paper.scores) == ["gold/win_rate"]
    score = paper.scores["gold/win_rate"]
    assert score.mean == 0.8074 and score.delta is None and score.low is None
    alone = merge([LoadedBoard.read(tmp_path / "one")], name="alone", created="now")
    assert [row.scores for row in board.rows if row.kind != "published"] == [row.scores for row in alone.rows]
    board.write(tmp_path / "both")
    assert verify(tmp_path / "both") == []


def test_scores_that_are_not_the_boards_are_refused(build: Build, rows: list[RowResult], tmp_path: Path) -> None:
    build(rows[:3]).write(tmp_path / "one")
    build(rows[:2]).write(tmp_path / "two")
    (tmp_path / "one" / "scores.parquet").write_bytes((tmp_path / "two" / "scores.parquet").read_bytes())
    with pytest.raises(DataError, match=r"is not the file that its board\.json was written with"):
        LoadedBoard.read(tmp_path / "one")
