"""Read and write the files of a board's folder, each whole or not at all: examples and scores beside `board.json`."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.api.types import Score
from harness.board.entries import unwritable
from harness.errors import DataError, StoreError
from harness.store.atomic import write_atomically

BOARD, EXAMPLES, SCORES, STATES = "board.json", "examples.jsonl", "scores.parquet", "states.parquet"
EVIDENCE = "evidence.json.gz"
MOST_TEXT = 50_000_000  # characters of prompts, answers and judges' words that a board keeps
LONGEST_WORDS = 8000  # characters of one verdict's words; the evaluator's own file beside the board has all
MOST_SCORES = 20_000_000  # a hundred rows with ten seeds on a thousand prompts have ten million for ten metrics
Scores = Mapping[str, Mapping[str, Mapping[int, Sequence[Score]]]]  # row → evaluator → seed → scores
States = Mapping[float, Scores]  # position in the training → the rows that have a state there


@dataclass(frozen=True)
class ExampleRow:
    """One prompt and what the rows answered to it: `answers` maps a row's label to its answer.

    `judged` maps a row's label to what judges said of its answer, each a mapping of `evaluator`, `verdict` and `words`.
    """

    id: str
    prompt: str
    target: str | None
    answers: Mapping[str, str]
    judged: Mapping[str, Sequence[Mapping[str, str]]] = field(default_factory=dict)


def write_text(path: Path, text: str) -> Path:
    """Write beside, then rename, so that no reader ever sees half a file.

    Raises:
        StoreError: the folder cannot be written.
    """
    return write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> Path:
    """Write bytes as `write_text` writes text."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}") from error
    return path


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def examples_text(examples: Sequence[ExampleRow]) -> str:
    return "".join(f"{json.dumps(_example(example), sort_keys=True)}\n" for example in examples)


def _example(example: ExampleRow) -> dict[str, object]:
    """Return an example as JSON; judgments are left out where no judge was asked."""
    content: dict[str, object] = {
        "id": example.id,
        "prompt": example.prompt,
        "target": example.target,
        "answers": dict(example.answers),
    }
    judged = {label: [dict(item) for item in items] for label, items in example.judged.items() if items}
    return content | ({"judged": judged} if judged else {})


def bounded(examples: Iterable[ExampleRow]) -> list[ExampleRow]:
    """Return the first examples, as many as a board has room for; long words of judges are cut, with a note."""
    kept: list[ExampleRow] = []
    size = 0
    for example in examples:
        judged = {label: [_cut(item) for item in items] for label, items in example.judged.items()}
        words = sum(len(text) for items in judged.values() for item in items for text in item.values())
        size += len(example.prompt) + len(example.target or "") + sum(map(len, example.answers.values())) + words
        if size > MOST_TEXT:
            break
        kept.append(replace(example, judged=judged))
    return kept


def _cut(judgment: Mapping[str, str]) -> Mapping[str, str]:
    words = judgment.get("words", "")
    if len(words) <= LONGEST_WORDS:
        return judgment
    return {**judgment, "words": f"{words[:LONGEST_WORDS]} … ({len(words) - LONGEST_WORDS:,} more characters)"}


def read_examples(path: Path) -> list[ExampleRow]:
    """Raises DataError with file and line where a line is not an example."""
    from pydantic import TypeAdapter

    shape = TypeAdapter(ExampleRow)
    rows = []
    with path.open("rb") as lines:
        for position, line in enumerate(lines, start=1):
            try:
                content = json.loads(line.decode("utf-8"))
                for problem in unwritable(content):
                    raise ValueError(problem)
                ExampleRow(**content)  # a TypeError names a field that is missing or unknown
                rows.append(shape.validate_python(content))
            except (ValueError, TypeError, RecursionError) as error:
                raise DataError(f"{path}:{position} is not an example: {first_error(error)}") from error
    return rows


def first_error(error: Exception) -> str:
    """Return an error in one line; pydantic's first, with its place."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
    return (str(error).splitlines() or [type(error).__name__])[0]


def scores_bytes(scores: Scores) -> bytes:
    """Per-example scores as Parquet: row, evaluator, seed, metric, example, question, sample, value."""
    return _parquet(COLUMNS, list(_lines(scores)))


def states_bytes(states: States) -> bytes:
    """Per-example scores of intermediate states as Parquet: those of `scores_bytes`, after the position in the training."""
    return _parquet(STATE_COLUMNS, [(position, *cells) for position in sorted(states) for cells in _lines(states[position])])


def _parquet(kinds: Mapping[str, str], lines: Sequence[tuple[Any, ...]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    columns = list(zip(*lines, strict=True)) if lines else [()] * len(kinds)
    table = pyarrow.table(
        {
            name: pyarrow.array(column, type=pyarrow.type_for_alias(kind))
            for (name, kind), column in zip(kinds.items(), columns, strict=True)
        }
    )
    out = io.BytesIO()
    pyarrow.parquet.write_table(table, out, compression="zstd", use_dictionary=True)
    return out.getvalue()


COLUMNS = {
    **{"row": "string", "evaluator": "string", "seed": "int64", "metric": "string", "example": "string"},
    **{"question": "string", "sample": "int32", "value": "float64"},
}
STATE_COLUMNS = {"position": "float64", **COLUMNS}


def _lines(scores: Scores) -> Iterator[tuple[Any, ...]]:
    for row in sorted(scores):
        for evaluator in sorted(scores[row]):
            for seed in sorted(scores[row][evaluator]):
                for score in scores[row][evaluator][seed]:
                    cells = (score.metric, score.example, score.question, score.sample, float(score.value))
                    yield (row, evaluator, seed, *cells)


def _values(column: Any, kind: str) -> list[Any]:
    """Return a column's values. Text that is repeated is read once, so that a small file cannot stand for gigabytes."""
    import pyarrow

    values: list[Any] = []
    for chunk in column.chunks:
        if isinstance(chunk, pyarrow.DictionaryArray):
            words = chunk.dictionary.cast(pyarrow.string()).to_pylist()
            values += [None if place is None else words[place] for place in chunk.indices.to_pylist()]
        else:
            values += chunk.cast(pyarrow.type_for_alias(kind)).to_pylist()
    return values


def read_scores(path: Path) -> dict[str, dict[str, dict[int, list[Score]]]]:
    """Read the Parquet file that `scores_bytes` made.

    Raises:
        DataError: the file is no Parquet, or has other columns.
    """
    scores: dict[str, dict[str, dict[int, list[Score]]]] = {}
    for row, evaluator, seed, score in _scores(path, list(COLUMNS)):
        scores.setdefault(row, {}).setdefault(evaluator, {}).setdefault(seed, []).append(score)
    return scores


def read_states(path: Path) -> dict[float, dict[str, dict[str, dict[int, list[Score]]]]]:
    """Read the Parquet file that `states_bytes` made.

    Raises:
        DataError: the file is no Parquet, or has other columns.
    """
    states: dict[float, dict[str, dict[str, dict[int, list[Score]]]]] = {}
    for position, row, evaluator, seed, score in _scores(path, list(STATE_COLUMNS)):
        runs = states.setdefault(position, {}).setdefault(row, {}).setdefault(evaluator, {})
        runs.setdefault(seed, []).append(score)
    return states


def _scores(path: Path, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield each line of a file of scores: what stands before the metric, and the score."""
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path, read_dictionary=[name for name, kind in COLUMNS.items() if kind == "string"])
        if file.metadata.num_rows > MOST_SCORES:
            raise DataError(
                f"{path} says that it has {file.metadata.num_rows:,} scores, and a board has {MOST_SCORES:,} at most"
            )
        table = file.read(columns=list(names))
        columns = [_values(table.column(name), STATE_COLUMNS[name]) for name in names]
    except (OSError, pyarrow.ArrowException, KeyError, ValueError, OverflowError) as error:
        raise DataError(f"{path} cannot be read as per-example scores: {first_error(error)}") from error
    for *place, metric, example, question, sample, value in zip(*columns, strict=True):
        if None in (*place, metric, example, value):
            needed = [name for name in names if name not in ("question", "sample", "value")]
            raise DataError(f"{path} has a line without {', '.join(needed)} or value")
        yield (*place, Score(example, metric, value, sample or 0, question or ""))
