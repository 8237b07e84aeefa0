"""Read tables that papers printed, typed into YAML, as boards. Without values per example, nothing in them is tested."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.api.limits import parse_yaml
from harness.api.texts import read_text
from harness.board.board import Board
from harness.board.entries import MetricEntry, RowEntry, ScoreEntry, StatisticsEntry
from harness.board.facts import Provenance, SharingFacts
from harness.board.views.text import plain
from harness.errors import DataError
from harness.version import __version__

PRINTED = re.compile(r"(?P<mean>-?\d+(?:\.\d+)?)(?:±(?P<deviation>\d+(?:\.\d+)?))?%?(?P<mark>\*?)")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Citation(_Section):
    """The paper, and where in it."""

    title: str
    arxiv: str = Field(pattern=r"^\d{4}\.\d{4,5}$")
    table: str = Field(description="the table's number, and which part of it")


class PrintedColumn(_Section):
    """One printed column; `metric` is the key of the evaluator here that measures the same, `scale` turns into its unit."""

    metric: str = Field(pattern=r"^[^/]+/.+$")
    printed: str
    description: str
    higher_is_better: bool | None = True
    primary: bool = False
    scale: float = Field(1.0, gt=0)


class PrintedRow(_Section):
    """One printed row. `values` as printed, `62.50±0.04*` or `38.75%`, null where the paper has none."""

    method: str
    data: str | None = None
    objective: str | None = None
    rounds: int = Field(1, ge=0)
    values: tuple[str | None, ...]


class Table(_Section):
    """A published table. `setting` says what was trained on what; `notes` what a reader should know, oddities among them."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    source: Citation
    setting: str
    baseline: str
    deviation: str | None = Field(None, description="what the number behind ± is")
    notes: tuple[str, ...] = ()
    columns: tuple[PrintedColumn, ...] = Field(min_length=1)
    rows: tuple[PrintedRow, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = [row.method for row in self.rows]
        if len(set(names)) < len(names):
            raise ValueError(f"two rows are called {next(name for name in names if names.count(name) > 1)!r}")
        if self.baseline not in names:
            raise ValueError(f"baseline = {self.baseline!r} is no row")
        for row in self.rows:
            if len(row.values) != len(self.columns):
                raise ValueError(f"{row.method} has {len(row.values)} values for {len(self.columns)} columns")
            for value in row.values:
                if value is not None and PRINTED.fullmatch(value) is None:
                    raise ValueError(f"{row.method}: {value!r} is no printed number such as 7.39, 45.62% or 62.50±0.04*")
        return self


def is_published_table(path: Path) -> bool:
    return path.suffix in (".yaml", ".yml")


def read_table(path: Path) -> Table:
    """Raises DataError where the file is no such table."""
    try:
        return Table.model_validate(parse_yaml(read_text(path)))
    except yaml.YAMLError as error:
        raise DataError(f"{path} cannot be read as a published table: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the table"
        raise DataError(f"{path} is no published table: {where}: {first['msg']}") from error


def published_board(path: Path) -> Board:
    """Return the table as a board: rows of kind `published`, means alone, no interval and no test."""
    table = read_table(path)
    cited = f"{table.source.title} (arXiv:{table.source.arxiv}), {table.source.table}"
    metrics = tuple(
        MetricEntry(
            key=column.metric,
            description=f"printed as {column.printed!r}: {column.description}"
            + (", shown as a share" * (column.scale == 0.01)),
            higher_is_better=column.higher_is_better,
            primary=column.primary,
        )
        for column in table.columns
    )
    primary = next((column for column in table.columns if column.primary), table.columns[0])
    return Board(
        name=table.name,
        description=f"Published numbers, not measured here: {cited}. {table.setting}",
        created="",
        harness={"version": __version__},
        config=plain({"published": table.source.model_dump(), "setting": table.setting}),
        baseline=table.baseline,
        metrics=metrics,
        rows=_ordered([_row(row, table) for row in table.rows], primary),
        statistics=_NONE,
        sharing=SharingFacts(),
        warnings=(*table.notes, "Published numbers: they have no values per example, so nothing here is tested."),
    )


def mean_of(printed: str) -> float:
    """Return the number without deviation and star: `62.50±0.04*` → 62.5."""
    return float(_match(printed)["mean"])


def _match(printed: str) -> re.Match[str]:
    match = PRINTED.fullmatch(printed)
    if match is None:
        raise DataError(f"{printed!r} is no printed number")
    return match


def _row(row: PrintedRow, table: Table) -> RowEntry:
    cells = [(column, value) for column, value in zip(table.columns, row.values, strict=True) if value is not None]
    deviations = {c.metric: float(printed) for c, value in cells if (printed := _match(value)["deviation"])}
    provenance: dict[str, object] = {
        "source": f"arXiv:{table.source.arxiv}",
        "table": table.source.table,
        "printed": {column.printed: value for column, value in cells},
    }
    if deviations:
        provenance["deviation"] = {"what": table.deviation or "as printed behind ±", "as_printed": deviations}
    return RowEntry(
        method=row.method,
        data=row.data,
        objective=row.objective,
        rounds=row.rounds,
        kind="published",
        seeds=(),
        scores={
            column.metric: ScoreEntry(
                mean=_scaled(value, column.scale), n=1, per_seed=(), higher_is_better=column.higher_is_better
            )
            for column, value in cells
        },
        provenance=Provenance.read(provenance),
    )


def _scaled(printed: str, scale: float) -> float:
    """Multiply in decimals, so that 38.75% is 0.3875 and not 0.38750000000000001."""
    from decimal import Decimal

    return float(Decimal(_match(printed)["mean"]) * Decimal(str(scale)))


def _ordered(rows: Sequence[RowEntry], primary: PrintedColumn) -> tuple[RowEntry, ...]:
    def place(row: RowEntry) -> tuple[bool, float]:
        score = row.scores.get(primary.metric)
        mean = 0.0 if score is None else score.mean
        return score is None, mean if primary.higher_is_better is False else -mean

    return tuple(sorted(rows, key=place))


_NONE = StatisticsEntry(interval="none: published means", test="none", correction="none", draws=0, flips=0, level=0.95)
