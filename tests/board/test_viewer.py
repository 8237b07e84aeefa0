"""Examples in the page: in order, inert, packed where they are many, and never more than a page can carry."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode

import numpy as np
import pytest

from harness.api.types import Score
from harness.board import Board, ExampleRow
from harness.board.example_scores import ExampleScores
from harness.board.files import examples_text
from harness.board.views import viewer as module
from harness.board.views.page import to_html
from harness.board.views.viewer import Scored, Viewer, viewer
from harness.errors import DataError


def test_what_judges_said_is_shown_as_text(board: Board, nasty: str) -> None:
    said = [{"evaluator": nasty, "verdict": nasty, "words": nasty}]
    found = viewer(board, [ExampleRow("e", "p", None, {"dpo": "a"}, {"dpo": said})])
    assert found is not None and not set("<>&") & set(found.blocks[0])
    (*_, judged) = json.loads(found.blocks[0])[0]
    assert len(judged["0"][0]) == 3 and "\\x1b[31m" in judged["0"][0][2] and "\x1b" not in judged["0"][0][2]
    assert "judged" not in examples_text([ExampleRow("e", "p", None, {"dpo": "a"})])


def test_a_board_of_one_row_shows_it_once(board: Board) -> None:
    shown = viewer(board, [ExampleRow("e", "p", None, {"dpo": "a"})])
    assert shown is not None and json.loads(shown.head)["first"] == [0]


def test_many_are_packed_and_whole(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLAIN", 100)
    many = [ExampleRow(f"e{i}", f"prompt <{i}> \ud800", None, {"dpo": "a" * 9}) for i in range(450)]
    found = viewer(board, many)
    assert found is not None and found.shown == found.available == 450
    assert json.loads(found.head)["starts"] == [0, 200, 400]
    ids = [example[0] for block in found.blocks for example in json.loads(zlib.decompress(b64decode(json.loads(block))))]
    assert ids == [example.id for example in many]


def test_a_page_carries_no_more_than_it_can(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EMBEDDED", 20_000)
    many = [ExampleRow(f"e{i}", f"prompt {i}", None, {"dpo": "a"}) for i in range(1450)]
    page = to_html(board, many)
    found = viewer(board, many)
    assert found is not None and 0 < found.shown < 1450
    assert f"The first {found.shown:,} of 1,450 prompts; all are in examples.jsonl." in page


IDS, LABELS = ("p0", "p1", "p2"), ("self_contrast_16", "dpo")
EXAMPLES = [ExampleRow(name, name, None, dict.fromkeys(LABELS, "a")) for name in IDS]


def scored(board: Board, values: dict[str, dict[int, list[Score]]], prefix: str = "") -> Board:
    """Return the board with these scores of the gold evaluator's reward, by row and seed."""
    return board.with_scores({f"{prefix}{row}": {"gold": seeds} for row, seeds in values.items()})


def decoded(shown: Viewer) -> dict[str, list[np.ndarray]]:
    """Return each metric's scores as the page's script reads them: of the shown answers where they differ, and of all seeds."""
    head, tables = json.loads(shown.head), {}
    for metric, block in zip(head["metrics"], shown.scores, strict=True):
        content = zlib.decompress(b64decode(json.loads(block)))
        codes = np.frombuffer(content, np.uint8 if "values" in metric else "<u2").astype(int)
        values = (
            np.array([np.nan, *metric["values"]])[codes] if "values" in metric else metric["low"] + metric["step"] * (codes - 1)
        )
        values = np.where(codes == 0, np.nan, values).reshape(-1, len(head["labels"]), head["shown"])
        tables[metric["key"]] = list(values)
    return tables


def test_scores_of_the_shown_answer_stand_beside_the_means_of_all_seeds(board: Board) -> None:
    two_seeds = {
        1: [
            Score("p0", "reward", 1.0),
            Score("p0", "reward", 3.0, 1),
            Score("p1", "reward", -2.5),
            Score("elsewhere", "reward", 9),
        ],
        2: [Score("p0", "reward", 5.0)],
    }
    shown = viewer(scored(board, {"self_contrast_16": two_seeds, "dpo": {7: [Score("p1", "reward", 4.0)]}}), EXAMPLES)
    assert shown is not None
    own, means = decoded(shown)["gold/reward"]
    assert json.loads(shown.head)["labels"] == list(LABELS)
    np.testing.assert_array_equal(own, [[1.0, -2.5, np.nan], [np.nan, 4.0, np.nan]])  # dpo has one seed, its first
    np.testing.assert_array_equal(means, [[3.0, -2.5, np.nan], [np.nan, 4.0, np.nan]])


def test_many_values_are_rounded_to_a_small_share_of_their_range(board: Board) -> None:
    values = np.random.default_rng(0).normal(size=900)
    examples = [ExampleRow(f"p{place}", "", None, {"dpo": ""}) for place in range(900)]
    scores = [Score(f"p{place}", "reward", float(value)) for place, value in enumerate(values)]
    shown = viewer(scored(board, {"dpo": {1: scores}}), examples)
    assert shown is not None
    (table,) = decoded(shown)["gold/reward"]
    assert np.abs(table[0] - values).max() <= np.ptp(values) / 65_534
    assert [table[0].min(), table[0].max()] == pytest.approx([values.min(), values.max()])


def test_metrics_beyond_a_pages_room_are_counted(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    every = viewer(board, EXAMPLES)
    assert every is not None and len(every.scores) == 8 and every.unscored == 0
    monkeypatch.setattr(module, "EMBEDDED_SCORES", sum(map(len, every.scores[:2])))
    some = viewer(board, EXAMPLES)
    assert some is not None and 0 < len(some.scores) < 8 and len(some.scores) + some.unscored == 8
    assert [metric["primary"] for metric in json.loads(some.head)["metrics"]][:2] == [True, True]
    assert f"{some.unscored} further metrics are in scores.parquet alone." in to_html(board, EXAMPLES)


def test_boards_without_scores_and_of_one_starting_model_of_several(board: Board) -> None:
    without = board.model_copy()
    without._score_file = b""
    shown = viewer(without, EXAMPLES)
    assert shown is not None and shown.scores == () and "<select data-only>" not in to_html(without, EXAMPLES)
    common = scored(board, {"dpo": {1: [Score("p2", "reward", 0.5)]}}, "small/")
    of_model = viewer(without, EXAMPLES, Scored(common, "small/"))
    assert of_model is not None
    np.testing.assert_array_equal(decoded(of_model)["gold/reward"][0][1], [np.nan, np.nan, 0.5])


@pytest.mark.parametrize("content", [b"no parquet", b"PAR1"])
def test_damaged_scores_are_an_error_that_names_the_file(board: Board, content: bytes) -> None:
    damaged = board.model_copy()
    damaged._score_file = content
    with pytest.raises(DataError, match=r"scores\.parquet cannot be read"):
        ExampleScores.read(damaged, LABELS, IDS)
