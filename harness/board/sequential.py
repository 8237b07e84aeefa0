"""Seeds or prompts added where they decide: look at all rows after each step, and say which rows get the next one.

A look is a pure function of the scores, so a killed run goes on to the same board, and `harness verify` computes every look
again. `harness.board.statistics.sequential` has the rule, and why its p-values hold at whichever look a row stops.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from harness.board.entries import MetricEntry, PromptsEntry, RowKind, SequentialEntry
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

    def decides(self, key: str, tables: Sequence[Values]) -> bool:
        """Return whether these values of a metric become more with each step: those of every metric do."""
        return True


@dataclass(frozen=True)
class PromptsDesign:
    """The section `evaluation: {until: decided, start: …, most: …}` of a config, and the prompts that it stands for.

    Attributes:
        evaluators: labels of those that take prompts in parts; the others score all `most` prompts of every row.
        blocks: ids of the prompts that each look adds, as far as some row has them.
    """

    start: int
    most: int
    evaluators: frozenset[str]
    blocks: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, entry: PromptsEntry | None) -> PromptsDesign | None:
        """Read a board's entry; None where it has none, or its prompts are not as many as the looks take."""
        if entry is None or not 1 <= entry.start <= entry.most:
            return None
        design = cls(entry.start, entry.most, frozenset(entry.evaluators), entry.blocks)
        sizes = [after - before for before, after in pairwise((0, *design.rule.looks))]
        return design if [len(block) for block in entry.blocks] == sizes[: len(entry.blocks)] else None

    @property
    def rule(self) -> Rule:
        return Rule.of_prompts(self.start, self.most)

    def decides(self, key: str, tables: Sequence[Values]) -> bool:
        """Return whether these values of a metric become more with each step."""
        return all(self.count({key: table}) for table in tables)

    def questions(self, count: int) -> frozenset[str]:
        """Return the ids of the first prompts, up to the look that has so many."""
        blocks = (block for look, block in zip(self.rule.looks, self.blocks, strict=False) if look <= count)
        return frozenset(name for block in blocks for name in block)

    def count(self, tables: Mapping[str, Values]) -> int:
        """Return the number of prompts that a row has, by its values of each metric; 0 where it has none."""
        here = [values for key, values in tables.items() if key.partition("/")[0] in self.evaluators]
        asked = {name for values in here for name in values.answered().questions}
        reached = [look for look, block in zip(self.rule.looks, self.blocks, strict=False) if not asked.isdisjoint(block)]
        return max(reached, default=0)


Design = SeedsDesign | PromptsDesign


def design_of(config: Mapping[str, Any], entry: PromptsEntry | None) -> Design | None:
    """Return what a board's rows got more of, where that decided: by its config, and by its entry of prompts."""
    return SeedsDesign.of(config) or PromptsDesign.of(entry)


@dataclass(frozen=True)
class Decisions:
    """The decisions of all looks so far.

    Attributes:
        counts: label -> seeds that the row has, or prompts.
        seeds: label -> seeds that it has.
        open: rows that get another seed, or more prompts.
        p: (label, metric key) -> two-sided p-values against the baseline that hold at any look: with the variance between
            seeds pooled over rows, and with the row's own.
        significant: rows that differ from the baseline on all primary metrics that they have.
        pairs: metric key -> rows that compete and the tests of all their pairs, which hold at any look; of primary metrics
            with a direction.
        may_be_best: rows that may be the best on the first primary metric; empty where that has no direction.
    """

    design: Design
    counts: Mapping[str, int]
    seeds: Mapping[str, int]
    open: frozenset[str]
    p: Mapping[tuple[str, str], tuple[float, float]]
    significant: frozenset[str]
    pairs: Mapping[str, tuple[tuple[str, ...], Pairs]]
    may_be_best: tuple[str, ...]

    @property
    def undecided(self) -> tuple[str, ...]:
        """The rows whose place is open, whether or not they get another seed or more prompts."""
        several = self.may_be_best if len(self.may_be_best) > 1 else ()
        return tuple(label for label in self.counts if label not in self.significant or label in several)

    @property
    def stopped(self) -> Stopped:
        """Why no row gets more."""
        if not self.undecided:
            return "decided"
        return "most" if max(self.counts.values(), default=0) >= self.design.most else "futile"

    def seeds_entry(self, trainings: tuple[int, int] | None) -> SequentialEntry | None:
        """Return the board's entry; `trainings` are those that ran, and those of `most` seeds for every row."""
        if not isinstance(self.design, SeedsDesign):
            return None
        ran, fixed = trainings or (None, None)
        return SequentialEntry(
            start=self.design.start,
            most=self.design.most,
            seeds=dict(self.counts),
            stopped=self.stopped,
            may_be_best=self.may_be_best,
            trainings=ran,
            trainings_fixed=fixed,
        )

    def prompts_entry(self) -> PromptsEntry | None:
        """Return the board's entry."""
        if not isinstance(self.design, PromptsDesign):
            return None
        return PromptsEntry(
            start=self.design.start,
            most=self.design.most,
            evaluators=tuple(sorted(self.design.evaluators)),
            prompts=dict(self.counts),
            stopped=self.stopped,
            may_be_best=self.may_be_best,
            evaluations=sum(count * self.seeds[label] for label, count in self.counts.items()),
            evaluations_fixed=sum(self.design.most * self.seeds[label] for label in self.counts),
            blocks=self.design.blocks,
        )


def decisions(
    design: Design,
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
    counts = seeds
    if isinstance(design, PromptsDesign):
        over_rows = {metric.key for metric in metrics if metric.fit == "rows"}  # has values of prompts that a row never had
        own = {label: {key: table for key, table in values[label].items() if key not in over_rows} for label in labels}
        counts = {label: count for label in labels if (count := design.count(own[label]))}
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
        if not design.decides(metric.key, [values[label][metric.key] for label in rows]):
            continue
        first = metric is primary[0] and metric.higher_is_better is not None
        ordered = metric.key in keys and metric.higher_is_better is not None
        competing = np.array([not kinds[label].is_reference for label in rows])
        tables = [values[label][metric.key] for label in rows]
        # Every look asks all rows that have so many: a row that one metric closed may have them for another's sake.
        state, rule = State.start(len(rows)), design.rule
        opened = state.open
        for number, shown in enumerate(_looks(design, tables, -1.0 if metric.higher_is_better is False else 1.0)):
            state = replace(state, look=number, open=np.ones(len(rows), dtype=bool))
            against = partial(
                decide,
                shown,
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
    return Decisions(design, counts, seeds, frozenset(open_), p, frozenset(counts) - undecided, pairs, best)


def crossed_tables(rows: Sequence[Values], sign: float) -> Floats:
    """Return [rows, seeds, questions] of rows that were asked the same, turned by `sign`; NaN where a row has no such seed.

    There are no other holes: `_tables` says how a missing cell is filled.
    """
    return _tables(rows, [sorted({name for row in rows for name in row.questions})], sign)[0]


def _looks(design: Design, rows: Sequence[Values], sign: float) -> Iterator[Floats]:
    """Yield what each look saw, [rows, seeds, questions]: what a row had not got yet, or has not at all, is NaN."""
    if isinstance(design, SeedsDesign):
        questions = sorted({name for row in rows for name in row.questions})
        tables, _ = _tables(rows, [questions], sign)
        for look in design.rule.looks[: max(0, tables.shape[1] - design.start + 1)]:
            yield tables[:, :look]
    else:
        tables, ends = _tables(rows, design.blocks, sign)
        for end in ends:
            yield tables[:, :, :end]


def _tables(rows: Sequence[Values], blocks: Sequence[Sequence[str]], sign: float) -> tuple[Floats, list[int]]:
    """Return [rows, seeds, questions] and where each block of questions ends; NaN where a row has no such seed or block.

    There are no other holes. A missing cell of a seed that ran (a judgment that could not be read) is filled with what its
    seed and its question give together; a question that most of the rows lack that have its block is left out.
    """
    seeds = sorted({seed for row in rows for seed in row.seeds})
    names = [name for block in blocks for name in block]
    numbers = {name: place for place, name in enumerate(names)}
    block = np.repeat(np.arange(len(blocks)), [len(listed) for listed in blocks])
    tables = np.full((len(rows), len(seeds), len(names)), np.nan)
    for table, row in zip(tables, rows, strict=True):
        here = np.array([place for place, name in enumerate(row.questions) if name in numbers], dtype=np.intp)
        columns = np.array([numbers[row.questions[place]] for place in here], dtype=np.intp)
        for seed, cells in zip(row.seeds, row.values[:, here], strict=True):
            finite = np.isfinite(cells)
            totals = np.bincount(columns[finite], cells[finite], len(names))
            counts = np.bincount(columns[finite], minlength=len(names))
            np.divide(totals, counts, out=table[seeds.index(seed)], where=counts > 0)
    present = np.isfinite(tables)
    ran = np.zeros(tables.shape, dtype=bool)  # cells of a seed and a block that the row has
    for number in range(len(blocks)):
        ran[..., block == number] = present[..., block == number].any(axis=-1, keepdims=True)
    kept = present.sum(axis=(0, 1)) >= 0.5 * np.maximum(ran.sum(axis=(0, 1)), 1)
    tables, ran, block = tables[..., kept], ran[..., kept], block[kept]
    ran &= np.isfinite(tables).any(axis=-1, keepdims=True)
    if not ran.any():
        return np.full((len(rows), len(seeds), 1), np.nan), [1]
    of_seed = _means(tables, axis=-1)
    of_question = _means(np.where(ran, tables - of_seed, np.nan), axis=(0, 1))
    filled = np.where(np.isfinite(tables), tables, of_seed + of_question)
    ends = [int((block <= number).sum()) for number in range(len(blocks))]
    return np.asarray(sign * np.where(ran, filled, np.nan)), ends


def _means(tables: Floats, axis: int | tuple[int, ...]) -> Floats:
    """Return means over the values that there are, with the axis kept; 0 where there is none."""
    present = np.isfinite(tables)
    counts = present.sum(axis=axis, keepdims=True)
    return np.asarray(np.where(present, tables, 0.0).sum(axis=axis, keepdims=True) / np.maximum(counts, 1))
