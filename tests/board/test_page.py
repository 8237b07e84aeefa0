"""The page: self-contained, inert towards its texts, complete, and sound as HTML."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from harness.board import Board, ExampleRow
from harness.board.board import Delta
from harness.board.views import figures as module
from harness.board.views.figures import forest
from harness.board.views.markdown import to_markdown
from harness.board.views.page import made_of, render_all, to_html, write_all
from harness.board.views.svg import Scale
from harness.board.views.terminal import print_table

VOID = {"meta", "link", "br", "img", "input", "hr", "wbr"}


class Reader(HTMLParser):
    """Collects elements and text, and checks that every element is closed where it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(board: Board, examples: list[ExampleRow]) -> str:
    return to_html(board, examples)


@pytest.fixture(scope="module")
def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def test_it_needs_nothing_from_anywhere(page: str, read: Reader) -> None:
    tags = {tag for tag, _ in read.elements}
    assert {"table", "script"} <= tags and not {"link", "img", "iframe", "object", "base", "form"} & tags
    assert not any(
        name in ("src", "href", "style") and not (value or "").startswith("#")
        for _, attrs in read.elements
        for name, value in attrs.items()
    )
    assert "url(" not in page and "http://" not in page and "https://" not in page


def test_only_its_own_script_and_style_may_run(page: str, read: Reader) -> None:
    policy = next(attrs["content"] for tag, attrs in read.elements if tag == "meta" and "http-equiv" in attrs)
    assert policy is not None and policy.startswith("default-src 'none';") and "unsafe" not in policy
    for pattern in (r"<style>(.*?)</style>", r"<script>(.*?)</script>"):
        content = re.search(pattern, page, re.DOTALL)
        assert content is not None
        assert base64.b64encode(hashlib.sha256(content[1].encode()).digest()).decode() in policy
    assert [attrs for tag, attrs in read.elements if tag == "script"] == [
        {"type": "application/json", "id": "examples-data"},
        {"type": "application/json", "id": "examples-index"},
        {"type": "application/json", "class": "examples-block"},
        *[{"type": "application/json", "class": "scores-block"}] * 8,
        {"type": "application/json", "id": "numbers-data"},
        {},
    ]
    assert not any(name.startswith("on") for _, attrs in read.elements for name in attrs)


def test_texts_are_shown_never_run(page: str, read: Reader) -> None:
    assert "<img" not in page and "alert(1)</script>" not in page.replace("&lt;/script&gt;", "")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u200e\u200f]", page)
    assert "\\x1b[31mred\\x1b[0m" in read.text and "\\u202egnp.exe" in read.text


def test_the_examples_are_embedded_safely(page: str, nasty: str) -> None:
    embedded = re.findall(r'<script type="application/json" (?:id|class)="(.*?)">(.*?)</script>', page, re.DOTALL)
    assert [name for name, _ in embedded] == [
        *("examples-data", "examples-index", "examples-block", *["scores-block"] * 8, "numbers-data")
    ]
    assert not any(set("<>&") & set(content) for _, content in embedded)
    data, block = json.loads(embedded[0][1]), json.loads(embedded[2][1])
    assert block[1][1] == nasty.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e").replace("\u202c", "\\u202c")
    assert block[2][2] is None
    assert [data["labels"][index] for index in data["first"]] == ["dpo", "self_contrast_16"]


def test_tables_can_be_read_and_sorted_by_all(board: Board, read: Reader) -> None:
    elements = [tag for tag, _ in read.elements]
    assert elements.count("table") == elements.count("caption") >= 3
    heads = [attrs for tag, attrs in read.elements if tag == "th" and attrs.get("scope") == "col"]
    assert all(attrs.get("aria-sort", "none") == "none" for attrs in heads)
    assert sum(tag == "th" and attrs.get("scope") == "row" for tag, attrs in read.elements) >= 3 * len(board.rows)
    assert all(attrs.get("aria-label") for tag, attrs in read.elements if tag == "svg")


def test_the_pictures_show_every_row_and_the_noise(board: Board, page: str) -> None:
    figures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    for width in (772, 344):  # for screens and for phones
        drawn = [figure for figure in figures if "Difference from" in figure and f'viewBox="0 0 {width} ' in figure]
        assert len(drawn) == len(board.metrics)
        for figure in drawn[:2]:
            assert figure.count("<circle") == 10 and 'class="zero"' in figure
        assert 'class="noise"' in drawn[1]
    assert all("nan" not in figure for figure in figures)


def test_what_was_equal_and_what_was_done_is_said(read: Reader) -> None:
    for expected in (
        "sandbox/start",
        "512 prompts, 128 updates",
        "1, 2",
        "71 of 118 artifacts made, 38.0 min saved",
        "learning_rate: 0.0001",
    ):
        assert expected in read.text


def test_many_examples_are_packed_in_blocks_and_unpack_to_themselves(board: Board) -> None:
    many = [ExampleRow(f"e{i}", f"prompt number {i} " + "long " * 200, None, {"dpo": "a"}) for i in range(1000)]
    page = to_html(board, many)
    blocks = re.findall(r'class="examples-block">(.*?)</script>', page, re.DOTALL)
    assert len(blocks) == 5 and len(page) < 1_000_000 and "prompt number" not in page
    unpacked = [json.loads(zlib.decompress(base64.b64decode(json.loads(block)))) for block in blocks]
    assert [example[1] for block in unpacked for example in block] == [example.prompt for example in many]
    assert "All 1,000 prompts with texts." in page


def test_what_a_page_cannot_carry_is_said(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.board.views.viewer.EMBEDDED", 2000)
    many = [ExampleRow(f"e{i}", f"prompt number {i}", None, {"dpo": "a"}) for i in range(500)]
    page = to_html(board, many)
    assert "The first 200 of 500 prompts; all are in examples.jsonl." in page and "prompt number 200" not in page


def test_many_warnings_are_folded(build: Callable[..., Board]) -> None:
    assert "<summary>6 warnings</summary>" in to_html(build(warnings=[f"warning {i}" for i in range(6)]), [])
    assert "<h2>2 warnings</h2>" in to_html(build(warnings=["one", "two"]), [])


def test_a_board_of_nothing_is_a_page(build: Callable[..., Board]) -> None:
    page = to_html(build(None, metrics={}, sharing={}, warnings=(), config={}), [])
    assert "No row has a score" in page and 'id="examples"' not in page


def test_write_all_writes_six_files_and_the_same_twice(board: Board, examples: list[ExampleRow], tmp_path: Path) -> None:
    assert write_all(board, examples, tmp_path) == tmp_path / "index.html"
    names = ["board.csv", "board.json", "board.md", "examples.jsonl", "index.html", "scores.parquet"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    again = tmp_path / "again"
    write_all(Board.read(tmp_path), Board.read(tmp_path).example_rows, again)
    assert [(again / name).read_bytes() for name in names] == [(tmp_path / name).read_bytes() for name in names]


def test_pages_do_not_depend_on_the_order_in_which_a_run_counted(build: Callable[..., Board], tmp_path: Path) -> None:
    counts = {"train": {"prompts": 0, "of": 720}, "sft": {"prompts": 2, "of": 1600}}
    benchmarks = {name: {"questions": 9, "splits": counts} for name in ("second", "first")}
    board = build(sharing={"data": {"kept": {"train": 720, "sft": 1600}, "benchmarks": benchmarks}})
    write_all(board, board.example_rows, tmp_path)
    pages = {name: (tmp_path / name).read_bytes() for name in ("index.html", "board.md")}
    assert b"sft 2 of 1,600, train 0 of 720" in pages["index.html"] and b"train 720" in pages["index.html"]
    read = Board.read(tmp_path)
    render_all(read, read.example_rows, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in pages} == pages


def test_rendering_again_writes_neither_board_nor_examples(board: Board, examples: list[ExampleRow], tmp_path: Path) -> None:
    assert render_all(board, examples, tmp_path) == tmp_path / "index.html"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["board.csv", "board.md", "index.html"]


def test_no_asterisk_where_the_interval_holds_0(board: Board) -> None:
    unsure = Delta(mean=0.1, low=-0.1, high=0.3, p=0.0001, p_adjusted=0.0001)
    rows = tuple(
        row.model_copy(
            update={"scores": {k: s.model_copy(update={"delta": s.delta and unsure}) for k, s in row.scores.items()}}
        )
        for row in board.rows
    )
    doubtful = board.model_copy(update={"rows": rows})
    assert "<b></b>" in to_html(doubtful, []) and "+0.100<b>*" not in to_html(doubtful, [])
    assert '">*' not in (forest(doubtful, board.primary[0]) or "")
    assert "+0.100\\*" not in to_markdown(doubtful) and "+0.100 |" in to_markdown(doubtful)
    out = io.StringIO()
    print_table(doubtful, Console(file=out, width=140))
    assert "+0.100 " in out.getvalue() and "+0.100 *" not in out.getvalue()


def test_ticks_are_round_and_inside() -> None:
    assert Scale(-0.13, 0.27, 0, 100).ticks(4) == pytest.approx([-0.1, 0.0, 0.1, 0.2])
    assert Scale(0, 13, 0, 100).ticks(3) == [0, 5, 10]


def test_no_text_makes_the_page_unreadable(build: Callable[..., Board]) -> None:
    page = to_html(build(warnings=["w" * 5000]), [])
    assert f"{'w' * 2000} … (3,000 more characters in board.json)" in page and "w" * 2001 not in page


def test_names_may_be_broken_after_their_parts(page: str) -> None:
    assert ">self_<wbr>contrast_<wbr>16</a>" in page and ">format/<wbr>followed<" in page


def test_every_curve_has_two_ticks_at_least(board: Board) -> None:
    drawn = [curve for row in board.rows if (curve := module.curve(row, "loss"))]
    assert drawn and all(text.count('class="rule"') > 1 for text in drawn)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (
            {"0": [{"responses": {"as_sampled": 900, "from_dataset": 1200}}], "1": [{"responses": {"as_sampled": 300}}, {}]},
            "1,200 as sampled, 1,200 from the data",
        ),
        ({"0": [{"responses": {"as_sampled": 0, "tokenized_again": 7}}]}, "7 tokenized again"),
        ({"0": [{"responses": "odd"}, "odd", {"responses": {"as_sampled": "1"}}], "1": 3}, None),
        ("odd", None),
        (None, None),
    ],
)
def test_where_a_row_s_ids_come_from_is_among_its_facts(board: Board, data: object, shown: str | None) -> None:
    row = board.rows[0].model_copy(update={"provenance": {"data": data}})
    assert dict(made_of(board, row)).get("Responses") == shown


def test_how_many_prompts_gave_a_group_is_among_a_row_s_facts(board: Board) -> None:
    """Counts are summed over seeds and rounds; what a builder measured is a mean over all groups."""
    first = {"prompts": 10, "groups": 3, "dropped": {"announced": 6, "equal sides": 1}, "means": {"stripped": 1.0}}
    second = {"prompts": 10, "groups": 9, "dropped": {"announced": 1}, "means": {"stripped": 0.0}}
    data: dict[str, object] = {"0": [first, second], "1": ["odd", {"dropped": "odd", "prompts": "odd"}]}
    row = board.rows[0].model_copy(update={"provenance": {"data": data}})
    shown = "12 of 20 prompts; 7 dropped: announced; 1 dropped: equal sides; mean stripped 0.250"
    assert dict(made_of(board, row))["Groups"] == shown
