"""Seeds added where they decide: what the looks at made-up scores say, and how a board shows and verifies them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.api.types import Metric, Score
from harness.board import Board, RowResult, build_board
from harness.board.build import LoadedBoard, look
from harness.board.entries import Delta, SequentialEntry
from harness.board.merge import merge
from harness.board.sequential import Decisions, PromptsDesign, SeedsDesign, design_of
from harness.board.verify import VerifyOutcome, check, verify
from harness.board.views.markdown import to_markdown
from harness.board.views.page import write_all

RULE = {"seeds": {"until": "decided", "start": 2, "most": 6}}
METRICS = {"e": [Metric("m", "A score", primary=True), Metric("other", "Another score")]}
QUESTIONS, SEED_SPREAD = 60, 0.08


def scores_of(label: str, lift: float, seeds: int, metrics: Sequence[str] = ("m", "other")) -> dict[int, list[Score]]:
    """Return scores of seeds 0, 1, … that do not change when there are more seeds; questions are shared by all rows."""
    hard = np.random.default_rng(1).normal(size=QUESTIONS)
    found = {}
    for seed in range(seeds):
        rng = np.random.default_rng([seed, *label.encode()])
        level = lift + rng.normal() * SEED_SPREAD
        values = hard + level + rng.normal(size=QUESTIONS) * 0.3
        found[seed] = [Score(f"p{i}", metric, float(value)) for i, value in enumerate(values) for metric in metrics]
    return found


def row(label: str, lift: float, seeds: int, kind: Any = "measured", **scored: Any) -> RowResult:
    scores = {"e": scores_of(label, lift, seeds, **scored)}
    return RowResult(label, None, None, 1, kind, scores, {}, {}, {})  # type: ignore[arg-type]


def looked(rows: Sequence[RowResult], config: Mapping[str, Any] = RULE, metrics: Any = METRICS) -> Decisions:
    design = SeedsDesign.of(config)
    assert design is not None
    return look(design, "base", rows, metrics)


def run(
    lifts: Mapping[str, float], config: Mapping[str, Any] = RULE, metrics: Any = METRICS
) -> tuple[Decisions, list[RowResult]]:
    """Add seeds to rows as a run does, until none is open."""
    seeds = dict.fromkeys(lifts, config["seeds"]["start"])
    while True:
        rows = [row(label, lift, seeds[label]) for label, lift in lifts.items()]
        decided = looked(rows, config, metrics)
        assert decided.counts == seeds
        if not decided.open:
            return decided, rows
        last = max(seeds.values())
        assert all(seeds[label] == last for label in decided.open)  # none is opened again
        seeds |= dict.fromkeys(decided.open, last + 1)


def board_of(rows: Sequence[RowResult], config: Mapping[str, Any] = RULE, **more: Any) -> Board:
    shared = {"name": "b", "description": "", "examples": [], "sharing": {}, "created": "2026-01-01", "warnings": []}
    return build_board(config=config, baseline="base", rows=rows, metrics=METRICS, **shared, **more)


@pytest.mark.parametrize(
    "seeds", [[0, 1], {"until": "dawn"}, {"until": "decided", "start": "2"}, {"until": "decided", "most": 1}, "x"]
)
def test_a_board_whose_rule_is_none_is_read_as_one_with_a_list(seeds: Any) -> None:
    assert SeedsDesign.of({"seeds": seeds}) is None


def test_clear_rows_stop_early_and_close_ones_go_on() -> None:
    decided, _ = run({"base": 0.0, "clear": 3.0, "close": 0.16, "poor": -3.0})
    assert decided.counts["poor"] < decided.counts["close"] and decided.counts["clear"] < 6
    assert {"clear", "poor"} <= decided.significant
    assert decided.may_be_best == ("clear",)


def test_every_row_gets_the_seed_that_decides_between_the_best() -> None:
    """Both are far above the baseline, and near each other: the baseline stops, and the two go on."""
    decided, _ = run({"base": 0.0, "one": 3.0, "two": 3.12})
    assert decided.counts["one"] == decided.counts["two"] > decided.counts["base"]
    assert decided.significant == {"base", "one", "two"}


def test_a_metric_that_should_be_small_is_turned() -> None:
    losses = {"e": [Metric("m", "A loss", higher_is_better=False, primary=True)]}
    decided, _ = run({"base": 0.0, "large": 3.0, "small": -3.0}, metrics=losses)
    assert decided.may_be_best == ("small",)


def test_reference_rows_compete_for_no_first_place() -> None:
    rows = [row("base", 0, 6), row("a", 0.2, 6), row("oracle", 3.0, 6, "control"), row("null", 0.0, 6, "null")]
    decided = looked(rows)
    assert decided.may_be_best
    assert not {"oracle", "null"} & set(decided.may_be_best)
    assert ("oracle", "e/m") in decided.p


def test_a_failed_row_takes_no_part_and_stops_no_other() -> None:
    rows = [row("base", 0, 2), row("a", 0.2, 2), replace(row("b", 0.2, 2), scores={}, failed="it broke")]
    decided = looked(rows)
    assert decided.open == {"a", "base"} and set(decided.counts) == {"a", "base"}


def test_without_the_baseline_nothing_is_open() -> None:
    rows = [replace(row("base", 0, 2), scores={}, failed="it broke"), row("a", 0.2, 2), row("b", 0.4, 2)]
    decided = looked(rows)
    assert not decided.open


def test_answers_that_could_not_be_judged_leave_the_others_to_decide() -> None:
    rows = [row("base", 0, 2), row("a", 3.0, 2)]
    whole = looked(rows)
    scores = {seed: [s for s in listed if (s.example, seed) != ("p3", 1)] for seed, listed in rows[1].scores["e"].items()}
    holed = looked([rows[0], replace(rows[1], scores={"e": scores})])
    assert holed.p["a", "e/m"][0] != whole.p["a", "e/m"][0]
    assert holed.p["a", "e/m"][0] == pytest.approx(whole.p["a", "e/m"][0], rel=0.5)


def test_a_row_open_for_one_metric_is_looked_at_on_all() -> None:
    """The p-values of metrics that are not primary hold at the last look too."""
    decided, rows = run({"base": 0.0, "close": 0.16})
    assert decided.counts["close"] > 2
    assert decided.p["close", "e/other"] == decided.p["close", "e/m"]
    before = looked([row(r.label, lift, 2) for r, lift in zip(rows, (0.0, 0.16), strict=True)])
    assert decided.p["close", "e/m"][0] <= before.p["close", "e/m"][0]


def test_p_values_of_looks_are_larger_than_those_of_a_fixed_number() -> None:
    rows = [row("base", 0, 4), row("a", 0.16, 4), row("b", 0.3, 4)]
    looked, fixed = board_of(rows), board_of(rows, {"seeds": [0, 1, 2, 3]})
    for label in ("a", "b"):
        one, other = looked.row(label), fixed.row(label)
        assert one is not None and other is not None
        delta, given = one.delta("e/m"), other.delta("e/m")
        assert delta is not None and given is not None
        assert delta.p > given.p_design > 0  # type: ignore[operator]
        assert delta.mean == given.mean


def test_stars_of_a_board_are_the_rows_that_the_looks_tell_apart() -> None:
    """With two seeds the row's own variance is known too badly for any star, however small p is with that of all rows."""
    decided, rows = run({"base": 0.0, "clear": 3.0, "close": 0.16, "poor": -3.0})
    adjusted = {label: delta.p_adjusted for label, delta in deltas(board_of(rows)).items()}
    assert {label for label, p in adjusted.items() if p is not None and p < 0.05} == decided.significant - {"base"}
    two = deltas(board_of([row("base", 0, 2), row("clear", 3.0, 2), row("poor", -3.0, 2)]))
    assert min(delta.p for delta in two.values()) < 0.05
    assert all(delta.p_adjusted == 1 for delta in two.values())


def deltas(board: Board) -> dict[str, Delta]:
    return {r.method: delta for r in board.rows if (delta := r.delta("e/m")) is not None}


def test_a_board_says_what_was_saved_and_holds(tmp_path: Path) -> None:
    decided, rows = run({"base": 0.0, "clear": 3.0, "close": 0.16, "poor": -3.0})
    board = board_of(rows, trainings=(9, 24))
    board.sealed().write(tmp_path / "sealed")
    assert check(tmp_path / "sealed").outcome() is VerifyOutcome.verified
    added = board.statistics.sequential
    assert added is not None
    assert (added.seeds, added.may_be_best) == (dict(decided.counts), ("clear",))
    assert "9 trainings in place of 24 (62% saved)" in added.sentence
    assert not any("seeds of e/m: those that both rows have" in warning for warning in board.warnings)
    write_all(board, [], tmp_path)
    assert verify(tmp_path) == []
    assert added.sentence in (tmp_path / "index.html").read_text()
    assert added.sentence in to_markdown(board).replace("\\", "")
    assert Board.read(tmp_path).statistics.sequential == added


def test_a_board_that_claims_other_looks_does_not_hold(tmp_path: Path) -> None:
    _, rows = run({"base": 0.0, "clear": 3.0, "close": 0.16})
    board = board_of(rows)
    added = board.statistics.sequential
    assert added is not None
    lie = added.model_copy(update={"may_be_best": ("close",)})
    write_all(board.model_copy(update={"statistics": board.statistics.model_copy(update={"sequential": lie})}), [], tmp_path)
    assert any("statistics.sequential: may_be_best" in problem for problem in verify(tmp_path))


def test_a_board_with_a_list_of_seeds_has_no_looks() -> None:
    board = board_of([row("base", 0, 2), row("a", 0.1, 2)], {"seeds": [0, 1]})
    assert board.statistics.sequential is None
    assert "sequential" not in board.model_dump(mode="json")["statistics"]


@pytest.mark.parametrize(
    ("stopped", "said"),
    [("decided", "every place is decided"), ("most", "have all 6 seeds"), ("futile", "would hardly decide the rest")],
)
def test_why_it_stopped(stopped: Any, said: str) -> None:
    entry = SequentialEntry(start=2, most=6, seeds={"a": 2, "b": 6}, stopped=stopped)
    assert said in entry.sentence and "2 to 6 seeds" in entry.sentence and "saved" not in entry.sentence


def test_boards_of_one_rule_merge_and_keep_it(tmp_path: Path) -> None:
    boards = []
    for name, lift in (("a", 0.16), ("b", 3.0)):
        _, rows = run({"base": 0.0, name: lift})
        write_all(board_of(rows), [], tmp_path / name)
        boards.append(LoadedBoard.read(tmp_path / name))
    merged = merge(boards, name="ab", created="2026-01-02")
    assert merged.statistics.sequential is not None
    assert set(merged.statistics.sequential.seeds) == {"base", "a", "b"}


def test_boards_of_several_rules_merge_with_a_warning(tmp_path: Path) -> None:
    _, rows = run({"base": 0.0, "a": 0.16})
    write_all(board_of(rows), [], tmp_path / "a")
    write_all(board_of([row("base", 0, 2), row("b", 0.3, 2)], {"seeds": [0, 1]}), [], tmp_path / "b")
    merged = merge([LoadedBoard.read(tmp_path / name) for name in "ab"], name="ab", created="2026-01-02")
    assert merged.statistics.sequential is None
    assert merged.config["seeds"] == sorted({seed for r in rows for seed in r.scores["e"]})
    assert any("seeds were added where they decide" in warning for warning in merged.warnings)


# Prompts that are added where they decide


LOOKS = (20, 40, 60)
NAMES = [f"p{i}" for i in range(QUESTIONS)]
LIFTS = {"base": 0.0, "clear": 3.0, "close": 0.25, "poor": -3.0}


def prompts_design(looks: int) -> PromptsDesign:
    blocks = zip((0, *LOOKS), LOOKS[:looks], strict=False)
    return PromptsDesign(20, 60, frozenset({"e"}), tuple(tuple(NAMES[first:last]) for first, last in blocks))


def with_prompts(label: str, lift: float, prompts: int, seeds: int = 4) -> RowResult:
    whole = row(label, lift, seeds)
    kept = {seed: [score for score in listed if score.example in NAMES[:prompts]] for seed, listed in whole.scores["e"].items()}
    return replace(whole, scores={"e": kept})


def run_prompts(lifts: Mapping[str, float]) -> tuple[Decisions, list[RowResult]]:
    """Add prompts to rows as a run does, until none is open."""
    prompts = dict.fromkeys(lifts, LOOKS[0])
    for number in range(len(LOOKS)):
        rows = [with_prompts(label, lift, prompts[label]) for label, lift in lifts.items()]
        decided = look(prompts_design(number + 1), "base", rows, METRICS)
        assert decided.counts == prompts
        if not decided.open:
            return decided, rows
        assert all(prompts[label] == LOOKS[number] for label in decided.open)  # none is opened again
        prompts |= dict.fromkeys(decided.open, LOOKS[number + 1])
    raise AssertionError("a row is open after the last look")


def prompts_board(decided: Decisions, rows: Sequence[RowResult]) -> Board:
    assert isinstance(decided.design, PromptsDesign)
    return board_of(rows, {"seeds": [0, 1, 2, 3]}, prompts=decided.design)


def test_prompts_are_added_to_close_rows_alone(tmp_path: Path) -> None:
    decided, rows = run_prompts(LIFTS)
    assert decided.counts["clear"] == decided.counts["poor"] == 20 < decided.counts["close"] == decided.counts["base"]
    assert decided.may_be_best == ("clear",) and {"clear", "poor"} <= decided.significant
    board = prompts_board(decided, rows)
    board.sealed().write(tmp_path / "sealed")
    assert check(tmp_path / "sealed").outcome() is VerifyOutcome.verified
    added = board.statistics.sequential_prompts
    assert added is not None and added.prompts == decided.counts
    place = board.first_place("e/m")
    assert place is not None and place.may_be_best == added.may_be_best and place.runner_up == "close"
    assert added.evaluations == 4 * sum(decided.counts.values()) and added.evaluations_fixed == 4 * 4 * 60
    assert "20 for clear, poor" in added.sentence and "saved" in added.sentence
    assert all(delta.n == decided.counts[label] for label, delta in deltas(board).items())
    write_all(board, [], tmp_path)
    assert verify(tmp_path) == []
    assert added.sentence in (tmp_path / "index.html").read_text()
    assert added.sentence in to_markdown(board).replace("\\", "")
    assert design_of(board.config, Board.read(tmp_path).statistics.sequential_prompts) == decided.design


def test_a_fit_over_all_rows_does_not_say_which_prompts_a_row_has() -> None:
    decided, rows = run_prompts(LIFTS)
    assert isinstance(decided.design, PromptsDesign)
    metrics = {"e": [*METRICS["e"], Metric("strength", "of a fit", fit="rows")]}
    values = [Score(name, "strength", float(number)) for number, name in enumerate(NAMES)]
    fitted = [replace(r, scores={"e": {seed: [*listed, *values] for seed, listed in r.scores["e"].items()}}) for r in rows]
    assert look(decided.design, "base", fitted, metrics).counts == decided.counts


def test_rows_tell_of_seeds_on_the_same_prompts() -> None:
    """A row that stopped has the difference that a board on its prompts alone gives it."""
    board = deltas(prompts_board(*run_prompts(LIFTS)))
    alone = deltas(board_of([with_prompts(label, lift, 20) for label, lift in LIFTS.items()], {"seeds": [0, 1, 2, 3]}))
    for label in ("clear", "poor"):
        assert (board[label].n, board[label].mean, board[label].low) == (20, alone[label].mean, alone[label].low)
        assert board[label].p_flips == alone[label].p_flips


def test_rows_with_other_prompts_are_ordered_by_their_differences() -> None:
    """The first prompts may be easier than the rest: means over other prompts do not compare."""
    easy = {name: 20.0 if number < 20 else 0.0 for number, name in enumerate(NAMES)}
    decided, rows = run_prompts({"base": 0.0, "poor": -3.0, "close": 0.25})
    shifted = [
        {seed: [replace(s, value=s.value + easy[s.example]) for s in listed] for seed, listed in r.scores["e"].items()}
        for r in rows
    ]
    board = prompts_board(decided, [replace(r, scores={"e": scores}) for r, scores in zip(rows, shifted, strict=True)])
    means = {r.method: r.scores["e/m"].mean for r in board.rows}
    assert means["poor"] > means["close"]
    assert [r.method for r in board.rows].index("poor") == 2


@pytest.mark.parametrize("lie", [{"may_be_best": ("close",)}, {"blocks": ((*NAMES[:19], "p59"),)}, {"evaluators": ()}])
def test_a_board_that_claims_other_prompts_does_not_hold(tmp_path: Path, lie: dict[str, Any]) -> None:
    board = prompts_board(*run_prompts(LIFTS))
    added = board.statistics.sequential_prompts
    assert added is not None
    claimed = board.statistics.model_copy(update={"sequential_prompts": added.model_copy(update=lie)})
    write_all(board.model_copy(update={"statistics": claimed}), [], tmp_path)
    assert verify(tmp_path) != []


def test_boards_with_different_prompts_merge(tmp_path: Path) -> None:
    config, boards = {"seeds": [0, 1, 2, 3], "evaluation": {"until": "decided", "start": 20, "most": 60}}, []
    for name, lift in (("close", 0.25), ("clear", 3.0)):
        decided, rows = run_prompts({"base": 0.0, name: lift})
        assert isinstance(decided.design, PromptsDesign)
        write_all(board_of(rows, config, prompts=decided.design), [], tmp_path / name)
        boards.append(LoadedBoard.read(tmp_path / name))
    merged = merge(boards, name="ab", created="2026-01-02")
    added = merged.statistics.sequential_prompts
    assert added is not None and added.prompts["base"] == added.prompts["close"] > added.prompts["clear"] == 20
    write_all(merged, [], tmp_path / "ab")
    assert verify(tmp_path / "ab") == []
