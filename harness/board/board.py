"""The board, schema version 1: what is written, read and rendered. Everything people see is made from it alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from harness.errors import DataError, Problem
from harness.board.entries import (
    AgreementEntry,
    AnalysisEntry,
    CostEntry,
    Delta,
    Entry,
    FamilyEntry,
    Kind,
    MetricEntry,
    PowerEntry,
    RankEntry,
    RowEntry,
    ScoreEntry,
    StatisticsEntry,
    WinMatrix,
    WinsEntry,
)
from harness.board.files import (
    BOARD,
    EXAMPLES,
    SCORES,
    ExampleRow,
    Scores,
    digest,
    examples_text,
    read_examples,
    read_scores,
    scores_bytes,
    write_bytes,
    write_text,
)
from harness.board.shapes import ConfigShape, SharingShape, twice, unwritable
from harness.board.views.text import plain

if TYPE_CHECKING:
    import pandas as pd

    from harness.board.views.notebook import Picture, Plot

__all__ = [
    "SCHEMA",
    "AgreementEntry",
    "AnalysisEntry",
    "Board",
    "CostEntry",
    "Delta",
    "ExampleRow",
    "FamilyEntry",
    "Kind",
    "MetricEntry",
    "PowerEntry",
    "RankEntry",
    "RowEntry",
    "ScoreEntry",
    "StatisticsEntry",
    "WinMatrix",
    "WinsEntry",
    "write_text",
]
SCHEMA = 1


class Board(Entry):
    """A leaderboard.

    `examples` is the bare name of the file beside it that holds prompts and answers; `scores.parquet` beside it holds every
    score of every example, from which `harness verify` makes all statistics again. `files` maps their names to SHA-256.
    """

    optional = frozenset({"analysis", "files"})

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
    analysis: AnalysisEntry | None = None
    files: dict[str, str] | None = None

    _example_rows: tuple[ExampleRow, ...] = PrivateAttr(default=())
    _score_file: bytes = PrivateAttr(default=b"")

    @field_validator("examples")
    @classmethod
    def _bare(cls, name: str) -> str:
        """A board from elsewhere must not choose where this machine reads or writes."""
        parts = {PurePosixPath(name).name, PureWindowsPath(name).name}
        if parts != {name} or name in ("", "..") or not name.isprintable():
            raise DataError(str(Problem("examples", name, f"give a file name without a folder, such as {EXAMPLES!r}")))
        return name

    @field_validator("config")
    @classmethod
    def _config_says_what_is_read(cls, config: dict[str, Any]) -> dict[str, Any]:
        ConfigShape.model_validate(config)
        return config

    @field_validator("sharing")
    @classmethod
    def _sharing_says_what_is_read(cls, sharing: dict[str, Any]) -> dict[str, Any]:
        SharingShape.model_validate(sharing)
        return sharing

    @model_validator(mode="after")
    def _names_are_names(self) -> Self:
        for what, names in (("rows", [row.method for row in self.rows]), ("metrics", [metric.key for metric in self.metrics])):
            if (name := twice(names)) is not None:
                raise ValueError(f"two {what} are called {name[:60]!r}")
        return self

    @property
    def example_rows(self) -> tuple[ExampleRow, ...]:
        """Prompts and answers, as built or as read from the file beside the board."""
        return self._example_rows

    def with_examples(self, examples: Iterable[ExampleRow]) -> Self:
        """The same board with these prompts and answers."""
        rows = tuple(examples)
        named = {**(self.files or {}), self.examples: digest(examples_text(rows).encode("utf-8"))}
        board = self.model_copy(update={"files": named})
        board._example_rows = rows
        return board

    def with_scores(self, scores: Scores) -> Self:
        """The same board with these scores per example."""
        content = scores_bytes(scores)
        board = self.model_copy(update={"files": {**(self.files or {}), SCORES: digest(content)}})
        board._score_file = content
        return board

    @property
    def primary(self) -> tuple[MetricEntry, ...]:
        """The metrics of the short tables: the primary ones, or the first where none is marked."""
        return tuple(metric for metric in self.metrics if metric.primary) or self.metrics[:1]

    def row(self, method: str) -> RowEntry | None:
        return next((row for row in self.rows if row.method == method), None)

    def to_pandas(self) -> pd.DataFrame:
        """One line per row and metric; see `harness.board.views.notebook.to_pandas`."""
        from harness.board.views.notebook import to_pandas

        return to_pandas(self)

    def plot(self, metric: str | None = None, picture: Picture = "differences") -> Plot:
        """A metric's differences from the baseline, or the metric against the `cost`; the first primary one if absent."""
        from harness.board.views.notebook import plot

        return plot(self, metric, picture)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from harness.board.views.notebook import to_notebook

        return to_notebook(self)

    def without_times(self) -> dict[str, Any]:
        """The board without what differs between two runs of one config: times, the commit and what was reused."""
        kept: dict[str, Any] = _timeless(self.model_dump(mode="json", by_alias=True))
        return {key: value for key, value in kept.items() if key != "sharing"} | {"config": plain(self.config)}

    def to_json(self) -> str:
        """Stable text: sorted keys, one space of indent, ASCII only, so that nothing in it can hide."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1, sort_keys=True, allow_nan=False) + "\n"

    def write(self, folder: Path) -> Path:
        """Write `board.json`, and beside it the examples and the scores, each whole or not at all. Returns the board's path."""
        write_text(Path(folder) / Path(self.examples).name, examples_text(self.example_rows))
        if self._score_file:
            write_bytes(Path(folder) / SCORES, self._score_file)
        return write_text(Path(folder) / BOARD, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Board:
        """Read a board, and the examples where their file is beside it.

        Raises:
            DataError: the file is missing, damaged, or of a schema this version doesn't know.
        """
        path = Path(path)
        path = path / BOARD if path.is_dir() else path
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path} cannot be read as a board: {error}") from error
        for problem in unwritable(content):
            raise DataError(f"{path} is not a whole board: {problem}")
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
        board._example_rows = tuple(read_examples(beside)) if beside.is_file() else ()
        scores = path.parent / SCORES
        board._score_file = scores.read_bytes() if scores.is_file() else b""
        return board


def board_scores(path: Path) -> Scores:
    """The per-example scores beside a board: row → evaluator → seed → scores.

    Raises:
        DataError: there are none, or they cannot be read.
    """
    beside = (path if path.is_dir() else path.parent) / SCORES
    if not beside.is_file():
        raise DataError(f"{beside} is missing: it holds the scores per example; run the comparison again to write it")
    return read_scores(beside)


def _timeless(value: Any) -> Any:
    """Without keys that hold times or money, wherever they are: `created`, `commit`, `usd` and all that count seconds."""
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in ("created", "commit", "usd") and "second" not in k}
    return [_timeless(item) for item in value] if isinstance(value, list | tuple) else value
