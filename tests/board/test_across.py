"""A board of several starting models: joined, taken apart, verified, rendered; and what carries over between models."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.api.types import Cost, Metric, Score
from harness.board import Board, ExampleRow, RowResult, build_board
from harness.board.across import join_models
from harness.board.build import LoadedBoard
from harness.board.compare import RowState
from harness.board.diff import changes
from harness.board.facts import SharingFacts
from harness.board.power import Target, analyse_board
from harness.board.verify import VerifyOutcome, check, verify
from harness.board.views.latex import to_latex
from harness.board.views.markdown import to_csv, to_markdown
from harness.board.views.page import model_pages, to_html, write_all
from harness.errors import DataError

METRICS = {"gold": [Metric("reward", "gold", primary=True), Metric("length", "tokens", higher_is_better=None)]}
EVIL = "small<script>"
# What each row gains: dpo and ipo change places under the second model; kto gains alike.
LIFTS = {"base": {"sft": 0.0, "dpo": 3.0, "ipo": 1.0, "kto": 2.0}, EVIL: {"sft": 0.0, "dpo": 1.0, "ipo": 3.0, "kto": 2.0}}


def row(label: str, lift: float, kind: Any = "measured", **changes: Any) -> RowResult:
    import random

    rng = random.Random(f"{label} {lift}")
    scores = {
        seed: [
            Score(f"p{i}", name, lift + random.Random(i).gauss(0, 1) + rng.gauss(0, 0.3))
            for i in range(30)
            for name in ("reward", "length")
        ]
        for seed in (0, 1, 2)
    }
    facts = {"models": {"0": "ab" * 8}}
    return RowResult(label, None, None, 1, kind, {"gold": scores}, {0: Cost(1.0)}, {}, facts, **changes)  # type: ignore[arg-type]


def results(lifts: Mapping[str, float]) -> list[RowResult]:
    return [*(row(label, lift) for label, lift in lifts.items()), row("null", 0.001, "null"), row("oracle", 9.0, "control")]


def board_of(rows: list[RowResult], model: str) -> Board:
    return build_board(
        name="both", description="", config={"model": {"path": model}, "evaluators": [{"name": "gold"}]}, baseline="sft",
        rows=rows, metrics=METRICS, examples=[ExampleRow("p0", "ask", None, {"dpo": f"said by {model}"})], sharing={},
        created="2026-01-01", warnings=["of both", f"of {model}"],
    )  # fmt: skip


def joined(lifts: Mapping[str, Mapping[str, float]] = LIFTS) -> Board:
    rows = {model: results(by_row) for model, by_row in lifts.items()}
    return join_models({model: board_of(listed, model) for model, listed in rows.items()}, rows, SharingFacts())


@pytest.fixture(scope="module")
def board() -> Board:
    return joined()


def test_rows_of_all_models_stand_on_one_board_and_are_taken_apart_again(board: Board) -> None:
    assert {row.model for row in board.rows} == set(LIFTS)
    assert [row.method for row in board.rows][:2] == ["base/oracle", "base/dpo"]
    alone = board_of(results(LIFTS[EVIL]), EVIL)
    apart = board.of_model(EVIL)
    assert apart.rows == alone.rows and apart.analysis == alone.analysis and apart.statistics == alone.statistics
    assert apart.example_rows[0].answers == {"dpo": f"said by {EVIL}"}
    assert apart.config["model"]["path"] == EVIL
    assert "of both" in board.warnings and f"of {EVIL}" not in board.warnings
    assert {"of both", f"of {EVIL}"} <= set(apart.warnings)


def test_a_reversed_pair_is_found_with_the_gains_that_depend_on_the_model(board: Board) -> None:
    assert board.across is not None
    (order,) = board.across.orders
    assert (order.rows, order.pairs, order.same, order.reversed) == (4, 6, 3, 3)  # against sft; among the three all turn
    assert (order.low, order.high) == (0.0, 0.0) and order.kendall == pytest.approx(0.0)
    reversed_ = board.across.significant_reversals(one_seed=False)
    assert {(pair.better, pair.worse) for pair in reversed_} == {("dpo", "kto"), ("dpo", "ipo"), ("kto", "ipo")}
    gains = {gain.row: gain for gain in board.across.gains}
    assert set(gains) == {"dpo", "ipo", "kto"}  # neither the null row nor the control
    assert gains["dpo"].is_significant and gains["dpo"].mean == pytest.approx(2.0, abs=0.2)
    assert not gains["kto"].is_significant
    (tested,) = board.across.interactions
    assert tested.is_significant and (tested.rows, tested.seeds, tested.questions) == (4, 3, 30)
    assert "carries over in part" in board.summary and "depend on the starting model" in board.summary


@pytest.mark.parametrize(("turned", "verdict"), [(False, "carries over"), (True, "does not carry over")])
def test_an_order_that_is_clear_carries_over_or_does_not(turned: bool, verdict: str) -> None:
    lifts = {"sft": 0.0, "dpo": 3.0, "ipo": 1.0, "kto": 2.0}
    other = {label: -lift for label, lift in lifts.items()} if turned else {label: lift + 1 for label, lift in lifts.items()}
    across = joined({"a": lifts, "b": other}).across
    assert across is not None
    assert across.orders[0].verdict == verdict
    assert (across.orders[0].low, across.orders[0].high) == ((-1.0, -1.0) if turned else (1.0, 1.0))
    assert across.interactions[0].is_significant is turned


def test_lower_is_better_turns_the_order_and_keeps_the_unit() -> None:
    from harness.board.across import compare_models
    from harness.board.entries import MetricEntry

    rows = {model: results(by_row) for model, by_row in LIFTS.items()}
    metric = MetricEntry(key="gold/reward", description="", higher_is_better=False, primary=True)
    across, _ = compare_models(rows, [metric], "sft")
    pair = next(pair for pair in across.reversals if {pair.better, pair.worse} == {"dpo", "ipo"})
    assert pair.better == "ipo" and pair.difference_left == pytest.approx(-2.0, abs=0.2)


def test_one_seed_decides_nothing() -> None:
    one = {
        model: [
            RowResult(r.label, None, None, 1, r.kind, {"gold": {0: r.scores["gold"][0]}}, {}, {}, r.provenance)
            for r in results(by_row)
        ]
        for model, by_row in LIFTS.items()
    }
    board = join_models({model: board_of(listed, model) for model, listed in one.items()}, one, SharingFacts())
    assert board.has_one_seed and board.across is not None
    assert not any(gain.is_significant for gain in board.across.gains)
    assert not board.across.interactions[0].is_significant
    assert board.across.significant_reversals(board.has_one_seed) == []


def test_verify_computes_every_model_and_the_comparison_of_models_again(board: Board, tmp_path: Path) -> None:
    board.sealed().write(tmp_path / "sealed")
    assert check(tmp_path / "sealed").outcome() is VerifyOutcome.verified
    write_all(board, board.example_rows, tmp_path)
    assert verify(tmp_path) == []
    content = json.loads((tmp_path / "board.json").read_text())
    content["across"]["orders"][0]["same"] += 1
    content["models"][0]["analysis"]["noise"] = {}
    content["rows"][-1]["scores"]["gold/reward"]["mean"] += 1
    (tmp_path / "board.json").write_text(json.dumps(content))
    problems = verify(tmp_path)
    assert any(problem.startswith("across: orders") for problem in problems)
    assert any(problem.startswith("base: analysis: noise") for problem in problems)
    assert any(problem.startswith(f"{EVIL}: ") and "gold/reward mean" in problem for problem in problems)


def test_learning_curves_of_all_models_lie_beside_the_board_and_are_verified(tmp_path: Path) -> None:
    rows = {model: results(lifts) for model, lifts in LIFTS.items()}
    for model, listed in rows.items():
        halfway = row("dpo", LIFTS[model]["dpo"] / 2).scores
        rows[model] = [replace(one, states=[RowState(0.5, 1, 0.5, halfway)]) if one.label == "dpo" else one for one in listed]
    both = join_models({model: board_of(listed, model) for model, listed in rows.items()}, rows, SharingFacts())
    both.sealed().write(tmp_path / "sealed")
    assert check(tmp_path / "sealed").outcome() is VerifyOutcome.verified
    write_all(both, both.example_rows, tmp_path)
    assert verify(tmp_path) == [] and Board.read(tmp_path).of_model("base").row("dpo").states  # type: ignore[union-attr]
    content = json.loads((tmp_path / "board.json").read_text())
    (curve,) = [one["states"] for one in content["rows"] if one["method"] == f"{EVIL}/dpo"]
    curve[0]["scores"]["gold/reward"]["mean"] += 1
    (tmp_path / "board.json").write_text(json.dumps(content))
    (problem,) = verify(tmp_path)
    assert problem.startswith(f"{EVIL}: dpo: states") and "mean" in problem


def test_views_name_the_model_of_every_row_and_escape_its_label(board: Board, tmp_path: Path) -> None:
    write_all(board, board.example_rows, tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert "<script>" not in page.replace("<script>{", "").replace("<script>\n", "").split("<body>")[1].split("<footer>")[0]
    pages = sorted(path.name for path in (tmp_path / "models").iterdir())
    assert pages[0] == "base.html" and pages[1].startswith("small_script_-")
    assert all(f'href="models/{name}"' in page for name in pages)
    assert "Does the ranking carry over?" in page and "said by base" in (tmp_path / "models" / "base.html").read_text()
    lines = list(csv.DictReader(io.StringIO(to_csv(board))))
    assert {(line["model"], line["method"]) for line in lines} >= {("base", "dpo"), (EVIL, "ipo")}
    markdown = to_markdown(board)
    assert "## Starting model base" in markdown and "Does the ranking carry over?" in markdown and "<script>" not in markdown
    assert to_latex(board).count(r"\begin{tabular}") == 2
    assert set(board.to_pandas()["model"]) == set(LIFTS)


def test_a_label_from_elsewhere_names_a_file_in_the_folder() -> None:
    lifts = {"..\\..": LIFTS["base"], "x" * 300: LIFTS[EVIL]}
    names = list(model_pages(joined(lifts)))
    assert len(set(names)) == 2
    assert all(re.fullmatch(r"models/[A-Za-z0-9_-]{1,90}\.html", name) for name in names)


def test_a_board_read_again_is_the_same(board: Board, tmp_path: Path) -> None:
    write_all(board, board.example_rows, tmp_path / "once")
    again = Board.read(tmp_path / "once")
    assert again.to_json() == board.to_json()
    assert to_html(again, again.example_rows) == to_html(board, board.example_rows)


def test_other_commands_go_by_model_or_refuse_in_one_line(board: Board, tmp_path: Path) -> None:
    write_all(board, board.example_rows, tmp_path)
    with pytest.raises(DataError, match=r"is a board of several starting models \(base, small<script>\): give boards of one"):
        LoadedBoard.read(tmp_path)
    assert [item.metric for item in analyse_board(board, Target())] == ["base: gold/reward", f"{EVIL}: gold/reward"]
    worse = joined({**LIFTS, EVIL: {**LIFTS[EVIL], "ipo": 0.5}})
    differences = changes(board, worse)
    assert not changes(board, board)
    assert any(
        f"{EVIL}/ipo" in str(change) and "place" in str(change) for _, listed in differences.sections() for change in listed
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda board: board["rows"][0].pop("model"), "should begin with the label of its starting model"),
        (lambda board: board["rows"][0].update(method="dpo"), "should begin with the label of its starting model"),
        (lambda board: board.pop("across"), "`models` and `across` go together"),
        (lambda board: board.pop("models"), "`models` and `across` go together"),
        (lambda board: board["models"].append(board["models"][0]), "two starting models are called 'base'"),
        (lambda board: board["models"][0].update(label="a/b"), "it has no `/`"),
    ],
)
def test_a_board_whose_models_do_not_fit_is_refused(board: Board, change: Any, message: str, tmp_path: Path) -> None:
    content = json.loads(board.to_json())
    change(content)
    (tmp_path / "board.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        Board.read(tmp_path)


def test_rows_that_share_no_seed_or_question_are_not_ordered() -> None:
    rows = {model: results(by_row) for model, by_row in LIFTS.items()}
    for result in rows[EVIL]:
        moved = {
            seed + 10: [replace(score, example=f"other{score.example}") for score in scores]
            for seed, scores in result.scores["gold"].items()
        }
        object.__setattr__(result, "scores", {"gold": moved})
    board = join_models({model: board_of(listed, model) for model, listed in rows.items()}, rows, SharingFacts())
    assert board.across is not None and board.across.orders == () and board.across.gains == ()
    assert "Too few rows have gold/reward under all starting models" in board.summary
