"""The board, schema version 1, as it is written, read and rendered. Everything people see is made from it alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from harness.board.by_model import SEPARATOR, AcrossEntry, ModelEntry
from harness.board.entries import (
    SIGNIFICANCE_LEVEL,
    AgreementEntry,
    AnalysisEntry,
    BoardEntry,
    ConfigShape,
    CostEntry,
    Delta,
    FamilyEntry,
    FirstPlaceEntry,
    Kind,
    MetricEntry,
    NoiseEntry,
    PowerEntry,
    RankEntry,
    RowEntry,
    ScoreEntry,
    StatisticsEntry,
    WinMatrix,
    WinsEntry,
    first_duplicate,
    unwritable,
)
from harness.board.evidence import BuildRecord, Evidence, StagesEvidence
from harness.board.facts import SharingFacts
from harness.board.files import (
    BOARD,
    EVIDENCE,
    EXAMPLES,
    SCORES,
    STATES,
    ExampleRow,
    Scores,
    States,
    digest,
    examples_text,
    read_examples,
    read_scores,
    read_states,
    scores_bytes,
    states_bytes,
    write_bytes,
    write_text,
)
from harness.board.tuning import tuned_alike
from harness.board.views.text import number, p_value, plain, signed
from harness.errors import DataError, Problem

if TYPE_CHECKING:
    import pandas as pd

    from harness.board.views.notebook import Picture, Plot

Text = TypeVar("Text")  # what an example holds of a row: its answer, or judgments of it

ONE_SEED = "Seeds were not sampled: each row is one training, and intervals are over prompts alone."
LEADING = 0.95  # on older boards: a first place in fewer of the bootstrap draws is not certain


__all__ = [
    "SCHEMA",
    "AgreementEntry",
    "AnalysisEntry",
    "Board",
    "CostEntry",
    "Delta",
    "ExampleRow",
    "FamilyEntry",
    "FirstPlaceEntry",
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


class Board(BoardEntry):
    """A leaderboard.

    `examples` is the bare name of the file beside it that holds prompts and answers; `scores.parquet` beside it holds every
    score of every example, from which `harness verify` makes all statistics again, and `states.parquet` those of intermediate
    states where they were evaluated; `evidence.json.gz` what else it was built from. `files` maps their names to SHA-256.

    With several starting models `rows` has those of all, each labelled `<model>/<row>`; `models` has each model's statistics,
    `across` what carries over between models, and `baseline` names the row that is the baseline under each.
    """

    optional = frozenset({"analysis", "files", "models", "across"})

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
    models: tuple[ModelEntry, ...] | None = None
    across: AcrossEntry | None = None

    _example_rows: tuple[ExampleRow, ...] = PrivateAttr(default=())
    _score_file: bytes = PrivateAttr(default=b"")
    _state_file: bytes = PrivateAttr(default=b"")
    _evidence: Evidence | None = PrivateAttr(default=None)
    _evidence_file: bytes = PrivateAttr(default=b"")

    @field_validator("examples")
    @classmethod
    def _bare(cls, name: str) -> str:
        """Refuse a path: a board from elsewhere must not choose where this machine reads or writes."""
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
        for plural, names in (
            ("rows", [row.method for row in self.rows]),
            ("metrics", [metric.key for metric in self.metrics]),
        ):
            if (name := first_duplicate(names)) is not None:
                raise ValueError(f"two {plural} are called {name[:60]!r}")
        return self

    @model_validator(mode="after")
    def _rows_belong_to_models(self) -> Self:
        """Refuse rows of starting models that the board does not have, and models without `across` or the reverse."""
        models = [entry.label for entry in self.models or ()]
        if (name := first_duplicate(models)) is not None:
            raise ValueError(f"two starting models are called {name[:60]!r}")
        if bool(models) != (self.across is not None):
            raise ValueError("`models` and `across` go together")
        for row in self.rows:
            if models and (row.model not in models or not row.method.startswith(f"{row.model}{SEPARATOR}")):
                raise ValueError(f"the row {row.method[:60]!r} should begin with the label of its starting model and a slash")
            if not models and row.model is not None:
                raise ValueError(f"the row {row.method[:60]!r} has a starting model, and the board has no `models`")
        return self

    @property
    def example_rows(self) -> tuple[ExampleRow, ...]:
        """Prompts and answers, as built or as read from the file beside the board."""
        return self._example_rows

    def with_examples(self, examples: Iterable[ExampleRow]) -> Self:
        """Return the same board with these prompts and answers."""
        rows = tuple(examples)
        named = {**(self.files or {}), self.examples: digest(examples_text(rows).encode("utf-8"))}
        board = self.model_copy(update={"files": named})
        board._example_rows = rows
        return board

    def with_scores(self, scores: Scores) -> Self:
        """Return the same board with these scores per example."""
        content = scores_bytes(scores)
        board = self.model_copy(update={"files": {**(self.files or {}), SCORES: digest(content)}})
        board._score_file = content
        return board

    @property
    def score_file(self) -> bytes:
        """The scores per example as Parquet, as built or as read from the file beside the board; empty without any."""
        return self._score_file

    def with_states(self, states: States) -> Self:
        """Return the same board with these scores per example of intermediate states."""
        content = states_bytes(states)
        board = self.model_copy(update={"files": {**(self.files or {}), STATES: digest(content)}})
        board._state_file = content
        return board

    @property
    def evidence(self) -> Evidence | None:
        """The input of the board beside its scores, as built or as read from the file beside it; None without one.

        Raises:
            DataError: the file is no evidence.
        """
        if self._evidence is None and self._evidence_file:
            return Evidence.read(self._evidence_file)
        return self._evidence

    def noting(self, builds: Mapping[str, BuildRecord], left_out: Sequence[str] = ()) -> Self:
        """Return the same board with the builds that it came from, for `sealed` to write."""
        board = self.model_copy()
        board._evidence, board._evidence_file = Evidence(builds=dict(builds), left_out=tuple(left_out)), b""
        return board

    def sealed(self, runs: Sequence[StagesEvidence] = ()) -> Self:
        """Return the same board with its evidence: call it last, since any later change contradicts that.

        Args:
            runs: the stages of the runs that made its rows.
        """
        if self._evidence is None:
            raise ValueError("`build_board` notes how a board is built, and this board was not built by it")
        evidence = self._evidence.model_copy(update={"runs": tuple(runs)}).sealed(self)
        content = evidence.to_bytes()
        board = self.model_copy(update={"files": {**(self.files or {}), EVIDENCE: digest(content)}})
        board._evidence, board._evidence_file = evidence, content
        return board

    def of_model(self, label: str) -> Self:
        """Return the board of one of several starting models: its rows under their own labels, with its statistics.

        Raises:
            DataError: the board has no starting model of this label.
        """
        entry = next((entry for entry in self.models or () if entry.label == label), None)
        if entry is None:
            raise DataError(f"the board {self.name} has no starting model {label!r}")
        prefix = f"{label}{SEPARATOR}"
        config = dict(self.config)
        if isinstance(config.get("model"), list):
            sections = [section for section in config["model"] if isinstance(section, dict)]
            config["model"] = next((section for section in sections if section.get("label") == label), None)
        board = self.model_copy(
            update={
                "config": config,
                "rows": tuple(
                    row.model_copy(update={"method": row.method.removeprefix(prefix), "model": None})
                    for row in self.rows
                    if row.model == label
                ),
                "statistics": entry.statistics,
                "warnings": (*self.warnings, *entry.warnings),
                "analysis": entry.analysis,
                "models": None,
                "across": None,
            }
        )

        def own(texts: Mapping[str, Text]) -> dict[str, Text]:
            return {name.removeprefix(prefix): text for name, text in texts.items() if name.startswith(prefix)}

        board._score_file = board._state_file = board._evidence_file = b""  # they have the rows of all models
        board._evidence = None
        board._example_rows = tuple(
            replace(example, answers=own(example.answers), judged=own(example.judged)) for example in self._example_rows
        )
        return board

    @property
    def by_model(self) -> dict[str, Self]:
        """The board of each starting model, by its label; empty where all rows have the same."""
        return {entry.label: self.of_model(entry.label) for entry in self.models or ()}

    @property
    def primary(self) -> tuple[MetricEntry, ...]:
        """The metrics of the short tables: the primary ones, or the first where none is marked."""
        return tuple(metric for metric in self.metrics if metric.primary) or self.metrics[:1]

    @property
    def is_published(self) -> bool:
        """Whether all rows are printed numbers, so that there is no interval and no test."""
        return bool(self.rows) and all(row.is_published for row in self.rows)

    @property
    def mixed_judges(self) -> bool:
        """Whether rows are compared although different judges, or versions of one, marked them."""
        return bool((self.config.get("judge") or {}).get("allow_mixed_judges"))

    @property
    def ranked(self) -> list[RowEntry]:
        """The rows that compete, best first, failed ones last; on a board of published rows alone, those."""
        competing = [row for row in self.rows if not row.is_reference]
        return competing or [row for row in self.rows if row.is_published]

    @property
    def references(self) -> list[RowEntry]:
        """The rows beside the ranking."""
        competing = {row.method for row in self.ranked}
        return [row for row in self.rows if row.method not in competing]

    @property
    def answer(self) -> Answer | None:
        """The best row on the first primary metric; None where no row that competes has a score on it, or models differ."""
        metric = self.primary[0] if self.primary and not self.models else None
        leaders = [row for row in self.ranked if metric is not None and metric.key in row.scores]
        if metric is None or not leaders:
            return None
        first, second = leaders[0], leaders[1] if len(leaders) > 1 else None
        matrix = self.analysis.wins.get(metric.key) if self.analysis else None
        return Answer(
            metric=metric,
            row=first,
            score=first.scores[metric.key],
            second=None if second is None else (second, second.scores[metric.key]),
            rank=self.analysis.ranking.get(metric.key, {}).get(first.method) if self.analysis else None,
            won=None if second is None or matrix is None else matrix.share(first.method, second.method),
            tests=next((family.tests for family in self.statistics.families or () if metric.key in family.metrics), None),
            first_place=self.first_place(metric.key),
        )

    @property
    def summary(self) -> str:
        """The first row of the ranking, with what keeps its difference from being significant; one seed is named first."""
        return f"{ONE_SEED} {self.best_in_words}" if self.has_one_seed else self.best_in_words

    @property
    def best_in_words(self) -> str:
        """The summary without the note on one seed, for a view that has it elsewhere."""
        if self.models:
            return carried_over(self)
        answer = self.answer
        if answer is None:
            return "No row has a score on the first primary metric."
        sentence = f"{answer.row.method} has the best {answer.metric.key}: {number(answer.score.mean)}"
        if answer.row.method == self.baseline:
            return f"{sentence}; it is the baseline."
        delta = answer.delta
        if delta is None:
            return f"{sentence}."
        over = " over prompts" if delta.one_seed else ""
        sentence += f", {signed(delta.mean)} against {self.baseline} ({signed(delta.low)} to {signed(delta.high)}{over})"
        if delta.one_seed:
            return f"{sentence}."
        if delta.below_noise:
            return f"{sentence}. That is less than what a change of seeds alone could show."
        if delta.p_adjusted is None:
            return f"{sentence}."
        corrected = f"{p_value(delta.p_adjusted)} after correction"
        if delta.is_significant:
            return f"{sentence}. The difference holds: {corrected}."
        reason = ""
        if delta.p_adjusted < SIGNIFICANCE_LEVEL and delta.low <= 0 <= delta.high:
            reason = "its interval includes 0, although "
        return f"{sentence}. That is not a sure difference: {reason}{corrected}."

    def first_place(self, key: str) -> FirstPlaceEntry | None:
        """Return the first place on a metric; None on older boards, and where the metric has no direction."""
        return (self.analysis.first_place or {}).get(key) if self.analysis else None

    def first_places(self, metrics: Sequence[MetricEntry] | None = None, *, note: bool = True) -> list[str]:
        """Return a sentence on the first place of each metric, the primary ones if None.

        Args:
            note: with a last one on the rows that compete for none.
        """
        places = [(metric, self.first_place(metric.key)) for metric in (self.primary if metrics is None else metrics)]
        sentences = [place.sentence(self.short_name(metric)) for metric, place in places if place is not None]
        beside = {row.kind for row in self.rows if row.is_reference}
        names = {"control": "controls", "null": "null rows", "published": "published numbers"}
        kinds = [name for kind, name in names.items() if kind in beside]
        if note and sentences and kinds:
            sentences.append(f"{' and '.join(kinds).capitalize()} stand beside the ranking and do not compete.")
        return sentences

    @property
    def tuned_alike(self) -> str:
        """Whether every row that was trained here had the same search for its settings, in a sentence."""
        return tuned_alike(self.rows)

    def row(self, method: str) -> RowEntry | None:
        """Return the row with this label; None where there is none."""
        return next((row for row in self.rows if row.method == method), None)

    def noise_floor(self, key: str) -> float | None:
        """Return what a change of seeds alone makes on a metric; None where that is nothing, or is not known.

        By the first methods it is the larger bound of the null rows' intervals, which the board may not name.
        """
        if self.methods > 1:
            return self.analysis.noise.get(key) if self.analysis else None
        deltas = [delta for row in self.rows if row.is_null and (delta := row.delta(key))]
        return max((abs(bound) for delta in deltas for bound in (delta.low, delta.high)), default=0.0) or None

    def noise_entry(self, key: str) -> NoiseEntry | None:
        """Return how the noise floor of a metric is meant and how well it is known; None on boards of the first methods."""
        return (self.analysis.noise_floors or {}).get(key) if self.analysis and self.methods > 1 else None

    @property
    def methods(self) -> int:
        """The version of the statistics that the board was made with."""
        return self.statistics.methods or 1

    @property
    def has_one_seed(self) -> bool:
        """Whether every difference is of one training against one other, so that nothing is known of seeds."""
        deltas = [score.delta for row in self.rows for score in row.scores.values() if score.delta is not None]
        return bool(deltas) and all(delta.one_seed for delta in deltas)

    def power(self, key: str) -> PowerEntry | None:
        """Return the statistical power of the comparison on a metric; None on older boards."""
        return self.analysis.power.get(key) if self.analysis else None

    def short_name(self, metric: MetricEntry) -> str:
        """Return the metric's name without its evaluator, where no other metric is called so and all rows have it.

        Rows that were imported may come from other evaluators; then the evaluator is part of the name.
        """
        name = metric.key.partition("/")[2]
        ambiguous = sum(other.key.partition("/")[2] == name for other in self.metrics) > 1
        elsewhere = any(metric.key not in row.scores for row in self.rows if row.is_imported)
        return metric.key if ambiguous or elsewhere else name

    def scores_of(self, label: str, scores: Scores) -> Scores:
        """Return of all scores those of one of several starting models, under the labels that `of_model` gives its rows."""
        prefix = f"{label}{SEPARATOR}"
        return {row.removeprefix(prefix): runs for row, runs in scores.items() if row.startswith(prefix)}

    def states_of(self, label: str, states: States) -> States:
        """Return of all intermediate states those of one of several starting models, as `scores_of` returns scores."""
        return {position: own for position, scores in states.items() if (own := self.scores_of(label, scores))}

    def unscored_metrics(self, scores: Scores) -> list[MetricEntry]:
        """Return the metrics that rows have without any score per example: computed over all rows together, or made up."""
        scored = {
            f"{evaluator}/{score.metric}"
            for runs in scores.values()
            for evaluator, seeds in runs.items()
            for seed_scores in seeds.values()
            for score in seed_scores
        }
        shown = {key for row in self.rows for key in row.scores}
        return [metric for metric in self.metrics if metric.key in shown - scored]

    def to_pandas(self) -> pd.DataFrame:
        """Return one line per row and metric; see `harness.board.views.notebook.to_pandas`."""
        from harness.board.views.notebook import to_pandas

        return to_pandas(self)

    def plot(self, metric: str | None = None, picture: Picture = "differences") -> Plot:
        """Draw a metric's differences from the baseline, or the metric against the `cost`; the first primary metric if None."""
        from harness.board.views.notebook import plot

        return plot(self, metric, picture)

    def _repr_html_(self) -> str:
        """Return the HTML that a notebook shows for the board."""
        from harness.board.views.notebook import to_notebook

        return to_notebook(self)

    def without_times(self) -> dict[str, Any]:
        """Return the board without what differs between two runs of one config: times, the commit and what was reused."""
        content = _timeless(self.model_dump(mode="json", by_alias=True, exclude={"sharing"}))
        files = {name: digest for name, digest in (self.files or {}).items() if name != EVIDENCE}  # it holds times
        return {**content, "config": plain(self.config), **({"files": files} if files else {})}

    def to_json(self) -> str:
        """Return stable text: sorted keys, one space of indent, ASCII only, so that nothing in it can hide."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1, sort_keys=True, allow_nan=False) + "\n"

    def write(self, folder: Path) -> Path:
        """Write `board.json`, and beside it the examples and the scores, each whole or not at all. Returns the board's path."""
        write_text(Path(folder) / Path(self.examples).name, examples_text(self.example_rows))
        if self._score_file:
            write_bytes(Path(folder) / SCORES, self._score_file)
        if self._state_file:
            write_bytes(Path(folder) / STATES, self._state_file)
        if self._evidence_file:
            write_bytes(Path(folder) / EVIDENCE, self._evidence_file)
        return write_text(Path(folder) / BOARD, self.to_json())

    @classmethod
    def read(cls, path: Path, *, examples: bool = True) -> Board:
        """Read a board, and the files beside it.

        Args:
            examples: whether to read the examples and scores too, which are most of the bytes.

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
        schema = content.get("schema") if isinstance(content, dict) else None
        if schema != SCHEMA:
            raise DataError(f"{path} has schema {schema!r}, this version reads {SCHEMA}: write it again, or update harness")
        try:
            board = cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise DataError(f"{path} is not a whole board: {where}: {first['msg']}") from error
        except DataError as error:
            raise DataError(f"{path} is not a whole board: {error}") from error
        if not examples:
            return board
        beside = path.parent / Path(board.examples).name
        board._example_rows = tuple(read_examples(beside)) if beside.is_file() else ()
        scores = path.parent / SCORES
        board._score_file = scores.read_bytes() if scores.is_file() else b""
        states = path.parent / STATES
        board._state_file = states.read_bytes() if states.is_file() and STATES in (board.files or {}) else b""
        evidence = path.parent / EVIDENCE
        board._evidence_file = evidence.read_bytes() if evidence.is_file() and EVIDENCE in (board.files or {}) else b""
        return board


def carried_over(board: Board) -> str:
    """Return whether the order of rows carries over between starting models on the first primary metric, a sentence each."""
    metric = board.primary[0] if board.primary else None
    if metric is None or board.across is None:
        return "No metric tells whether the order of rows carries over between starting models."
    said, name = board.across.on(metric), metric.key
    sentences = [
        f"From {order.left} to {order.right} the order of {order.rows} rows on {name} {ORDER_IN_WORDS[order.verdict]}: "
        f"Kendall's τ {number(order.kendall)} ({number(order.low)} to {number(order.high)}); of {order.pairs} pairs at least "
        f"{order.same} keep their order and at least {order.reversed} reverse it."
        for order in said.orders
    ]
    for tested in said.interactions:
        depends = "depend" if tested.is_significant else "are not shown to depend"
        sentences.append(f"Differences between rows {depends} on the starting model ({p_value(tested.p_adjusted)}).")
    return " ".join(sentences) or f"Too few rows have {name} under all starting models to compare their order."


ORDER_IN_WORDS = {
    "carries over": "carries over",
    "in part": "carries over in part",
    "does not carry over": "does not carry over",
    "not sure": "is not shown to carry over",
}


def board_scores(path: Path) -> Scores:
    """Read the per-example scores beside a board: row → evaluator → seed → scores.

    Raises:
        DataError: there are none, or they cannot be read.
    """
    beside = (path if path.is_dir() else path.parent) / SCORES
    if not beside.is_file():
        raise DataError(f"{beside} is missing: it holds the scores per example; run the comparison again to write it")
    return read_scores(beside)


def board_states(path: Path) -> States:
    """Read the per-example scores of intermediate states beside a board; empty where it has none.

    Raises:
        DataError: they cannot be read.
    """
    beside = (path if path.is_dir() else path.parent) / STATES
    return read_states(beside) if beside.is_file() else {}


def _timeless(value: Any) -> Any:
    """Return a tree of JSON values without times and money: `created`, `commit`, `usd` and all that count seconds."""
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in ("created", "commit", "usd") and "second" not in k}
    return [_timeless(item) for item in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Answer:
    """The best row on the first primary metric, by how much it is better, and how certain that is.

    Attributes:
        row: the first of the rows that compete.
        second: the row after it, with its score; None where it competes alone.
        rank: of the first row over bootstrap draws; None on older boards.
        first_place: the rows that may be the best; None on older boards, and where fewer than two rows compete.
        won: share of the examples on which the first is better than the second, ties half; None on older boards.
        tests: how many tests were corrected together with the one against the baseline.
    """

    metric: MetricEntry
    row: RowEntry
    score: ScoreEntry
    second: tuple[RowEntry, ScoreEntry] | None
    rank: RankEntry | None
    won: float | None
    tests: int | None
    first_place: FirstPlaceEntry | None

    @property
    def delta(self) -> Delta | None:
        """The difference from the baseline."""
        return self.score.delta

    @property
    def verdict(self) -> str:
        """Whether the difference from the baseline is significant, and the first place where that is less certain."""
        if self.delta is not None and self.delta.one_seed:
            return "one training"
        if self.delta is None and self.first_place is not None:  # the baseline leads
            return "sure" if self.first_place.is_decided else "one training" if self.first_place.one_seed else "not sure"
        if self.delta is None or not self.delta.is_significant:
            return "not sure"
        by_draws = self.rank is None or self.rank.first >= LEADING
        leads = by_draws if self.first_place is None else self.first_place.is_decided
        return "sure" if leads else "sure of the difference, not of the first place"
