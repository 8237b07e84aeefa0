"""Seeds added where they decide: look at all rows after each seed, and say which rows get another one.

A look is a pure function of the scores, so a killed run goes on to the same board, and `harness verify` computes every look
again. `harness.board.statistics.sequential` has the rule, and why its p-values hold at whichever look a row stops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from harness.board.entries import MetricEntry, RowKind, SequentialEntry
from harness.board.statistics import Floats, Pairs, Rule, State, Values, decide

Stopped = Literal["decided", "futile", "most"]


@dataclass(frozen=True)
class SeedsDesign:
    """The section `seeds: {until: decided, start: …, most: …}` of a config: the seeds 0, 1, … that a row can have."""

    start: int
    most: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> SeedsDesign | None:
        """Read a config as JSON, such as a board's; None where it lists seeds, or holds something else."""
        seeds = config.get("seeds")
        if not isinstance(seeds, Mapping) or seeds.get("until") != "decided":
            return None
        start, most = seeds.get("start", 2), seeds.get("most", 8)
        whole = all(isinstance(number, int) and not isinstance(number, bool) for number in (start, most))
        return cls(start, most) if whole and 2 <= start <= most else None

    @property
    def rule(self) -> Rule:
        return Rule.of_seeds(self.start, self.most)


@dataclass(frozen=True)
class Decisions:
    """The decisions of all looks so far.

    Attributes:
        seeds: label -> seeds that it has.
        open: rows that get another seed.
        p: (label, metric key) -> two-sided p-values against the baseline that hold at any look: with the variance between
            seeds pooled over rows, and with the row's own.
        significant: rows that differ from the baseline on all primary metrics that they have.
        pairs: metric key -> rows that compete and the tests of all their pairs, which hold at any look; of primary metrics
            with a direction.
        may_be_best: rows that may be the best on the first primary metric; empty where that has no direction.
    """

    design: SeedsDesign
    seeds: Mapping[str, int]
    open: frozenset[str]
    p: Mapping[tuple[str, str], tuple[float, float]]
    significant: frozenset[str]
    pairs: Mapping[str, tuple[tuple[str, ...], Pairs]]
    may_be_best: tuple[str, ...]

    @property
    def looks(self) -> int:
        """Seeds of the rows that have the most."""
        return max(self.seeds.values(), default=0)

    @property
    def undecided(self) -> tuple[str, ...]:
        """The rows whose place is open, whether or not they get another seed."""
        several = self.may_be_best if len(self.may_be_best) > 1 else ()
        return tuple(label for label in self.seeds if label not in self.significant or label in several)

    @property
    def stopped(self) -> Stopped:
        """Why no row gets another seed."""
        if not self.undecided:
            return "decided"
        return "most" if self.looks >= self.design.most else "futile"

    def entry(self, trainings: tuple[int, int] | None) -> SequentialEntry:
        """Return the board's entry; `trainings` are those that ran, and those of `most` seeds for every row."""
        ran, fixed = trainings or (None, None)
        return SequentialEntry(
            start=self.design.start,
            most=self.design.most,
            seeds=dict(self.seeds),
            stopped=self.stopped,
            may_be_best=self.may_be_best,
            trainings=ran,
            trainings_fixed=fixed,
        )


def decisions(
    design: SeedsDesign,
    values: Mapping[str, Mapping[str, Values]],
    kinds: Mapping[str, RowKind],
    metrics: Sequence[MetricEntry],
    baseline: str,
) -> Decisions:
    """Return what the looks at these scores decide, from the first one on.

    Args:
        values: label -> metric key -> values of the seeds so far; rows without any, such as failed ones, take no part.
        kinds: label -> the row, which says whether it competes.
    """
    labels = [label for label, by_key in values.items() if by_key and kinds[label].is_trained_here]
    seeds = {label: max(len(table.answered().seeds) for table in values[label].values()) for label in labels}
    primary = [metric for metric in metrics if metric.primary] or list(metrics[:1])
    keys = {metric.key for metric in primary}
    compared = {key: [label for label in labels if key in values[label]] for key in (metric.key for metric in metrics)}
    tests = sum(max(0, len(compared[key]) - 1) for key in keys)
    open_: set[str] = set()
    p: dict[tuple[str, str], tuple[float, float]] = {}
    undecided: set[str] = set()
    best: tuple[str, ...] = ()
    pairs: dict[str, tuple[tuple[str, ...], Pairs]] = {}
    for metric in metrics:
        rows = compared[metric.key]
        if baseline not in rows or len(rows) < 2:
            continue
        first = metric is primary[0] and metric.higher_is_better is not None
        ordered = metric.key in keys and metric.higher_is_better is not None
        competing = np.array([not kinds[label].is_reference for label in rows])
        tables = _tables([values[label][metric.key] for label in rows], -1.0 if metric.higher_is_better is False else 1.0)
        # Every look asks all rows that have the seed: a row that one metric closed may have it for another's sake.
        state, rule = State.start(len(rows)), design.rule
        opened = state.open
        for number, look in enumerate(rule.looks[: max(0, tables.shape[1] - design.start + 1)]):
            state = replace(state, look=number, open=np.ones(len(rows), dtype=bool))
            against = partial(
                decide,
                tables[:, :look],
                state,
                rule,
                baseline=rows.index(baseline),
                tests=tests if metric.key in keys else None,
                competing=competing,
            )
            state = against(best=ordered)
            # Only the first place on the first primary metric is worth seeds; on the others it is stated alone.
            opened = state.open if first or not ordered else against(best=False).open
        p |= {
            (label, metric.key): (float(state.p[place]), float(state.p_own[place]))
            for place, label in enumerate(rows)
            if label != baseline
        }
        if metric.key in keys:
            open_ |= {label for label, yes in zip(rows, opened, strict=True) if yes}
            undecided |= {label for label, yes in zip(rows, state.significant, strict=True) if not yes and label != baseline}
        if ordered:
            at = np.flatnonzero(competing)
            inside = np.ix_(at, at)
            pairs[metric.key] = tuple(rows[i] for i in at), Pairs(state.p_pair[inside], state.p_pair_own[inside])
        if first:
            best = tuple(sorted(label for label, yes in zip(rows, state.may_be_best, strict=True) if yes))
    return Decisions(design, seeds, frozenset(open_), p, frozenset(labels) - undecided, pairs, best)


def _tables(rows: Sequence[Values], sign: float) -> Floats:
    """Return [rows, seeds, questions] with NaN where a row has no such seed, and no other holes.

    A missing cell of a seed that ran (a judgment that could not be read) is filled with what its seed and its question give
    together; a question that most rows lack is left out.
    """
    seeds = sorted({seed for row in rows for seed in row.seeds})
    numbers = {name: place for place, name in enumerate(sorted({name for row in rows for name in row.questions}))}
    tables = np.full((len(rows), len(seeds), len(numbers)), np.nan)
    for table, row in zip(tables, rows, strict=True):
        columns = np.array([numbers[name] for name in row.questions], dtype=np.intp)
        for seed, cells in zip(row.seeds, row.values, strict=True):
            finite = np.isfinite(cells)
            totals = np.bincount(columns[finite], cells[finite], len(numbers))
            counts = np.bincount(columns[finite], minlength=len(numbers))
            np.divide(totals, counts, out=table[seeds.index(seed)], where=counts > 0)
    ran = np.isfinite(tables).any(axis=-1)
    tables = tables[:, :, np.isfinite(tables[ran]).mean(axis=0) >= 0.5]
    ran &= np.isfinite(tables).any(axis=-1)
    if tables.shape[-1] == 0 or not ran.any():
        return np.full((len(rows), len(seeds), 1), np.nan)
    of_seed = np.nanmean(np.where(ran[..., None], tables, 0.0), axis=-1, keepdims=True)
    of_question = np.nanmean((tables - of_seed)[ran], axis=0)
    filled = np.where(np.isfinite(tables), tables, of_seed + of_question)
    return np.asarray(sign * np.where(ran[..., None], filled, np.nan))
