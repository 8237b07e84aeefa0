"""Learning curves: the scores of a row at the states that its model went through while it was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from harness.board.compare import DRAWS, FLIPS, LEVEL, RowResult, RowState, aligned, readings
from harness.board.entries import MetricEntry, PointEntry, StateEntry
from harness.board.statistics import Bootstrap, Values

Place = tuple[str, float]  # a row's label and a position in its training


def learning_curves(rows: Sequence[RowResult], metrics: Sequence[MetricEntry]) -> dict[str, tuple[StateEntry, ...]]:
    """Return by label the states of each row that has any, with intervals as the rows themselves have them.

    The variance between seeds is taken from all rows at the same position of their training.
    """
    values = {
        (row.label, state.position): readings(replace(row, scores=state.scores), metrics)[0]
        for row in rows
        if not row.failed
        for state in row.states
    }
    seeds = {row.label: row.seeds for row in rows}
    points: dict[Place, dict[str, PointEntry]] = {place: {} for place in values}
    bootstrap = Bootstrap(DRAWS, FLIPS, LEVEL)
    for metric in metrics:
        for position in sorted({position for _, position in values}):
            tables = {place: read[metric.key] for place, read in values.items() if place[1] == position and metric.key in read}
            for place, point in _points(tables, bootstrap, seeds).items():
                points[place][metric.key] = point
    return {
        row.label: tuple(
            StateEntry(position=state.position, round=state.round, share=state.share, scores=points[row.label, state.position])
            for state in row.states
        )
        for row in rows
        if row.states and not row.failed
    }


def _points(
    tables: Mapping[Place, Values], bootstrap: Bootstrap, seeds: Mapping[str, tuple[int, ...]]
) -> dict[Place, PointEntry]:
    """Return means and intervals of rows on one metric at one position.

    Args:
        seeds: by label, all that the row has.
    """
    if not tables:
        return {}
    intervals = bootstrap.intervals(aligned(list(tables.values())))
    points = {}
    for (place, values), interval in zip(tables.items(), intervals, strict=True):
        kept = values.answered()
        means = tuple(float(np.nanmean(line)) for line in kept.values)
        points[place] = PointEntry(
            mean=interval.mean,
            low=interval.low,
            high=interval.high,
            n=interval.n,
            per_seed=means,
            seeds=None if kept.seeds == seeds[place[0]] else kept.seeds,
        )
    return points


def merged_states(one: Sequence[RowState], other: Sequence[RowState]) -> tuple[RowState, ...]:
    """Return the states of two results of one row, in their order; scores of a seed that both have are those of `one`."""
    states = {state.position: state for state in other}
    for state in one:
        before = states[state.position].scores if state.position in states else {}
        scores = {
            evaluator: {**before.get(evaluator, {}), **state.scores.get(evaluator, {})}
            for evaluator in {**before, **state.scores}
        }
        states[state.position] = replace(state, scores=scores)
    return tuple(states[position] for position in sorted(states))
