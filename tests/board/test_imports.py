"""Other tools' results beside rows that are there."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from harness.api.types import Cost, Imported, Metric, Score
from harness.board import Board, RowResult, build_board
from harness.board.board import board_scores
from harness.board.facts import Provenance
from harness.board.imports import ImportRequest, import_rows
from harness.board.verify import verify
from harness.board.views.page import to_html
from harness.errors import DataError

METRIC = Metric("win_rate", "share of verdicts won", primary=True)
OTHER = Metric("score", "rating", primary=True)


def scores(values: list[float], metric: str = "win_rate") -> tuple[Score, ...]:
    return tuple(Score(f"q{number}", metric, value) for number, value in enumerate(values))


def imported(label: str, values: list[float], judge: str = "gpt-4", **facts: object) -> Imported:
    answers = {"q0": ("a question", "a target", f"{label}'s answer")}
    return Imported(label, "alpaca", (METRIC,), scores(values), judge=judge, facts=facts, answers=answers)


def request(**fields: object) -> ImportRequest:
    return ImportRequest(**{"tool": "alpaca-eval", "files": [], "created": "2026-01-01", **fields})  # type: ignore[arg-type]


A = imported("a", [0.0, 0.25, 0.5, 0.0] * 5)
B = imported("b", [1.0, 0.75, 1.0, 0.5] * 5)


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """A board with two rows that were trained here, with two seeds."""
    judges = {
        "judges": {"alpaca": {"model": "gpt-4", "versions": ["gpt-4"]}},
        "notes": {"alpaca": {"0": {"versions": {"arc": 1.0}, "shots": {"arc": 25}}}},
    }
    rows = [
        RowResult(label, "ranked", "dpo", 1, "measured", {"alpaca": {seed: scores([level, 0.5] * 10) for seed in (0, 1)}},
                  {seed: Cost(seconds=10.0, tokens_trained=5) for seed in (0, 1)}, {"pairs": 7.0}, judges)
        for label, level in (("sft", 0.25), ("dpo", 0.75))
    ]  # fmt: skip
    board = build_board(
        name="here", description="", config={"seeds": [0, 1]}, baseline="sft", rows=rows, metrics={"alpaca": [METRIC]},
        examples=(), sharing={"command": "harness compare"}, created="2026-01-01", warnings=("somebody said so",),
    )  # fmt: skip
    board.write(tmp_path / "run")
    return tmp_path / "run"


def test_a_board_of_imports_alone_is_compared_by_example(tmp_path: Path) -> None:
    board = import_rows([A, B], request(), "others")
    assert [(row.method, row.kind) for row in board.rows] == [("b", "imported"), ("a", "imported")]
    assert board.baseline == "a"
    score = board.rows[0].scores["alpaca/win_rate"]
    assert score.mean == pytest.approx(0.8125)
    assert score.delta is not None and score.delta.mean == pytest.approx(0.625) and score.delta.n == 20
    assert board.example_rows[0].answers == {"a": "a's answer", "b": "b's answer"}
    assert board.warnings == ()
    board.write(tmp_path)
    assert verify(tmp_path) == []
    page = to_html(board, board.example_rows)
    assert "measured elsewhere" in page and "no training" not in page


def test_results_of_two_tools_are_one_row(tmp_path: Path) -> None:
    import_rows([A, B], request(), "others").write(tmp_path)
    other = Imported("a", "bench", (OTHER,), scores([5.0, 7.0], "score"), judge="gpt-4")
    board = import_rows([other], request(tool="fastchat"), "others", tmp_path)
    row = board.row("a")
    assert row is not None
    assert set(row.scores) == {"alpaca/win_rate", "bench/score"}
    assert [entry["tool"] for entry in row.provenance["imported"]] == ["alpaca-eval", "fastchat"]
    assert set(row.provenance["judges"]) == {"alpaca", "bench"}
    with pytest.raises(DataError, match="'a' is already there with scores of alpaca: give this one another name with --label"):
        import_rows([A], request(), "others", tmp_path)
    again = import_rows([A], request(labels={"a": "a, again"}), "others", tmp_path)
    assert again.row("a, again") is not None


def test_single_answers_and_pairs_of_one_model_are_one_row() -> None:
    pairs = tuple(Score(f"q{number}:pair", "win_rate", 1.0) for number in range(4))
    single = Imported("a", "bench", (OTHER,), scores([5.0, 7.0], "score"), judge="gpt-4", facts={"show_result": {"turn_1": 6}})
    pair = Imported(
        "a", "bench", (METRIC,), pairs, judge="gpt-4", facts={"show_result": {"win": 4}, "opponents": {"pair": "b"}}
    )
    old = replace(single, label="b")
    board = import_rows([single, pair, old], request(baseline="b"), "others")
    row = board.row("a")
    assert row is not None and set(row.scores) == {"bench/score", "bench/win_rate"}
    assert row.provenance["judges"]["bench"]["versions"] == ["gpt-4"]
    assert row.provenance["notes"]["bench"]["0"]["show_result"] == {"turn_1": 6, "win": 4}
    assert row.scores["bench/score"].delta is not None
    assert len(row.provenance["imported"]) == 1


def test_beside_measured_rows_nothing_of_theirs_changes(measured: Path) -> None:
    before = Board.read(measured)
    board = import_rows([A], request(), "ignored", measured)
    assert (board.name, board.baseline, board.sharing) == (before.name, "sft", before.sharing)
    for row in before.rows:
        after = board.row(row.method)
        assert after is not None
        assert (after.cost, after.budget, after.seeds, after.provenance) == (row.cost, row.budget, row.seeds, row.provenance)
        assert after.scores["alpaca/win_rate"].mean == row.scores["alpaca/win_rate"].mean
    new = board.row("a")
    assert new is not None
    assert new.seeds == (2,)  # no seed of theirs: nothing is paired by seed
    delta = new.scores["alpaca/win_rate"].delta
    assert delta is not None and delta.n == 20 and delta.seeds == 0
    assert "somebody said so" in board.warnings
    board.write(measured)
    assert verify(measured) == []
    with pytest.raises(DataError, match="the row 'dpo' is already evaluated here"):
        import_rows([replace(A, label="dpo")], request(), "ignored", measured)


def test_another_judge_or_task_version_is_said(measured: Path) -> None:
    other = imported("c", [0.5, 1.0] * 10, judge="gpt-4o")
    board = import_rows([other], request(), "ignored", measured)
    assert any("c was judged by gpt-4o and sft by gpt-4 on alpaca: they are not compared" in text for text in board.warnings)
    mixed = import_rows([other], request(allow_mixed_judges=True), "ignored", measured)
    row = mixed.row("c")
    assert row is not None and row.scores["alpaca/win_rate"].delta is not None
    mixed.write(measured)
    assert verify(measured) == []
    shots = import_rows([imported("d", [0.5, 1.0], shots={"arc": 5})], request(), "ignored", measured).warnings
    assert any("d has shots 5 of arc and sft 25, by alpaca" in text for text in shots)
    old, new = imported("a", [0.5], versions={"arc": 1.0}, shots={"arc": 25}), imported("b", [0.5], versions={"arc": 2.0})
    said = import_rows([old, new], request(), "others").warnings
    assert any("b has versions 2.0 of arc and a 1.0, by alpaca" in text for text in said)


def test_numbers_without_examples_stand_beside_and_are_not_compared() -> None:
    bare = Imported("paper", "alpaca", (METRIC,), (Score("alpaca", "win_rate", 0.9),), whole=False)
    board = import_rows([A, bare], request(), "others")
    row = board.row("paper")
    assert row is not None and row.kind == "published"
    assert row.scores["alpaca/win_rate"].low is None and row.scores["alpaca/win_rate"].delta is None


def test_numbers_without_examples_are_never_values_of_a_row_that_has_examples(tmp_path: Path) -> None:
    bare = Imported("a", "other", (METRIC,), (Score("other", "win_rate", 0.9),), whole=False)
    import_rows([A, B], request(), "others").write(tmp_path)
    board = import_rows([bare], request(), "others", tmp_path)
    row = board.row("a (figures)")
    assert row is not None and row.kind == "published" and board.row("a").scores.keys() == {"alpaca/win_rate"}  # type: ignore[union-attr]
    assert row.scores["other/win_rate"].delta is None
    import_rows([bare], request(), "others").write(tmp_path)
    with pytest.raises(DataError, match=r"the row 'a' is already there without values per example: .* --label"):
        import_rows([A], request(), "others", tmp_path)


def test_what_a_measured_row_noted_once_holds_of_all_its_tasks(measured: Path) -> None:
    facts = {"versions": {"arc": 1.0}, "limit": {"arc": None}, "chat_template": {"arc": False}, "documents": {"arc": "9 (x)"}}
    assert not [
        text for text in import_rows([imported("c", [0.5], **facts)], request(), "x", measured).warnings if "arc" in text
    ]
    board = Board.read(measured)
    notes = {"versions": {"arc": 1.0}, "limit": 3, "chat_template": True, "documents": {"arc": "3 (y)"}}
    rows = [
        row.model_copy(update={"provenance": Provenance.read({**row.provenance, "notes": {"alpaca": {"0": notes}}})})
        for row in board.rows
    ]
    board.model_copy(update={"rows": tuple(rows)}).with_scores(board_scores(measured)).write(measured)
    said = [text for text in import_rows([imported("c", [0.5], **facts)], request(), "x", measured).warnings if "arc" in text]
    assert [text.partition(", by")[0] for text in said] == [
        "c has limit none of arc and sft 3",
        "c has chat_template no of arc and sft yes",
        "c has documents 9 (x) of arc and sft 3 (y)",
    ]


@pytest.mark.parametrize(("value", "shown"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf"), (1e200, r"1e\+200")])
def test_numbers_that_no_board_can_hold_are_refused_by_name(value: float, shown: str, tmp_path: Path) -> None:
    bare = Imported("paper", "alpaca", (METRIC,), (Score("alpaca", "win_rate", value),), whole=False)
    with pytest.raises(
        DataError, match=rf"x\.json: win_rate of paper \(alpaca\) = {shown}: it should be a finite number up to"
    ):
        import_rows([A, bare], request(files=[tmp_path / "x.json"]), "others")
    holed = replace(A, label="holed", scores=(Score("q0", "win_rate", value), *A.scores[1:]))
    if value == 1e200:
        with pytest.raises(DataError, match=r"win_rate of holed \(q0\) = 1e\+200"):
            import_rows([A, holed], request(), "others")
    else:
        said = "holed: 1 of 20 values of alpaca/win_rate are missing or not finite; the mean is over the others."
        assert said in import_rows([A, holed], request(), "others").warnings


def test_nothing_to_import_and_an_unknown_baseline_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing in there that alpaca-eval reads"):
        import_rows([], request(files=[tmp_path]), "others")
    with pytest.raises(DataError, match="the baseline 'sfd' is not a row of the board"):
        import_rows([A], request(baseline="sfd"), "others")


def test_a_row_of_another_evaluator_than_the_baselines_is_said_to_be_apart(tmp_path: Path) -> None:
    other = [Imported(label, "bench", (OTHER,), scores([level] * 4, "score")) for label, level in (("c", 5.0), ("d", 7.0))]
    board = import_rows([A, B, *other], request(), "others")
    apart = "c, d: measured by other evaluators than the baseline a, so shown with intervals and not compared with it."
    assert board.warnings == (apart,)
    assert [row.method for row in board.rows] == ["b", "a", "d", "c"]  # the rest by what they have
    board.write(tmp_path)
    assert import_rows([imported("e", [0.5] * 20)], request(), "others", tmp_path).warnings == (apart,)  # said once
    assert import_rows([A, B], request(), "others").warnings == ()


def test_what_an_importer_says_stands_on_the_board_once_with_its_rows(tmp_path: Path) -> None:
    said = [replace(row, warnings=("something is missing",)) for row in (A, B)]
    board = import_rows(said, request(labels={"b": "new"}), "others")
    assert board.warnings == ("a, new: something is missing",)
    board.write(tmp_path)
    assert import_rows([imported("c", [0.5] * 20)], request(), "others", tmp_path).warnings == board.warnings


def test_without_examples_no_text_of_the_files_is_on_the_board(tmp_path: Path) -> None:
    import_rows([A, B], request(examples=False), "others").write(tmp_path)
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"a question" not in written and b"answer" not in written
    assert Board.read(tmp_path).rows[0].scores["alpaca/win_rate"].n == 20


def test_a_new_board_names_its_judges_and_a_run_keeps_its_own_words(measured: Path, tmp_path: Path) -> None:
    board = import_rows([A], request(), "others")
    assert board.description == "Results of other tools, compared example by example. Judged: alpaca by gpt-4."
    board.write(tmp_path / "board")
    more = import_rows(
        [Imported("a", "bench", (OTHER,), scores([5.0], "score"), judge="j")], request(), "x", tmp_path / "board"
    )
    assert more.description.endswith("Judged: alpaca by gpt-4; bench by j.")
    assert import_rows([A], request(), "others", measured).description == ""
