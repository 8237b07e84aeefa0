"""The first place: which rows may be the best, in every form of the board, and what the looks of added seeds say of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from harness.api.types import Metric, Score
from harness.board import Board, RowResult, build_board
from harness.board.diff import changes
from harness.board.entries import FirstPlaceEntry
from harness.board.statistics import Pairs, Values, compare_all, may_be_best, pairs
from harness.board.verify import verify
from harness.board.views.latex import latex_text, to_latex
from harness.board.views.markdown import markdown_text, to_markdown
from harness.board.views.page import to_html
from harness.board.views.terminal import print_table

KEY = "e/m"
METRICS = {"e": [Metric("m", "A score", primary=True), Metric("other", "Another score")]}
LIFTS = {"base": 0.0, "one": 1.06, "two": 1.0, "low": -1.0}


def row(label: str, lift: float, seeds: Sequence[int] = (0, 1, 2), kind: Any = "measured", judge: str = "") -> RowResult:
    """Return a row whose prompts are as hard as those of the others."""
    hard, scores = np.random.default_rng(1).normal(size=40), {}
    for seed in seeds:
        rng = np.random.default_rng([seed, *label.encode()])
        values = hard + lift + rng.normal() * 0.03 + rng.normal(size=40) * 0.2
        scores[seed] = [Score(f"p{i}", name, float(value)) for i, value in enumerate(values) for name in ("m", "other")]
    judges = {"judges": {"e": {"model": judge, "versions": [judge]}}} if judge else {}
    return RowResult(label, None, None, 1, kind, {"e": scores}, {}, {}, judges)  # type: ignore[arg-type]


def board_of(*more: RowResult, seeds: Sequence[int] = (0, 1, 2), config: Any = None, metrics: Any = None) -> Board:
    rows = [*(row(label, lift, seeds) for label, lift in LIFTS.items()), *more]
    shared = {"name": "b", "description": "", "examples": [], "sharing": {}, "created": "2026-01-01", "warnings": []}
    return build_board(config=config or {}, baseline="base", rows=rows, metrics=metrics or METRICS, **shared)  # type: ignore[arg-type]


def place_of(board: Board, key: str = KEY) -> FirstPlaceEntry:
    place = board.first_place(key)
    assert place is not None
    return place


@pytest.fixture(scope="module")
def board() -> Board:
    return board_of(row("oracle", 3.0, kind="control"), row("again", 0.0, (7, 8, 9), kind="null"))


def test_the_near_rows_may_be_the_best_and_the_far_ones_not(board: Board) -> None:
    place = place_of(board)
    assert (place.best, place.runner_up, place.may_be_best) == ("one", "two", ("one", "two"))
    assert place.ranks == {"one": (1, 2), "two": (1, 2), "base": (3, 3), "low": (4, 4)}
    means = {label: entry.scores[KEY].mean for label in ("one", "two") if (entry := board.row(label))}
    assert place.ahead == pytest.approx(means["one"] - means["two"])
    assert 0.05 < place.p <= 1 and place.left_out is None and place.one_seed is None
    assert board.analysis is not None and set(board.analysis.first_place or {}) == {KEY}  # of primary metrics alone


def test_a_clear_winner_is_alone(tmp_path: Path) -> None:
    board = board_of(row("far", 3.0))
    place = place_of(board)
    assert place.may_be_best == ("far",) and place.p < 0.05 and place.is_decided
    assert board.first_places() == [f"Best on m at 95%: far alone. far is ahead of one by {place.ahead:.3f} (p < 0.001)."]
    assert board.answer is not None and board.answer.verdict == "sure"
    board.write(tmp_path)
    assert verify(tmp_path) == [] and Board.read(tmp_path).first_places() == board.first_places()


def test_a_board_that_claims_another_first_place_does_not_hold(board: Board, tmp_path: Path) -> None:
    lie = place_of(board).model_copy(update={"may_be_best": ("one",)})
    analysis = board.analysis.model_copy(update={"first_place": {KEY: lie}})  # type: ignore[union-attr]
    board.model_copy(update={"analysis": analysis}).write(tmp_path)
    assert any("analysis: first_place e/m may_be_best" in problem for problem in verify(tmp_path))


def test_a_board_of_the_methods_before_holds_without_it(board: Board, tmp_path: Path) -> None:
    older = {
        "analysis": board.analysis.model_copy(update={"first_place": None}),  # type: ignore[union-attr]
        "statistics": board.statistics.model_copy(update={"methods": 3}),
    }
    old = board.model_copy(update=older)
    old.write(tmp_path)
    assert verify(tmp_path) == [] and old.first_places() == []
    assert old.answer is not None and old.answer.first_place is None
    assert any(change.what == f"may be best on {KEY}" for change in changes(old, board).order)


def test_it_stands_in_every_form(board: Board) -> None:
    out = io.StringIO()
    print_table(board, Console(file=out, width=120))
    sentences = board.first_places()
    assert sentences[0].startswith("May be best on m at 95%: one, two. one is ahead of two by 0.0")
    assert sentences[1:] == ["Controls and null rows stand beside the ranking and do not compete."]
    for sentence in sentences:
        assert sentence in " ".join(out.getvalue().split())
        assert markdown_text(sentence) in to_markdown(board) and latex_text(sentence) in to_latex(board)
        assert f"<p>{sentence}</p>" in to_html(board, [])
    assert "| 1 (1–2) | one |" in to_markdown(board)


def test_a_metric_that_should_be_small_is_turned() -> None:
    place = place_of(board_of(metrics={"e": [Metric("m", "A loss", higher_is_better=False, primary=True)]}))
    assert (place.may_be_best, place.runner_up) == (("low",), "base") and place.ahead > 0


def test_a_metric_without_a_direction_has_no_first_place() -> None:
    assert board_of(metrics={"e": [Metric("m", "Words", higher_is_better=None, primary=True)]}).first_places() == []


def test_of_one_seed_it_says_that_it_is_about_these_trainings() -> None:
    board = board_of(row("far", 3.0, (0,)), seeds=(0,))
    place = place_of(board)
    assert place.one_seed and place.may_be_best == ("far",) and not place.is_decided
    assert board.first_places()[0].startswith("Best on m at 95%, of these trainings alone and over prompts alone: far alone.")
    assert board.answer is not None and board.answer.verdict == "one training"


@pytest.mark.parametrize("kind", ["checkpoint", "imported", "measured"])
def test_a_row_without_sampled_seeds_is_left_out_where_others_have_some(kind: str) -> None:
    place = place_of(board_of(row("elsewhere", 9.0, (5,), kind=kind)))
    assert place.may_be_best == ("one", "two") and place.left_out == {"elsewhere": "no seeds were sampled"}
    assert place.sentence("m").endswith(" Left out (no seeds were sampled): elsewhere.")


def test_models_from_elsewhere_alone_are_compared_over_prompts() -> None:
    rows = [row(label, lift, (0,), kind="imported") for label, lift in LIFTS.items()]
    shared = {"name": "b", "description": "", "examples": [], "sharing": {}, "created": "", "warnings": []}
    board = build_board(config={}, baseline="base", rows=rows, metrics=METRICS, **shared)  # type: ignore[arg-type]
    assert place_of(board).one_seed and "low" not in place_of(board).may_be_best


def test_a_row_that_another_judge_marked_is_left_out() -> None:
    rows = [row(label, lift, judge="other" if label == "one" else "judge") for label, lift in LIFTS.items()]
    shared = {"name": "b", "description": "", "examples": [], "sharing": {}, "created": "", "warnings": []}
    board = build_board(config={}, baseline="base", rows=rows, metrics=METRICS, **shared)  # type: ignore[arg-type]
    assert place_of(board).left_out == {"one": "another judge"} and place_of(board).may_be_best == ("two",)


def test_rows_with_holes_and_other_seeds_are_compared_as_whole_ones_are() -> None:
    """One value more or less changes little; the way for whole tables and the way for others are one."""
    labels = list(LIFTS)
    whole = [Values.from_scores(row(label, lift).scores["e"], "m") for label, lift in LIFTS.items()]
    again = [replace(values, questions=tuple(f"q{i}" for i in range(40))) for values in whole]
    fast, slow = compare_all(whole), compare_all(again)
    np.testing.assert_allclose(slow.p, fast.p, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(slow.p_own, fast.p_own, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(fast.p, pairs(np.stack([values.values for values in whole])).p)
    holed = whole[0].values.copy()
    holed[1, 3] = np.nan
    fewer = [replace(whole[0], values=holed), whole[1].of_seeds((0, 1)), *whole[2:]]
    compared = compare_all(fewer)
    assert may_be_best(compared).tolist() == [label in ("one", "two") for label in labels]
    assert compared.p[0, 2] == pytest.approx(fast.p[0, 2], rel=0.5) and compared.p[0, 2] != fast.p[0, 2]


def test_rows_without_a_common_example_exclude_neither() -> None:
    one, two = (Values((f"{name}0", f"{name}1"), np.full((2, 2), value)) for name, value in (("a", 0.0), ("b", 9.0)))
    assert may_be_best(compare_all([one, two])).all()


def test_rows_that_do_not_compete_exclude_nobody() -> None:
    p = np.array([[1.0, 1e-9], [1.0, 1.0]])
    alone = np.array([False, True])
    assert may_be_best(Pairs(p, p)).tolist() == [True, False]
    assert may_be_best(Pairs(p, p), competing=alone).tolist() == [False, True]


def test_with_added_seeds_it_is_what_the_looks_decided() -> None:
    metrics = {"e": [Metric("m", "A score", primary=True), Metric("other", "Another score", primary=True)]}
    config = {"seeds": {"until": "decided", "start": 2, "most": 4}}
    board = board_of(row("oracle", 3.0, (0, 1, 2, 3), kind="control"), seeds=(0, 1, 2, 3), config=config, metrics=metrics)
    added = board.statistics.sequential
    assert added is not None and set(added.may_be_best) == set(place_of(board).may_be_best) == {"one", "two"}
    assert place_of(board, "e/other").may_be_best == place_of(board).may_be_best
    fixed = board_of(seeds=(0, 1, 2, 3), metrics=metrics)
    assert place_of(board).p >= place_of(fixed).p
