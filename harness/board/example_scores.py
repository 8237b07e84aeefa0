"""Scores per example in columns: what the page's viewer sorts prompts by, and what `harness diff --examples` lists."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.board.board import Board
from harness.board.entries import MetricEntry
from harness.board.files import COLUMNS, MOST_SCORES, SCORES, first_error
from harness.errors import DataError

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int32]


@dataclass(frozen=True)
class MetricScores:
    """One metric's scores of the rows on the examples; NaN where there is none.

    Attributes:
        own: [rows, examples], of the first answer at the row's first seed, which is the answer that a board shows.
        means: [rows, examples], over all seeds and samples.
    """

    metric: MetricEntry
    own: Floats
    means: Floats


@dataclass(frozen=True)
class ExampleScores:
    """The scores of some rows on some examples, in the order in which their labels and ids were given.

    Attributes:
        shape: the number of rows and of examples.
        row, example, metric: [scores], the places of each score's row, example and metric.
        own: [scores], whether it belongs to the answer that the board shows.
        value: [scores].
    """

    shape: tuple[int, int]
    metrics: tuple[MetricEntry, ...]
    row: Places
    example: Places
    metric: Places
    own: npt.NDArray[np.bool_]
    value: Floats

    @classmethod
    def read(cls, board: Board, labels: Sequence[str], ids: Sequence[str], prefix: str = "") -> ExampleScores | None:
        """Read a board's scores; None without any of these rows and examples, as on boards that kept none.

        Args:
            prefix: what the file's labels have before the rows' own: a starting model's label and a slash.

        Raises:
            DataError: the file is damaged.
        """
        if not board.score_file or not ids or not labels:
            return None
        columns = _columns(board.score_file)
        row = _places(columns["row"], {f"{prefix}{label}": place for place, label in enumerate(labels)})
        example = _places(columns["example"], {name: place for place, name in enumerate(ids)})
        metric = _metric_places(columns, {metric.key: place for place, metric in enumerate(board.metrics)})
        seed, value = columns["seed"].to_numpy(), columns["value"].to_numpy()
        first = np.array([_first_seed(board, seed[row == place]) for place in range(len(labels))])
        kept = (row >= 0) & (example >= 0) & (metric >= 0) & np.isfinite(value)
        if not kept.any():
            return None
        row, example, metric = row[kept], example[kept], metric[kept]
        own = (seed[kept] == first[row]) & (columns["sample"].to_numpy()[kept] == 0)
        return cls((len(labels), len(ids)), board.metrics, row, example, metric, own, value[kept])

    def columns(self, key: str | None = None) -> Iterator[MetricScores]:
        """Yield the metrics that have scores here, or one by its key: the primary ones first, then in the board's order."""
        for place in sorted(np.unique(self.metric).tolist(), key=lambda place: (not self.metrics[place].primary, place)):
            if key is None or self.metrics[place].key == key:
                chosen = self.metric == place
                yield MetricScores(self.metrics[place], self._table(chosen & self.own), self._table(chosen))

    def _table(self, chosen: npt.NDArray[np.bool_]) -> Floats:
        """Return the means of the chosen scores, [rows, examples]."""
        size = self.shape[0] * self.shape[1]
        cells = self.row[chosen].astype(np.int64) * self.shape[1] + self.example[chosen]
        totals, counts = np.bincount(cells, self.value[chosen], size), np.bincount(cells, minlength=size)
        means = np.full(size, np.nan)
        np.divide(totals, counts, out=means, where=counts > 0)
        return means.reshape(self.shape)


def example_ids(board: Board) -> list[str]:
    """Return the ids of all examples with scores, sorted; they may have no texts on the board.

    Raises:
        DataError: the file of scores is damaged.
    """
    return sorted(set(_columns(board.score_file)["example"].dictionary.to_pylist()) - {None}) if board.score_file else []


def _columns(content: bytes) -> Mapping[str, Any]:
    """Return the columns of a file of scores, each in one chunk; repeated text is read once.

    Raises:
        DataError: the file is no Parquet, or has other columns.
    """
    import pyarrow
    import pyarrow.parquet

    texts = [name for name in ("row", "evaluator", "metric", "example") if COLUMNS[name] == "string"]
    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(content), read_dictionary=texts)
        if file.metadata.num_rows > MOST_SCORES:
            raise DataError(f"{SCORES} has {file.metadata.num_rows:,} scores, and a board has {MOST_SCORES:,} at most")
        table = file.read(columns=[*texts, "seed", "sample", "value"]).unify_dictionaries()
        columns = {name: table.column(name).combine_chunks() for name in texts}
        for name, kind, absent in (("seed", "int64", -1), ("sample", "int64", 0), ("value", "float64", float("nan"))):
            columns[name] = table.column(name).cast(pyarrow.type_for_alias(kind)).fill_null(absent).combine_chunks()
        for name in texts:  # an empty table has no chunk to combine
            if isinstance(columns[name], pyarrow.ChunkedArray):
                columns[name] = pyarrow.array([], pyarrow.string()).dictionary_encode()
            columns[name].dictionary.cast(pyarrow.string())
    except (OSError, pyarrow.ArrowException, KeyError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"{SCORES} cannot be read as per-example scores: {first_error(error)}") from error
    return columns


def _places(column: Any, known: Mapping[str, int]) -> Places:
    """Return the place of each text of a dictionary-encoded column; -1 for a text that is not known or absent."""
    words = column.dictionary.to_pylist()
    # One more entry stands for lines without a text.
    places = np.array([*(known.get(word, -1) for word in words), -1], np.int32)
    return places[_indices(column)]


def _metric_places(columns: Mapping[str, Any], known: Mapping[str, int]) -> Places:
    """Return the place of each score's metric, which a file names by evaluator and metric apart."""
    evaluators, metrics = columns["evaluator"], columns["metric"]
    names = metrics.dictionary.to_pylist()
    places = np.full((len(evaluators.dictionary) + 1, len(names) + 1), -1, np.int32)
    for place, evaluator in enumerate(evaluators.dictionary.to_pylist()):
        places[place, :-1] = [known.get(f"{evaluator}/{name}", -1) for name in names]
    return places[_indices(evaluators), _indices(metrics)]


def _indices(column: Any) -> npt.NDArray[np.int64]:
    return np.asarray(column.indices.fill_null(len(column.dictionary)), np.int64)


def _first_seed(board: Board, seeds: npt.NDArray[np.int64]) -> int:
    """Return the seed whose answers the board shows: the config's first where the row has it, else its smallest."""
    listed = board.config.get("seeds")
    first = listed[0] if isinstance(listed, list | tuple) and listed and isinstance(listed[0], int) else 0
    return first if not len(seeds) or (seeds == first).any() else int(seeds.min())
