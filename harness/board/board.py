"""The board, schema version 1: what is written, read and rendered. Everything people see is made from it alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from harness.board.entries import (
    AgreementEntry,
    AnalysisEntry,
    ConfigShape,
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
    twice,
    unwritable,
)
from harness.board.facts import SharingFacts
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
from harness.board.views.text import marks, number, p_value, plain, signed
from harness.errors import DataError, Problem

if TYPE_CHECKING:
    import pandas as pd

    from harness.board.views.notebook import Picture, Plot

Verdict = Literal["better", "worse", "different", "unclear"]
LEADING = 0.95  # a first place in fewer of the bootstrap draws may be another row's
SURE = 0.05  # an adjusted p-value below this is marked


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
    sharing: SharingFacts
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


def is_reference(row: RowEntry) -> bool:
    """Rows that stand beside the ranking: controls, null rows, numbers from elsewhere."""
    return row.kind in ("control", "null", "published")


def ranked(board: Board) -> list[RowEntry]:
    """The rows that compete, best first, failed ones last; on a board of published rows alone, those."""
    competing = [row for row in board.rows if not is_reference(row)]
    return competing or [row for row in board.rows if row.kind == "published"]


def references(board: Board) -> list[RowEntry]:
    competing = {row.method for row in ranked(board)}
    return [row for row in board.rows if row.method not in competing]


def noise_floor(board: Board, key: str) -> float | None:
    """What a change of seeds alone could show: the larger bound, in size, of the null rows' intervals.

    None without a null row, and where the null rows equal the baseline whatever the seeds (an interval of 0 to 0).
    """
    nulls = [delta for row in board.rows if row.kind == "null" and (delta := delta_of(row, key))]
    return max((abs(bound) for delta in nulls for bound in (delta.low, delta.high)), default=0.0) or None


def delta_of(row: RowEntry, key: str) -> Delta | None:
    score = row.scores.get(key)
    return None if score is None else score.delta


def is_sure(delta: Delta) -> bool:
    """Whether a difference stands: p < 0.05 after correction, an interval over seeds and prompts without 0, above the noise.

    The test alone is not enough: it takes the trained models as given, so two trainings of one method can differ 'surely'.
    """
    corrected = delta.p_adjusted is not None and delta.p_adjusted < SURE
    return corrected and not delta.low <= 0 <= delta.high and not delta.below_noise


def mark(delta: Delta) -> str:
    """Asterisks for a difference that stands, ≈ for one below the noise floor, nothing for any other."""
    if delta.below_noise:
        return "≈"
    return marks(delta.p_adjusted) if is_sure(delta) else ""


def verdict(delta: Delta, metric: MetricEntry) -> Verdict:
    """What may be said of a difference."""
    if not is_sure(delta):
        return "unclear"
    if metric.higher_is_better is None:
        return "different"
    return "better" if (delta.mean > 0) == metric.higher_is_better else "worse"


def short_name(board: Board, metric: MetricEntry) -> str:
    """The metric without its evaluator where that is enough: no other is called so, and no row comes from other evaluators."""
    name = metric.key.partition("/")[2]
    twice = sum(other.key.partition("/")[2] == name for other in board.metrics) > 1
    apart = any(metric.key not in row.scores for row in board.rows if row.kind == "imported")
    return metric.key if twice or apart else name


@dataclass(frozen=True)
class Answer:
    """Which row is best on the first primary metric, by how much, and how sure that is.

    Attributes:
        row: the first of the rows that compete.
        second: the one after it, with its score; None where it competes alone.
        rank: of the first row over bootstrap draws, where the board tells.
        won: share of the examples on which the first is better than the second, ties half, where the board tells.
        tests: how many were corrected together with the one against the baseline.
    """

    metric: MetricEntry
    row: RowEntry
    score: ScoreEntry
    second: tuple[RowEntry, ScoreEntry] | None
    rank: RankEntry | None
    won: float | None
    tests: int | None

    @property
    def delta(self) -> Delta | None:
        return self.score.delta

    @property
    def verdict(self) -> str:
        """Of the difference from the baseline, and of the first place where that is less sure."""
        if self.delta is None or not is_sure(self.delta):
            return "not sure"
        return "sure" if self.rank is None or self.rank.first >= LEADING else "sure of the difference, not of the first place"


def answer(board: Board) -> Answer | None:
    """None where no row that competes has a score on the first primary metric."""
    metric = board.primary[0] if board.primary else None
    leaders = [row for row in ranked(board) if metric is not None and metric.key in row.scores]
    if metric is None or not leaders:
        return None
    first, second = leaders[0], leaders[1] if len(leaders) > 1 else None
    families = board.statistics.families or ()
    return Answer(
        metric=metric,
        row=first,
        score=first.scores[metric.key],
        second=None if second is None else (second, second.scores[metric.key]),
        rank=board.analysis.ranking.get(metric.key, {}).get(first.method) if board.analysis else None,
        won=None if second is None else _won(board, metric, first.method, second.method),
        tests=next((family.tests for family in families if metric.key in family.metrics), None),
    )


def _won(board: Board, metric: MetricEntry, first: str, second: str) -> float | None:
    matrix = board.analysis.wins.get(metric.key) if board.analysis else None
    if matrix is None or not {first, second} <= set(matrix.methods):
        return None
    return matrix.shares[matrix.methods.index(first)][matrix.methods.index(second)]


def power(board: Board, key: str) -> PowerEntry | None:
    """What the comparison could see of a metric, where the board tells."""
    return board.analysis.power.get(key) if board.analysis else None


def summary(board: Board) -> str:
    """The first row of the ranking in one sentence, with what keeps it from being sure."""
    leaders = [row for row in ranked(board) if board.primary and board.primary[0].key in row.scores]
    if not leaders:
        return "No row has a score on the first primary metric."
    leader, metric = leaders[0], board.primary[0]
    score = leader.scores[metric.key]
    said = f"{leader.method} has the best {metric.key}: {number(score.mean)}"
    if leader.method == board.baseline:
        return f"{said}; it is the baseline."
    delta = score.delta
    if delta is None:
        return f"{said}."
    said += f", {signed(delta.mean)} against {board.baseline} ({signed(delta.low)} to {signed(delta.high)})"
    if delta.below_noise:
        return f"{said}. That is less than what a change of seeds alone could show."
    if delta.p_adjusted is None:
        return f"{said}."
    sure = "The difference holds" if is_sure(delta) else "That is not a sure difference"
    return f"{said}. {sure}: {p_value(delta.p_adjusted)} after correction."
