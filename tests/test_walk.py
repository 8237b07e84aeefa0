"""The walk over untrusted values: order, places, depth, cycles."""

from __future__ import annotations

from typing import Any

import pytest

from harness.api.walk import walk
from harness.board.entries import DEEPEST, unwritable
from harness.config.problems import impossible, secrets


def test_every_value_and_key_is_yielded_in_order_with_its_place() -> None:
    value = {"a": [1, {"b": "x"}], 2: ("y",), "c": b"z"}
    nodes = [(node.field, node.depth, node.value) for node in walk(value) if not node.is_key]
    assert nodes == [
        ("", 0, value), ("a", 1, value["a"]), ("a.0", 2, 1), ("a.1", 2, {"b": "x"}), ("a.1.b", 3, "x"), ("2", 1, ("y",)),
        ("2.0", 2, "y"), ("c", 1, b"z"),
    ]  # fmt: skip
    keys = [(node.place, node.field, node.depth, node.value) for node in walk(value) if node.is_key]
    assert keys == [("", "a", 0, "a"), ("a.1", "a.1.b", 2, "b"), ("", "2", 0, 2), ("", "c", 0, "c")]


def test_what_is_deeper_than_asked_is_yielded_and_not_entered() -> None:
    assert [node.place for node in walk([[[["x"]]]], deepest=1)] == ["", "0", "0.0"]
    deep: list[Any] = []
    for _ in range(DEEPEST + 5):
        deep = [deep]
    assert [problem.rpartition(": ")[2] for problem in unwritable(deep)] == [f"nested deeper than {DEEPEST} levels"]


@pytest.mark.parametrize("levels", [2_000, 20_000])
def test_depth_beyond_the_stack_of_python_is_walked(levels: int) -> None:
    whole: Any = {"text": "nul\0", "token": "hf_abcdefghijklmnopqrst"}
    for _ in range(levels):
        whole = [whole]
    assert max(walk(whole), key=lambda node: node.depth).depth == levels + 1
    place = "0." * levels
    assert [problem.field for problem in impossible(whole)] == [f"{place}text"]
    assert [problem.field for problem in secrets(whole)] == [f"{place}token"]


def test_a_value_that_holds_itself_ends_and_one_in_two_places_is_walked_in_both() -> None:
    shared = {"x": 2**70}
    whole: dict[str, Any] = {"first": shared, "second": [shared]}
    whole["itself"] = [whole]
    assert [node.place for node in walk(whole) if not node.is_key] == [
        "", "first", "first.x", "second", "second.0", "second.0.x", "itself", "itself.0",
    ]  # fmt: skip
    assert [problem.field for problem in impossible(whole)] == ["first.x", "second.0.x"]


def test_a_bad_key_is_named_by_its_mapping_on_a_board_and_escaped_in_a_config() -> None:
    bad = {"rows": [{"\ud83d": float("nan")}]}
    key, number = unwritable(bad)
    assert key == "rows.0 (a key): half a surrogate pair, which is no text"
    assert number.endswith("= nan: not a finite number up to 1e+100")
    assert [problem.field for problem in impossible(bad)] == ["rows.0.\\ud83d", "rows.0.\ud83d"]
