"""The board, schema version 1: what is written, read and rendered. Everything people see is made from it alone."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)

from harness.errors import DataError, Problem, StoreError
from harness.leaderboard.text import plain

SCHEMA = 1
EXAMPLES = "examples.jsonl"
Kind = Literal["measured", "control", "null", "published", "imported"]


@dataclass(frozen=True)
class ExampleRow:
    """One prompt and what the rows answered to it: `answers` maps a row's label to its answer."""

    id: str
    prompt: str
    target: str | None
    answers: Mapping[str, str]


class Entry(BaseModel):
    """A part of a board. A field named in `optional` is absent, not null, where there is nothing to say."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    optional: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None or key not in self.optional}


class Delta(Entry):
    """Row minus baseline on common examples. `below_noise`: smaller than a change of seeds alone could show."""

    optional = frozenset({"p_adjusted", "below_noise"})

    mean: float
    low: float
    high: float
    p: float
    p_adjusted: float | None = None
    below_noise: Literal[True] | None = None


class ScoreEntry(Entry):
    """One metric of one row; no interval where there are no values per example; `seeds` only if not all have a value."""

    optional = frozenset({"low", "high", "seeds", "delta"})

    mean: float
    low: float | None = None
    high: float | None = None
    n: int
    per_seed: tuple[float, ...] = ()
    seeds: tuple[int, ...] | None = None
    higher_is_better: bool | None
    delta: Delta | None = None


class CostEntry(Entry):
    """What a row's data, reference and training took beyond the shared starting model: the mean over its seeds.

    Charged in full even where rows share it; seconds are wall time of whoever made the artifacts. Evaluation is not in it.
    Empty where a row has nothing of the kind.
    """

    optional = frozenset({"seconds", "device_seconds", "tokens_trained", "tokens_generated", "judge_tokens", "usd"})

    seconds: float | None = None
    device_seconds: float | None = None
    tokens_trained: float | None = None
    tokens_generated: float | None = None
    judge_tokens: float | None = None
    usd: float | None = None


class MetricEntry(Entry):
    """A metric of the board; `key` is `<evaluator>/<metric>`."""

    key: str
    description: str
    higher_is_better: bool | None
    primary: bool


class StatisticsEntry(Entry):
    """How the numbers were made, in words."""

    interval: str
    test: str
    correction: str
    draws: int
    flips: int
    level: float


class RowEntry(Entry):
    """One row of the leaderboard."""

    optional = frozenset({"failed"})

    method: str
    data: str | None
    objective: str | None
    rounds: int
    kind: Kind
    seeds: tuple[int, ...]
    scores: dict[str, ScoreEntry]
    cost: CostEntry = CostEntry()
    budget: dict[str, float] = {}
    provenance: dict[str, Any] = {}
    curves: dict[str, list[dict[str, float]]] = {}
    failed: str | None = None


class Board(Entry):
    """A leaderboard. `examples` is the bare name of the file beside it that holds prompts and answers."""

    format: int = Field(default=SCHEMA, alias="schema")
    name: str
    description: str
    created: str
    harness: dict[str, str]
    config: dict[str, Any]
    baseline: str
    metrics: tuple[MetricEntry, ...]
    rows: tuple[RowEntry, ...]
    statistics: StatisticsEntry
    sharing: dict[str, Any]
    examples: str = EXAMPLES
    warnings: tuple[str, ...] = ()

    _example_rows: tuple[ExampleRow, ...] = PrivateAttr(default=())

    @field_validator("examples")
    @classmethod
    def _bare(cls, name: str) -> str:
        """A board from elsewhere must not choose where this machine reads or writes."""
        parts = {PurePosixPath(name).name, PureWindowsPath(name).name}
        if parts != {name} or name in ("", "..") or not name.isprintable():
            raise DataError(str(Problem("examples", name, f"give a file name without a folder, such as {EXAMPLES!r}")))
        return name

    @property
    def example_rows(self) -> tuple[ExampleRow, ...]:
        """Prompts and answers, as built or as read from the file beside the board."""
        return self._example_rows

    def with_examples(self, examples: Iterable[ExampleRow]) -> Self:
        """The same board with these prompts and answers."""
        board = self.model_copy()
        board._example_rows = tuple(examples)
        return board

    @property
    def primary(self) -> tuple[MetricEntry, ...]:
        """The metrics of the short tables: the primary ones, or the first where none is marked."""
        return tuple(metric for metric in self.metrics if metric.primary) or self.metrics[:1]

    def row(self, method: str) -> RowEntry | None:
        return next((row for row in self.rows if row.method == method), None)

    def without_times(self) -> dict[str, Any]:
        """The board without what differs between two runs of one config: times, the commit and what was reused."""
        kept: dict[str, Any] = _timeless(self.model_dump(mode="json", by_alias=True))
        return {key: value for key, value in kept.items() if key != "sharing"} | {"config": plain(self.config)}

    def to_json(self) -> str:
        """Stable text: sorted keys, one space of indent, ASCII only, so that nothing in it can hide."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1, sort_keys=True, allow_nan=False) + "\n"

    def write(self, folder: Path) -> Path:
        """Write `board.json` and the examples beside it, each whole or not at all. Returns the path of the board."""
        write_text(Path(folder) / Path(self.examples).name, "".join(_line(example) for example in self.example_rows))
        return write_text(Path(folder) / "board.json", self.to_json())

    @classmethod
    def read(cls, path: Path) -> Board:
        """Read a board, and the examples where their file is beside it.

        Raises:
            DataError: the file is missing, damaged, or of a schema this version doesn't know.
        """
        path = Path(path)
        path = path / "board.json" if path.is_dir() else path
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as a board: {error}") from error
        found = content.get("schema") if isinstance(content, dict) else None
        if found != SCHEMA:
            raise DataError(f"{path} has schema {found!r}, this version reads {SCHEMA}: write it again, or update harness")
        try:
            board = cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise DataError(f"{path} is not a whole board: {where}: {first['msg']}") from error
        except DataError as error:
            raise DataError(f"{path} is not a whole board: {error}") from error
        beside = path.parent / Path(board.examples).name
        return board.with_examples(_read_examples(beside)) if beside.is_file() else board


def write_text(path: Path, text: str) -> Path:
    """Write beside, then rename, so that no reader ever sees half a file.

    Raises:
        StoreError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="\n", dir=path.parent, delete=False) as beside:
            try:
                beside.write(text)
                beside.flush()
                os.fsync(beside.fileno())
                Path(beside.name).chmod(0o644)
                Path(beside.name).replace(path)
            except BaseException:
                Path(beside.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}") from error
    return path


def _line(example: ExampleRow) -> str:
    return json.dumps(asdict(replace(example, answers=dict(example.answers))), sort_keys=True) + "\n"


def _read_examples(path: Path) -> Sequence[ExampleRow]:
    rows = []
    with path.open(encoding="utf-8") as lines:
        for position, line in enumerate(lines, start=1):
            try:
                rows.append(ExampleRow(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise DataError(f"{path}:{position} is not an example: {error}") from error
    return rows


def _timeless(value: Any) -> Any:
    """Without keys that hold times or money, wherever they are: `created`, `commit`, `usd` and all that count seconds."""
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in ("created", "commit", "usd") and "second" not in k}
    return [_timeless(item) for item in value] if isinstance(value, list | tuple) else value
