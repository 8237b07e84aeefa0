"""Text of other people: what folds together and what does not; files that are read, and those that are refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.api.texts import check_whole, decode, fold, fold_spacing, parse_json, read_json_rows, read_lines, read_text
from harness.errors import DataError


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 12 - 3?", "What is 12 * 3?"),
        ("What is 12 / 3?", "What is 12 + 3?"),
        ("Write it in C++.", "Write it in C#."),
        ("Write it in C++.", "Write it in C."),
        ("Is a < b?", "Is a > b?"),
        ("a = b", "a == b"),
        ("a & b", "a | b"),
        ("What does 😀 mean?", "What does 😡 mean?"),
        ("👨‍👩‍👧", "👨👩👧"),
        ("Round 3.14.", "Round 3 14."),
        ("Add 1,5 and 2", "Add 1.5 and 2"),
        ("-5", "5"),
        ("5 %", "5 $"),
        ("What is 5!?", "What is 5?"),
        ("What is 5 !", "What is 5"),
        ("What is n!?", "What is n?"),
        ("Solve x²", "Solve x2"),
        ("½ cup", "1/2 cup"),
        ("Is 1 in ℝ?", "Is 1 in R?"),
        ("Derive f'", "Derive f"),
        ('x = "5"', "x = 5"),
        ("What does ! mean in C?", "What does ? mean in C?"),
        ("What is this sign: !", "What is this sign: ?"),
        ("Evaluate !x", "Evaluate x"),
        ("What is .NET?", "What is NET?"),
        ("#include", "include"),
        ("Maße", "Masse"),
        ("?!", "…"),
        ("?", "!"),
    ],
)
def test_what_means_something_else_does_not_fold_together(one: str, other: str) -> None:
    assert fold(one) != fold(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Name two fruits.", "NAME  “two”\n fruits"),
        ("Tea?", "tea"),
        ("Quoi ?", "quoi"),
        ("¿Qué tal?", "qué tal"),
        ("don’t go!", "Don't go"),
        ("Ｔｅａ！", "tea"),
        ("ﬁne", "fine"),
        ("“Hi,” she said.", "Hi, she said"),
        ("12 − 3", "12 - 3"),
        ("你好。", "你好"),
        ("Tea\u00a0?", "tea"),
        ("Hi\u200b there", "hi there"),
        ("I ❤️ tea", "i ❤ tea"),
        ("Hi...", "Hi…"),
        ("I like C++!", "I like “C++”."),
        ("cafe\u0301", "café"),
        ("  ?! ", "?!"),
    ],
)
def test_case_spacing_and_sentence_punctuation_fold(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@given(st.text(max_size=40))
def test_folding_anything_is_stable_under_spacing(text: str) -> None:
    assert fold(f"  {text}\n") == fold(text)
    assert fold(text) or not text.split()


def test_spacing_folds_within_lines_and_indentation_counts() -> None:
    assert fold_spacing("A  b \n\n c") == fold_spacing("a b\n c")
    assert fold_spacing("if a:\n  b") != fold_spacing("if a:\n b")
    assert fold_spacing("a.") != fold_spacing("a")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_another_encoding_is_named_with_the_fix(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"a": 1}\n{"a": 2}\n'.encode(encoding))
    readers: list[Callable[[Path], Any]] = [
        read_text,
        lambda file: list(read_json_rows(file)),
        lambda file: list(read_lines(file)),
    ]
    for read in readers:
        with pytest.raises(
            DataError, match=rf"rows.jsonl, line 1: it is {encoding[:6].upper()}.*iconv -f {encoding[:6].upper()}"
        ):
            read(path)


def test_bytes_that_are_not_utf8_name_their_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\n{"a": "caf\xe9"}\n{"a": 3}\n')
    with pytest.raises(DataError, match=r"rows.jsonl, line 3: it is not UTF-8 \(byte 0xe9"):
        read_text(path)
    rows = list(read_json_rows(path))
    assert [(number, row) for _, number, row in rows if not isinstance(row, ValueError)] == [(1, {"a": 1}), (4, {"a": 3})]
    assert rows[1][0].endswith("line 3") and "0xe9" in str(rows[1][2])
    with pytest.raises(DataError, match=r"^x.jsonl:7: it is not UTF-8"):
        decode(b"\xe9", "x.jsonl:7")


def test_marks_and_compression_do_not_show(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(gzip.compress("\ufeffé\n".encode()))
    assert read_text(path) == "é\n"
    assert parse_json("\ufeff[1]", "x") == parse_json("\ufeff[1]".encode(), "x") == [1]
    path.write_bytes(gzip.compress(b"[1]")[:-4])
    for read in (read_text, lambda file: list(read_json_rows(file))):
        with pytest.raises(DataError, match="is the download complete"):
            read(path)
    with pytest.raises(DataError, match="No such file"):
        read_text(tmp_path / "no")


def test_half_a_surrogate_pair_is_found_wherever_it_is() -> None:
    whole = {"a": ["😀", {"b": json.loads('"\\ud83d\\ude00"')}]}
    check_whole(whole, json.dumps(whole))
    for value, place in (({"a": [{"b": "\ud83d"}]}, "`a.0.b`"), ("\ude00", "it holds"), ({"\ud83d": 1}, "\\ud83d")):
        with pytest.raises(ValueError, match="half a surrogate pair") as caught:
            check_whole(value, json.dumps(value))
        assert place in str(caught.value)
        str(caught.value).encode()
        with pytest.raises(DataError, match=r"^x:3 is not JSON"):
            parse_json(json.dumps(value), "x:3")


ELEMENTS = st.one_of(st.integers(), st.text(), st.lists(st.integers(), max_size=2))


@given(values=st.lists(ELEMENTS, max_size=5), indent=st.sampled_from([None, 1]))
def test_an_array_gives_its_elements(values: list[Any], indent: int | None, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("array") / "rows.json"
    path.write_text(json.dumps(values, indent=indent), encoding="utf-8")
    assert [(number, row) for _, number, row in read_json_rows(path)] == list(enumerate(values, 1))


def test_an_arrays_elements_have_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('\n[\n  {"a": 1},\n\n  {"a":\n 2}, {"a": 3}\n]\n')
    assert [(place.rpartition(" ")[2], row["a"]) for place, _, row in read_json_rows(path)] == [("3", 1), ("5", 2), ("6", 3)]
