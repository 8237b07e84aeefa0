"""The examples in a page: texts in blocks that are unpacked when they are looked at, scores in columns of small numbers."""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from harness.board.board import Board, ExampleRow
from harness.board.example_scores import ExampleScores, MetricScores
from harness.board.views.text import one_line, shortened, visible

PLAIN = 1 << 19  # examples with more characters than this are compressed
EMBEDDED = 24 << 20  # the most characters of examples in a page; `examples.jsonl` has all
EMBEDDED_SCORES = 8 << 20  # the most characters of their scores; `scores.parquet` has all
BLOCK_EXAMPLES, BLOCK_CHARACTERS = 200, 1 << 20  # a block ends at the first of the two
BEGINNING = 140  # characters of a prompt in the list
LONGEST_NAME = 80  # characters of a label
FEW_VALUES = 255  # as many values are coded by one byte and shown exactly; more are rounded to 1/65,534 of their range
STEPS = (1 << 16) - 2
DIGITS = 7  # significant digits of a coded value


@dataclass(frozen=True)
class Viewer:
    """The examples in a page.

    Attributes:
        head: JSON of the rows' labels, the two that are shown first, the number of examples, each block's first index, and
            the metrics with how their scores are coded.
        index: JSON of each example's id and the beginning of its prompt, packed as a block is.
        blocks: each a JSON list of examples, or a JSON string of such a list in UTF-8, deflated, in base64.
        scores: a JSON string for each metric of the head: the codes of `[rows, examples]`, deflated, in base64.
        shown: the number of examples in the blocks.
        available: the number of examples on the board.
        unscored: the number of metrics that the page has no room for.
    """

    head: Markup
    index: Markup
    blocks: tuple[Markup, ...]
    scores: tuple[Markup, ...]
    shown: int
    available: int
    unscored: int


@dataclass(frozen=True)
class Scored:
    """A board whose file has the scores of the examples, and what its labels have there before the rows' own."""

    board: Board
    prefix: str = ""


def viewer(board: Board, examples: Sequence[ExampleRow], scored: Scored | None = None) -> Viewer | None:
    """Return the first examples, as many as a page can hold, with invisible characters written out; None without any.

    Args:
        scored: where the scores are, if not in the board.

    Raises:
        DataError: the file of scores is damaged.
    """
    if not examples:
        return None
    labels = _labels(board, examples)
    blocks: list[Markup] = []
    starts: list[int] = []
    size = shown = 0
    packed = _large(examples)
    for count, block in _blocks(examples, labels):
        written = embedded(_packed(block.encode("utf-8", "backslashreplace")) if packed else json.loads(block))
        if size + len(written) > EMBEDDED and blocks:
            break
        blocks.append(written)
        starts.append(shown)
        size, shown = size + len(written), shown + count
    ranked = [row.method for row in board.ranked if row.method != board.baseline]
    first = [labels.index(label) for label in dict.fromkeys((board.baseline, *ranked, *labels)) if label in labels]
    scored = scored or Scored(board)
    read = ExampleScores.read(scored.board, labels, [example.id for example in examples[:shown]], scored.prefix)
    coded, unscored = _coded(board, read) if read else ([], 0)
    metrics = [metric for metric, _ in coded]
    head = {
        "labels": [shortened(label, LONGEST_NAME) for label in labels],
        "first": first[:2],
        "starts": starts,
        "shown": shown,
        "metrics": metrics,
        "judges": _judges(board, [str(metric["key"]) for metric in metrics]),
    }
    index = [[one_line(example.id), visible(example.prompt[:BEGINNING])] for example in examples[:shown]]
    listed = embedded(_packed(json.dumps(index).encode()) if packed else index)
    return Viewer(embedded(head), listed, tuple(blocks), tuple(scores for _, scores in coded), shown, len(examples), unscored)


def embedded(value: object) -> Markup:
    """Return JSON for a script element: without `<`, `>` and `&`, it cannot end the element."""
    content = json.dumps(value, ensure_ascii=True, sort_keys=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        content = content.replace(character, f"\\u{ord(character):04x}")
    return Markup(content)


def _labels(board: Board, examples: Sequence[ExampleRow]) -> list[str]:
    """Return the rows that answered, in the board's order."""
    answered = {label for example in examples for label in example.answers}
    order = [row.method for row in (*board.ranked, *board.references) if row.method in answered]
    return [*order, *sorted(answered - set(order))]


def _large(examples: Sequence[ExampleRow]) -> bool:
    size = 0
    for example in examples:
        size += len(example.prompt) + sum(len(answer) for answer in example.answers.values())
        if size > PLAIN:
            return True
    return False


def _blocks(examples: Sequence[ExampleRow], labels: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the number of examples of each block, and their JSON."""
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


def _entry(example: ExampleRow, labels: Sequence[str]) -> list[object]:
    """Return id, prompt, target, the answers in the order of the labels, and judges' verdicts by the label's index."""
    judged = {
        str(place): [[visible(str(item.get(name) or "")) for name in ("evaluator", "verdict", "words")] for item in items]
        for place, label in enumerate(labels)
        if (items := example.judged.get(label))
    }
    target = None if example.target is None else visible(example.target)
    answers = [visible(example.answers[label]) if label in example.answers else None for label in labels]
    return [one_line(example.id), visible(example.prompt), target, answers, *([judged] if judged else [])]


def _packed(content: bytes) -> str:
    return b64encode(zlib.compress(content, 6)).decode("ascii")


def _coded(board: Board, scores: ExampleScores) -> tuple[list[tuple[dict[str, object], Markup]], int]:
    """Return each metric's description and codes, as many as a page has room for, and the number of the others."""
    coded: list[tuple[dict[str, object], Markup]] = []
    size = unscored = 0
    for column in scores.columns():
        head, codes = _codes(column)
        # Once the room is spent, only metrics with few values are worth packing: they become much smaller.
        if unscored and "values" not in head:
            unscored += 1
            continue
        written = embedded(_packed(codes))
        if size + len(written) > EMBEDDED_SCORES:
            unscored += 1
            continue
        size += len(written)
        metric = column.metric
        head |= {
            "key": one_line(metric.key),
            "name": shortened(board.short_name(metric), LONGEST_NAME),
            "way": {True: 1, False: -1, None: 0}[metric.higher_is_better],
            "primary": metric.primary,
        }
        coded.append((head, written))
    return coded, unscored


def _codes(column: MetricScores) -> tuple[dict[str, object], bytes]:
    """Return how a metric's scores are coded, and the codes: of the shown answers, then of all seeds if those differ.

    Code 0 stands for no score. A metric with few values names them, others have steps between their extremes.
    """
    differ = not np.array_equal(column.own, column.means, equal_nan=True)
    table = np.stack([column.own, column.means] if differ else [column.means])
    here = np.isfinite(table)
    values = np.unique(table[here])
    head: dict[str, object] = {"both": differ}
    codes: npt.NDArray[np.generic]
    if len(values) <= FEW_VALUES:
        head["values"] = [float(f"{value:.{DIGITS}g}") for value in values]
        codes = np.where(here, np.searchsorted(values, np.where(here, table, values[0])) + 1, 0).astype(np.uint8)
    else:
        low, step = float(values[0]), float(values[-1] / STEPS - values[0] / STEPS)
        head |= {"low": low, "step": step}
        codes = np.where(here, np.rint((np.where(here, table, low) - low) / step) + 1, 0).astype("<u2")
    return head, codes.tobytes()


def _judges(board: Board, keys: Sequence[str]) -> list[int]:
    """Return the places of two metrics of different judges; of different evaluators where the board has no two judges.

    Empty where there are no two of them.
    """
    analysis = board.analysis
    pairs = [(entry.left, entry.right) for entry in (analysis.raters or () if analysis else ())]
    pairs += [(entry.left, entry.right) for entry in (analysis.agreement if analysis else ())]
    pairs += [(left, right) for left in keys for right in keys if left.partition("/")[0] != right.partition("/")[0]]
    return next(([keys.index(left), keys.index(right)] for left, right in pairs if {left, right} <= set(keys)), [])
