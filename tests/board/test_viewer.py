"""Examples in the page: in order, inert, packed where they are many, and never more than a page can carry."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode

import pytest

from harness.board import Board, ExampleRow
from harness.board.files import examples_text
from harness.board.views import page as module
from harness.board.views.page import to_html, viewer


def test_what_judges_said_is_shown_as_text(board: Board, nasty: str) -> None:
    said = [{"evaluator": nasty, "verdict": nasty, "words": nasty}]
    found = viewer(board, [ExampleRow("e", "p", None, {"dpo": "a"}, {"dpo": said})])
    assert found is not None and not set("<>&") & set(found.blocks[0])
    (*_, judged) = json.loads(found.blocks[0])[0]
    assert len(judged["0"][0]) == 3 and "\\x1b[31m" in judged["0"][0][2] and "\x1b" not in judged["0"][0][2]
    assert "judged" not in examples_text([ExampleRow("e", "p", None, {"dpo": "a"})])


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
