"""The question that a config declares: which tests are one family, and which rows are practically equal."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from harness.api.types import Imported, Metric, Score
from harness.board import Board, RowResult, build_board
from harness.board.build import LoadedBoard, look
from harness.board.declared import Declared
from harness.board.diff import changes
from harness.board.entries import Delta
from harness.board.imports import ImportRequest, import_rows
from harness.board.merge import merge
from harness.board.power import Target, analyse_board
from harness.board.sequential import SeedsDesign
from harness.board.verify import verify
from harness.board.views.latex import to_latex
from harness.board.views.markdown import to_markdown
from harness.board.views.page import numbers, to_html
from harness.board.views.terminal import print_table

METRICS = {"e": [Metric("m", "A score", primary=True), Metric("other", "Another score"), Metric("third", "A third")]}
LIFTS = {"base": 0.0, "near": 0.02, "middle": 0.3, "far": 2.0}
MARGIN = {"statistics": {"equivalent_within": {"e/m": 0.3}}}


def row(label: str, lift: float, seeds: Sequence[int] = (0, 1, 2)) -> RowResult:
    hard, scores = np.random.default_rng(1).normal(size=60), {}
    for seed in seeds:
        rng = np.random.default_rng([seed, *label.encode()])
        values = hard + lift + rng.normal() * 0.02 + rng.normal(size=60) * 0.2
        scores[seed] = [Score(f"p{i}", name, float(v)) for i, v in enumerate(values) for name in ("m", "other", "third")]
    return RowResult(label, None, None, 1, "measured", {"e": scores}, {}, {}, {})  # type: ignore[arg-type]


def board_of(config: Any, seeds: Sequence[int] = (0, 1, 2), name: str = "b", labels: Sequence[str] = tuple(LIFTS)) -> Board:
    rows = [row(label, LIFTS[label], seeds) for label in labels]
    shared = {"description": "", "examples": [], "sharing": {}, "created": "2026-01-01", "warnings": []}
    return build_board(name=name, config=config, baseline="base", rows=rows, metrics=METRICS, **shared)  # type: ignore[arg-type]


def delta_of(board: Board, label: str, key: str = "e/m") -> Delta:
    entry = board.row(label)
    delta = entry.delta(key) if entry else None
    assert delta is not None
    return delta


def families(board: Board) -> dict[str, tuple[str, ...]]:
    return {family.name: family.metrics for family in board.statistics.families or ()}


@pytest.fixture(scope="module")
def equal() -> Board:
    return board_of(MARGIN)


def test_declared_metrics_are_the_family_and_the_first_orders_the_board(tmp_path: Path) -> None:
    board = board_of({"statistics": {"primary": ["e/third", "e/other"]}})
    assert [metric.key for metric in board.primary] == ["e/third", "e/other"]
    assert families(board) == {"primary metrics": ("e/third", "e/other"), "other metrics": ("e/m",)}
    assert board.statistics.declared and board.answer is not None and board.answer.metric.key == "e/third"
    assert set(board.analysis.first_place or {}) == {"e/third", "e/other"}  # type: ignore[union-attr]
    assert "The primary metrics are declared in the config." in to_markdown(board)
    assert [result.metric for result in analyse_board(board, Target())] == ["e/third", "e/other"]
    assert analyse_board(board, Target())[0].alpha == pytest.approx(0.05 / 6)
    board.write(tmp_path)
    assert verify(tmp_path) == []
    loaded = LoadedBoard.read(tmp_path)
    assert loaded.lasting_warnings == []
    assert families(merge([loaded], name="again", created="")) == families(board)


def test_without_a_declaration_they_are_the_evaluators_own() -> None:
    board = board_of({})
    assert families(board)["primary metrics"] == ("e/m",) and board.statistics.declared is None
    assert "each evaluator's own, since the config declares none" in to_markdown(board)


def test_a_board_whose_primary_metrics_are_not_the_declared_ones_does_not_hold(tmp_path: Path) -> None:
    board = board_of({"statistics": {"primary": ["e/other"]}})
    board.model_copy(update={"config": {"statistics": {"primary": ["e/m"]}}}).write(tmp_path)
    problems = verify(tmp_path)
    assert any(problem.startswith("metrics: the primary ones") for problem in problems)
    board.model_copy(update={"config": {}}).write(tmp_path)
    assert any(problem.startswith("statistics: `declared`") for problem in verify(tmp_path))


def test_a_declared_metric_that_no_row_has_is_a_warning() -> None:
    board = board_of({"statistics": {"primary": ["e/gone"]}})
    assert "The config's `statistics` names e/gone, which no row has." in board.warnings
    assert families(board)["primary metrics"] == ("e/m",)


@pytest.mark.parametrize("section", [None, "x", {"primary": "e/m"}, {"equivalent_within": {"e/m": -1, "e/other": "x"}}])
def test_a_board_from_elsewhere_whose_section_is_none_declares_nothing(section: Any) -> None:
    assert Declared.of({"statistics": section}) == Declared()


def test_added_seeds_are_asked_for_the_declared_metrics() -> None:
    rows = [row(label, lift, (0, 1, 2)) for label, lift in LIFTS.items()]
    design = SeedsDesign(2, 3)
    one = look(design, "base", rows, METRICS)
    two = look(design, "base", rows, METRICS, {"statistics": {"primary": ["e/m", "e/third"]}})
    assert set(one.pairs) == {"e/m"} and set(two.pairs) == {"e/m", "e/third"}


def test_a_row_is_practically_equal_where_both_tests_reject(equal: Board) -> None:
    assert equal.statistics.equivalent_within == {"e/m": 0.3}
    verdicts = {label: delta_of(equal, label).is_equivalent for label in ("near", "middle", "far")}
    assert verdicts == {"near": True, "middle": False, "far": False}
    near = delta_of(equal, "near")
    assert near.mark == "≡" and near.p_equivalent is not None and 0 < near.p_equivalent < 0.05
    assert "≡" not in delta_of(equal, "far").mark and delta_of(equal, "near", "e/other").p_equivalent is None


def test_a_margin_is_tested_as_often_as_there_are_rows(equal: Board) -> None:
    """Holm's correction: the p-value of the row in the middle is larger with others beside it."""
    alone = delta_of(board_of(MARGIN, labels=("base", "near")), "near").p_equivalent
    among = delta_of(equal, "near").p_equivalent
    assert alone is not None and among is not None and 0 < alone < among


def test_practical_equality_stands_in_every_form(equal: Board, tmp_path: Path) -> None:
    out = io.StringIO()
    print_table(equal, Console(file=out, width=120))
    sentence = "≡: practically equal to base on m, within ±0.300: near."
    page = to_html(equal, [])
    assert sentence in " ".join(out.getvalue().split()) and sentence in to_markdown(equal) and sentence in page
    assert re.search(r"near\s.*≡", out.getvalue()) and r"$\equiv$: practically equal" in to_latex(equal)
    place = next(place for place, entry in enumerate(equal.rows) if entry.method == "near")
    assert numbers(equal)["rows"][place][0][-2] == f"{delta_of(equal, 'near').p_equivalent:.3f}"  # type: ignore[index]
    equal.write(tmp_path)
    assert verify(tmp_path) == []
    other = board_of({"statistics": {"equivalent_within": {"e/m": 0.001}}})
    assert "No row is shown to be practically equal to base on m, within ±0.001." in to_markdown(other)
    kinds = dict(changes(other, equal).sections())
    assert any(change.after == "unclear, practically equal" for change in kinds["What may be said against the baseline"])
    assert [change.what for change in kinds["Settings"]] == ["statistics.equivalent_within.e/m"]


def test_nothing_is_practically_equal_with_one_seed() -> None:
    board = board_of(MARGIN, seeds=(0,))
    assert not delta_of(board, "near").is_equivalent
    assert "Practical equality on m, within ±0.300, is not stated: seeds were not sampled." in to_markdown(board)


def test_looks_make_the_test_of_equality_stricter(equal: Board) -> None:
    looked = board_of({**MARGIN, "seeds": {"until": "decided", "start": 2, "most": 3}})
    p, fixed = delta_of(looked, "near").p_equivalent, delta_of(equal, "near").p_equivalent
    assert p is not None and fixed is not None and p == pytest.approx(2 * fixed)


def test_merging_boards_of_other_declarations_is_a_warning(tmp_path: Path) -> None:
    loaded = []
    for name, config in (("one", MARGIN), ("two", {"statistics": {"primary": ["e/other"]}}), ("three", MARGIN)):
        board_of(config, name=name).write(tmp_path / name)
        loaded.append(LoadedBoard.read(tmp_path / name))
    merged = merge(loaded[:2], name="both", created="")
    assert any(text.startswith("statistics is ") for text in merged.warnings)
    assert merged.statistics.equivalent_within == {"e/m": 0.3} and families(merged)["primary metrics"] == ("e/m",)
    same = merge([loaded[0], loaded[2]], name="both", created="")
    assert not any(text.startswith("statistics is ") for text in same.warnings)


def test_rows_imported_onto_a_board_leave_its_families_as_declared(tmp_path: Path) -> None:
    board_of({"statistics": {"primary": ["e/other"], "equivalent_within": {"e/m": 0.3}}}).write(tmp_path)
    scores = tuple(Score(f"p{i}", "x", float(i % 3)) for i in range(60))
    found = Imported("elsewhere", "foreign", (Metric("x", "A score", primary=True),), scores)
    board = import_rows([found], ImportRequest("tool", [], ""), "new", tmp_path)
    assert families(board)["primary metrics"] == ("e/other",) and board.statistics.equivalent_within == {"e/m": 0.3}
    assert [metric.key for metric in board.primary] == ["e/other"]
