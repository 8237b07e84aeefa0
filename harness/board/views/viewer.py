"""The examples that a page carries: as JSON in blocks, packed where they are many, so that the page opens at once."""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from harness.board import standing
from harness.board.board import Board, ExampleRow
from harness.board.views.text import one_line, shortened, visible

PLAIN = 1 << 19  # characters; more are packed
EMBEDDED = 24 << 20  # characters in the page at most; all examples are in the file beside it
BLOCK_EXAMPLES, BLOCK_CHARACTERS = 200, 1 << 20
LABEL = 80  # characters of a row's name in the menus


@dataclass(frozen=True)
class Viewer:
    """What the page carries.

    Attributes:
        head: labels, which two are shown first, how many examples there are, and where each block begins.
        blocks: each a JSON list of examples, or a JSON text that holds such a list as deflated, base64 UTF-8.
        shown: how many examples the blocks hold; of `available`.
    """

    head: Markup
    blocks: tuple[Markup, ...]
    shown: int
    available: int


def viewer(board: Board, examples: Sequence[ExampleRow]) -> Viewer | None:
    """The first examples, as many as a page can carry; everything that has no shape is written out. None without any."""
    if not examples:
        return None
    labels = _labels(board, examples)
    blocks: list[Markup] = []
    starts: list[int] = []
    size = shown = 0
    packed = _large(examples)
    for count, block in _blocks(examples, labels):
        written = embedded(_packed(block) if packed else json.loads(block))
        if size + len(written) > EMBEDDED and blocks:
            break
        blocks.append(written)
        starts.append(shown)
        size, shown = size + len(written), shown + count
    ranked = [row.method for row in standing.ranked(board) if row.method != board.baseline]
    first = [labels.index(label) for label in (board.baseline, *ranked, *labels) if label in labels]
    head = {"labels": [shortened(label, LABEL) for label in labels], "first": first[:2], "starts": starts, "shown": shown}
    return Viewer(embedded(head), tuple(blocks), shown, len(examples))


def embedded(value: Any) -> Markup:
    """JSON that can stand inside a script element: no `<`, `>` or `&` is left in it."""
    content = json.dumps(value, ensure_ascii=True, sort_keys=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        content = content.replace(character, f"\\u{ord(character):04x}")
    return Markup(content)


def _labels(board: Board, examples: Sequence[ExampleRow]) -> list[str]:
    """The rows that answered, in the board's order."""
    answered = {label for example in examples for label in example.answers}
    order = [row.method for row in board.rows if row.method in answered]
    return [*order, *sorted(answered - set(order))]


def _large(examples: Sequence[ExampleRow]) -> bool:
    size = 0
    for example in examples:
        size += len(example.prompt) + sum(len(answer) for answer in example.answers.values())
        if size > PLAIN:
            return True
    return False


def _blocks(examples: Sequence[ExampleRow], labels: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Numbers of examples and their JSON."""
    block: list[str] = []
    size = 0
    for example in examples:
        block.append(json.dumps(_entry(example, labels), ensure_ascii=False))
        size += len(block[-1])
        if len(block) >= BLOCK_EXAMPLES or size >= BLOCK_CHARACTERS:
            yield len(block), f"[{','.join(block)}]"
            block, size = [], 0
    if block:
        yield len(block), f"[{','.join(block)}]"


def _entry(example: ExampleRow, labels: Sequence[str]) -> list[Any]:
    """Id, prompt, target, the answers in the order of the labels, and what judges said, by the label's place."""
    said = {
        str(place): [[visible(str(item.get(name) or "")) for name in ("evaluator", "verdict", "words")] for item in items]
        for place, label in enumerate(labels)
        if (items := example.judged.get(label))
    }
    target = None if example.target is None else visible(example.target)
    answers = [visible(example.answers[label]) if label in example.answers else None for label in labels]
    return [one_line(example.id), visible(example.prompt), target, answers, *([said] if said else [])]


def _packed(block: str) -> str:
    return b64encode(zlib.compress(block.encode("utf-8", "backslashreplace"), 6)).decode("ascii")
