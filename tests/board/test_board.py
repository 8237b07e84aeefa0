"""The board: schema, order, families of tests, noise, what is missing, reading and writing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from harness.api.types import Cost, Metric, Score
from harness.board import Board, RowResult, build_board
from harness.board.board import ONE_SEED, CostEntry
from harness.board.statistics import both
from harness.board.views.figures import frontier
from harness.board.views.latex import to_latex
from harness.board.views.markdown import to_markdown
from harness.board.views.notebook import to_notebook
from harness.board.views.page import to_html
from harness.board.views.terminal import print_table
from harness.errors import DataError, StoreError

METRICS = {"gold": [Metric("win", "wins", primary=True), Metric("length", "tokens", higher_is_better=None)]}
Build = Callable[..., Board]


def row(label: str, lift: float, *, seeds: int = 2, kind: str = "measured", examples: int = 30) -> RowResult:
    """Values that differ from the baseline's by `lift`, up to noise that depends on the seed and the prompt alone."""
    runs = {
        seed: [
            score
            for i in range(examples)
            for score in (Score(f"e{i}", "win", i / 10 + lift * (1 + (i * 7 + seed) % 3)), Score(f"e{i}", "length", 40.0 + i))
        ]
        for seed in range(seeds)
    }
    costs = {seed: Cost(10.0 + seed, 100, 50) for seed in range(seeds)}
    return RowResult(label, "pairs", "dpo", 1, kind, {"gold": runs}, costs, {"prompts": 8}, {})  # type: ignore[arg-type]


def test_schema_1_has_these_keys(board: Board) -> None:
    content = json.loads(board.to_json())
    assert sorted(content) == [
        *("analysis", "baseline", "config", "created", "description", "examples", "files", "harness", "metrics", "name"),
        *("rows", "schema", "sharing", "statistics", "warnings"),
    ]
    assert content["schema"] == 1 and content["examples"] == "examples.jsonl"
    best, failed = content["rows"][0], content["rows"][-1]
    keys = ["budget", "cost", "curves", "data", "kind", "method", "objective", "provenance", "rounds", "scores", "seeds"]
    assert sorted(best) == keys
    assert sorted(failed) == sorted([*keys, "failed"])
    assert sorted(best["cost"]) == ["seconds", "tokens_generated", "tokens_trained"]
    score = best["scores"]["gold/win_rate"]
    assert sorted(score) == ["delta", "high", "higher_is_better", "low", "mean", "n", "per_seed"]
    assert sorted(score["delta"]) == [
        *("detectable", "effect", "high", "low", "mean", "n", "p", "p_adjusted", "p_design", "p_flips", "p_own"),
        *("p_seeds", "q", "seeds", "wins"),
    ]
    assert sorted(content["statistics"]) == ["correction", "draws", "families", "flips", "interval", "level", "methods", "test"]
    assert sorted(content["analysis"]) == ["agreement", "first_place", "noise", "noise_floors", "power", "ranking", "wins"]
    assert sorted(content["files"]) == ["examples.jsonl", "scores.parquet"]
    assert sorted(content["metrics"][0]) == ["description", "higher_is_better", "key", "primary"]


def test_the_best_comes_first_and_failed_rows_last(build: Build) -> None:
    failed = replace(row("broken", 0.0), failed="out of memory")
    rows = [failed, row("low", -0.1), row("tie_a", 0.0), row("base", 0.0), row("high", 0.1)]
    assert [r.method for r in build(rows, metrics=METRICS, baseline="base").rows] == ["high", "tie_a", "base", "low", "broken"]
    smaller = {"gold": [Metric("win", "losses", higher_is_better=False, primary=True)]}
    assert [r.method for r in build(rows, metrics=smaller, baseline="base").rows] == ["low", "tie_a", "base", "high", "broken"]


def test_a_failed_row_keeps_its_reason_and_has_no_scores(board: Board) -> None:
    failed = board.rows[-1]
    assert failed.failed is not None and failed.failed.startswith("loss became nan at step 12")
    assert failed.scores == {}


def test_differences_are_paired_and_the_baseline_has_none(build: Build) -> None:
    board = build([row("base", 0.0), row("high", 0.1)], metrics=METRICS, baseline="base")
    high, base = board.rows
    delta = high.scores["gold/win"].delta
    assert delta is not None and delta.p_flips is not None and delta.wins is not None
    assert base.scores["gold/win"].delta is None
    assert delta.mean == pytest.approx(0.2, abs=0.01)
    # All differences are one of three sizes of one sign: the flips are sure, two seeds of two rows are not.
    assert 0 < delta.low < 0.15 and delta.p_flips < 1e-7 and 0.01 < delta.p_design == delta.p
    assert (delta.n, delta.seeds, delta.wins.won, delta.wins.lost) == (30, 2, 1.0, 0.0)
    assert high.scores["gold/win"].per_seed == pytest.approx((1.65, 1.65), abs=0.02)
    assert high.cost.seconds == 10.5 and high.seeds == (0, 1)


def test_primary_and_other_metrics_are_corrected_apart(board: Board) -> None:
    primary = {metric.key for metric in board.metrics if metric.primary}
    for family in (True, False):
        deltas = [
            delta
            for entry in board.rows
            for key, score in entry.scores.items()
            if (delta := score.delta) is not None and (key in primary) == family
        ]
        assert len(deltas) == 10 * (2 if family else 6)
        assert [delta.p_adjusted for delta in deltas] == pytest.approx(
            both(np.array([delta.p for delta in deltas]), np.array([delta.p_own for delta in deltas]))
        )


def test_the_noise_floor_is_a_probability_and_decides_nothing(build: Build) -> None:
    lucky = row("null", 0.0, kind="null")
    swings = {s: [replace(x, value=x.value + (0.3 if s else -0.3)) for x in run] for s, run in lucky.scores["gold"].items()}
    rows = [row("base", 0.0), replace(lucky, scores={"gold": swings}), row("small", 0.1), row("large", 0.4)]
    board = build(rows, metrics=METRICS, baseline="base", warnings=())
    assert board.analysis is not None and board.analysis.noise_floors is not None
    entry, size = board.analysis.noise_floors["gold/win"], board.noise_floor("gold/win")
    assert size is not None and entry.low < size < entry.high and (entry.probability, entry.nulls) == (0.95, 1)
    assert not any(s.delta.below_noise for r in board.rows for s in r.scores.values() if s.delta)
    assert "The noise floor (a change of seeds alone stays below it 95% of the time), known to 95%: win" in to_markdown(board)


def test_one_seed_has_no_star_and_every_view_says_so_first(build: Build) -> None:
    rows = [row("base", 0.0, seeds=1), row("high", 0.4, seeds=1)]
    board = build(rows, metrics=METRICS, baseline="base", warnings=())
    delta = board.rows[0].scores["gold/win"].delta
    assert delta is not None and delta.p_adjusted is not None and delta.p_adjusted < 1e-3 and delta.low > 0
    assert delta.one_seed and delta.mark == "" and delta.verdict(board.primary[0]) == "unclear"
    assert board.summary.startswith(ONE_SEED) and "over prompts)." in board.summary
    console = Console(file=StringIO(), width=100)
    print_table(board, console)
    terminal = console.file.getvalue()  # type: ignore[attr-defined]
    assert terminal.index("Seeds were not sampled") < terminal.index("method")
    views = [board.summary, to_markdown(board).partition("##")[0], to_latex(board), to_notebook(board), to_html(board, [])]
    for text in views:
        assert "Seeds were not sampled" in text and "The difference holds" not in text and ">sure" not in text
    several = build([row("base", 0.0), row("high", 0.4)], metrics=METRICS, baseline="base", warnings=())
    assert not several.has_one_seed and "Seeds were not sampled" not in to_html(several, [])


def test_a_metric_that_no_seed_can_move_has_no_noise_floor(build: Build) -> None:
    rows = [row("base", 0.0), row("null", 0.0, kind="null"), row("same", 0.0), row("large", 0.2)]
    board = build(rows, metrics=METRICS, baseline="base", warnings=())
    assert board.noise_floor("gold/win") is None and board.noise_floor("gold/length") is None
    assert not any(s.delta.below_noise for entry in board.rows for s in entry.scores.values() if s.delta)
    assert "≈" not in to_markdown(board)
    page = to_html(board, [])
    assert 'class="noise"' not in page and "The shaded band" not in page


def test_a_row_that_trained_nothing_has_no_cost(build: Build) -> None:
    free = replace(row("free", 0.0), costs={0: Cost(), 1: Cost()})
    other = replace(row("other", 0.1), costs={0: Cost(seconds=99.0), 1: Cost(seconds=99.0)})
    board = build([row("base", 0.0), other, free], metrics=METRICS, baseline="base")
    entry = board.row("free")
    assert entry is not None and entry.cost == CostEntry() and entry.seeds == (0, 1)
    drawn = frontier(board, board.primary[0])
    assert drawn is not None and "for 2 rows" in drawn and "free" not in drawn
    assert "| free | – | – | – | 8 |" in to_markdown(board)


@pytest.mark.parametrize("name", ["/tmp/harness-stolen", "../x", "a/b", "a\\b", "C:x", "..", ".", "", "a\x1bb"])
def test_a_board_cannot_name_a_file_elsewhere(board: Board, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "board"
    board.write(folder)
    content = json.loads((folder / "board.json").read_text()) | {"examples": name}
    (folder / "board.json").write_text(json.dumps(content))
    with pytest.raises(
        DataError, match=r"examples = .*: give a file name without a folder, such as 'examples\.jsonl'"
    ) as error:
        Board.read(folder)
    assert "board.json is not a whole board" in str(error.value) and repr(name) in str(error.value)


def test_writing_uses_the_name_alone(board: Board, tmp_path: Path) -> None:
    board.model_copy(update={"examples": str(tmp_path / "elsewhere")}).with_examples([]).write(tmp_path / "in" / "here")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert sorted(path.name for path in (tmp_path / "in" / "here").iterdir()) == ["board.json", "elsewhere", "scores.parquet"]


def test_what_is_missing_is_absent_and_a_warning_says_why(build: Build) -> None:
    base, other = row("base", 0.0), row("other", 0.1)
    unscored = replace(row("unscored", 0.0), scores={})
    nan = {
        seed: [replace(s, value=float("nan")) if s.metric == "length" else s for s in run]
        for seed, run in other.scores["gold"].items()
    }
    fewer = {seed: run[:20] for seed, run in row("fewer", 0.1).scores["gold"].items()}
    half = {0: other.scores["gold"][0], 1: []}
    rows = [base, unscored, replace(other, scores={"gold": nan}), replace(row("fewer", 0.1), scores={"gold": fewer})]
    board = build([*rows, replace(row("half", 0.1), scores={"gold": half})], metrics=METRICS, baseline="base", warnings=())
    assert "gold/length" not in (board.row("other") or base).scores
    assert "other has no length of gold, which reported no finite value of it." in board.warnings
    said = [text for text in board.warnings if text.startswith("unscored")]
    names = ", ".join(metric.name for metric in METRICS["gold"])
    assert said == [f"unscored has no {names} of gold, which gave it no scores."]  # once for all of them
    assert [text for text in board.warnings if " examples of gold" in text] == [
        f"fewer is compared on 10 of 30 examples of {', '.join(f'gold/{metric.name}' for metric in METRICS['gold'])}."
    ]  # once for all of them
    assert any(text.startswith("half: 30 of 60 values of gold/win are missing") for text in board.warnings)
    partly = board.row("half")
    assert partly is not None and partly.scores["gold/win"].seeds == (0,)


def test_a_failed_baseline_leaves_means_without_differences(build: Build) -> None:
    board = build([replace(row("base", 0.0), failed="killed"), row("high", 0.1)], metrics=METRICS, baseline="base", warnings=())
    assert board.rows[0].scores["gold/win"].delta is None
    assert board.warnings == ("The baseline base has no scores, so there are no differences and no tests.",)


def test_published_numbers_have_no_interval_and_no_test(build: Build) -> None:
    published = replace(row("paper", 0.0, kind="published"), scores={"gold": {0: [Score("all", "win", 2.5)]}}, costs={})
    board = build([row("base", 0.0), published], metrics=METRICS, baseline="base", warnings=())
    score = board.rows[0].scores["gold/win"]
    assert (score.mean, score.low, score.high, score.delta) == (2.5, None, None, None)
    assert "low" not in json.loads(board.to_json())["rows"][0]["scores"]["gold/win"]
    assert json.loads(board.to_json())["rows"][0]["cost"] == {}
    assert board.warnings == ()


def test_labels_and_the_baseline_are_checked(build: Build) -> None:
    with pytest.raises(DataError, match=r"two rows of the board are called 'dpo': give each its own label"):
        build([row("dpo", 0.0), row("dpo", 0.1)], metrics=METRICS, baseline="dpo")
    with pytest.raises(DataError, match=r"the baseline 'dop' is not a row of the board: did you mean 'dpo'\?"):
        build([row("dpo", 0.0)], metrics=METRICS, baseline="dop")


def test_written_and_read_is_the_same_board(board: Board, tmp_path: Path) -> None:
    path = board.write(tmp_path / "new")
    again = Board.read(tmp_path / "new")
    assert again.to_json() == board.to_json() == path.read_text()
    assert again.example_rows == board.example_rows
    assert sorted(p.name for p in path.parent.iterdir()) == ["board.json", "examples.jsonl", "scores.parquet"]
    assert path.read_bytes().isascii()


def test_two_runs_differ_in_times_alone(build: Build, rows: list[RowResult]) -> None:
    first = build(rows, created="2025-01-01", commit="abc", sharing={"stages_run": 71})
    slower = [replace(r, costs={s: replace(c, seconds=c.seconds * 2) for s, c in r.costs.items()}) for r in rows]
    second = build(slower, created="2026-01-01", commit="def", sharing={"stages_run": 0})
    assert first.to_json() != second.to_json()
    assert first.without_times() == second.without_times()
    assert "config" in first.without_times() and first.without_times()["config"]["seeds"] == [1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"schema": 1, "name"', "cannot be read as a board"),
        ('{"schema": 2}', "has schema 2, this version reads 1"),
        ("[]", "has schema None, this version reads 1"),
        ('{"schema": 1, "name": "x"}', "is not a whole board: description: Field required"),
    ],
)
def test_a_damaged_board_is_one_clear_error(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "board.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        Board.read(path)


def test_missing_boards_and_damaged_examples_are_named(board: Board, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing.json cannot be read as a board"):
        Board.read(tmp_path / "nothing.json")
    board.write(tmp_path)
    with (tmp_path / "examples.jsonl").open("a") as examples:
        examples.write("{}\n")
    with pytest.raises(DataError, match=r"examples.jsonl:9 is not an example"):
        Board.read(tmp_path)


def test_a_folder_that_cannot_be_written_is_a_store_error(board: Board, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        board.write(tmp_path / "file" / "inside")


def test_numbers_that_json_does_not_know_never_reach_it(build: Build) -> None:
    odd = replace(
        row("odd", 0.1),
        budget={"pairs": float("inf"), "prompts": 8},
        curves={0: [{"step": i, "loss": float("nan") if i == 5 else 0.5} for i in range(500)]},
        provenance={"path": Path("a"), "set": {2, 1}, "nan": float("nan"), "text": "\ud800"},
    )
    entry = build([row("base", 0.0), odd], metrics=METRICS, baseline="base").row("odd")
    assert entry is not None
    assert entry.budget == {"prompts": 8}
    assert entry.provenance == {"path": "a", "set": [1, 2], "nan": "nan", "text": "\\ud800"}
    assert len(entry.curves["0"]) == 200 and entry.curves["0"][-1]["step"] == 499
    assert all(point["loss"] == 0.5 for point in entry.curves["0"] if "loss" in point)


def judged_by(label: str, lift: float, *versions: str) -> RowResult:
    return replace(row(label, lift), provenance={"judges": {"gold": {"versions": list(versions)}}})


def judged_board(rows: list[RowResult], **more: Any) -> Board:
    arguments: dict[str, Any] = dict.fromkeys(("name", "description", "created"), "judged")
    arguments |= {"config": {}, "baseline": "start", "metrics": METRICS, "examples": [], "sharing": {}, "warnings": []}
    return build_board(**arguments, rows=rows, **more)


def compared(board: Board) -> dict[str, list[bool]]:
    return {found.method: [score.delta is not None for score in found.scores.values()] for found in board.rows}


def said_of_judges(board: Board) -> list[str]:
    return [text for text in board.warnings if "was judged by" in text]


def test_rows_judged_by_others_are_not_compared_unless_told_to() -> None:
    rows = [judged_by("start", 0, "j (1)"), judged_by("dpo", 1, "j (1)"), judged_by("simpo", 1, "j (2)")]
    board = judged_board(rows)
    assert compared(board) == {"start": [False, False], "dpo": [True, True], "simpo": [False, False]}
    assert said_of_judges(board) == [
        "simpo was judged by j (2) and start by j (1) on gold: "
        "they are not compared; set judge.allow_mixed_judges to compare all the same."
    ]
    told = judged_board(rows, mixed_judges=True)
    simpo = told.row("simpo")
    assert simpo is not None
    assert all(score.delta is not None for score in simpo.scores.values())
    assert any("compared because judge.allow_mixed_judges is set" in text for text in told.warnings)


def test_a_row_that_nobody_was_asked_about_goes_with_any_judge() -> None:
    board = judged_board([judged_by("start", 0), judged_by("dpo", 1, "j (1)"), judged_by("simpo", 1, "j (1)")])
    assert compared(board) == {"start": [False, False], "dpo": [True, True], "simpo": [True, True]}
    assert said_of_judges(board) == []
    board = judged_board([judged_by("start", 0, "j (1)"), judged_by("dpo", 1)])
    assert compared(board)["dpo"] == [True, True]
    assert said_of_judges(board) == []


@pytest.mark.parametrize("order", [1, -1])
def test_rows_of_different_judges_are_kept_apart_where_nobody_was_asked_about_the_baseline(order: int) -> None:
    judged = [judged_by("dpo", 1, "j (2)"), judged_by("ipo", 1, "j (1)"), judged_by("simpo", 1, "j (1)")]
    board = judged_board([judged_by("start", 0), *judged[::order]])
    assert compared(board) == {"start": [False, False], "dpo": [False, False], "ipo": [True, True], "simpo": [True, True]}
    (said,) = said_of_judges(board)
    assert said.startswith("dpo was judged by j (2) and ipo by j (1) on gold: they are not compared;")


def test_a_row_whose_judge_is_unknown_is_not_compared_with_a_judged_one() -> None:
    board = judged_board([row("start", 0), judged_by("dpo", 1, "j (1)")])
    assert compared(board)["dpo"] == [False, False]
    assert "dpo was judged by j (1) and start by nobody on gold" in said_of_judges(board)[0]


def test_what_judges_took_is_a_cost_of_rows_that_trained_nothing_too() -> None:
    assert mean_cost(Cost(judge_tokens=100, usd=0.5), Cost(judge_tokens=300, usd=0.25)) == CostEntry(
        judge_tokens=200, usd=0.375
    )
    assert mean_cost(Cost(judge_tokens=100, usd=None)) == CostEntry(judge_tokens=100)
    both = Cost(2.0, 10, 20) + Cost(judge_tokens=5, usd=None)
    assert mean_cost(both) == CostEntry(seconds=2.0, tokens_trained=10, tokens_generated=20, judge_tokens=5)


def mean_cost(*costs: Cost) -> CostEntry:
    """What a board makes of a row's costs, one per seed."""
    rows = [replace(row("start", 0), costs=dict(enumerate(costs)))]
    board = build_board(
        name="",
        description="",
        config={},
        baseline="start",
        rows=rows,
        metrics=METRICS,
        examples=[],
        sharing={},
        created="",
        warnings=[],
    )
    return board.rows[0].cost
