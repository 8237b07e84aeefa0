"""The parts of a board with several starting models: each model's own statistics, and what carries over between models.

The rows of all models stand in `Board.rows`, each labelled `<model>/<row>`; `Board.of_model` gives the board of one model.
"""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from harness.board.entries import SIGNIFICANCE_LEVEL, AnalysisEntry, BoardEntry, FamilyEntry, MetricEntry, StatisticsEntry

SEPARATOR = "/"  # between a model's label, which has none, and a row's


class ModelEntry(BoardEntry):
    """A starting model: the statistics of its rows, which are compared with its own baseline and corrected on their own."""

    optional = frozenset({"analysis"})

    label: str
    statistics: StatisticsEntry
    warnings: tuple[str, ...] = ()
    analysis: AnalysisEntry | None = None

    @field_validator("label")
    @classmethod
    def _begins_a_row(cls, label: str) -> str:
        if not label or SEPARATOR in label:
            raise ValueError(f"a starting model's label begins those of its rows, and {label[:40]!r} cannot: it has no `/`")
        return label


class OrderEntry(BoardEntry):
    """Whether two starting models order the rows that compete alike, on one metric.

    `kendall` (τ-b) and `spearman` are of the means. Of the `pairs` of rows at least `same` truly have the same order under
    both, and at least `reversed` have not, which puts the true τ between `low` and `high`: all of it with 95 % confidence.
    """

    metric: str
    left: str
    right: str
    rows: int
    kendall: float
    spearman: float
    low: float
    high: float
    pairs: int
    same: int
    reversed: int

    @property
    def verdict(self) -> Literal["carries over", "in part", "does not carry over", "not sure"]:
        """Whether the order carries over, as far as the bounds tell.

        It carries over where most pairs keep their order for sure, and does not where most may not; `in part` where no more
        is known than that some pairs keep it, or that some keep it and some do not.
        """
        if self.high < 0 or (self.reversed and not self.same):
            return "does not carry over"
        if self.low > 0 and not self.reversed:
            return "carries over"
        return "in part" if self.same else "not sure"


class InteractionEntry(BoardEntry):
    """The F test, on one metric, that the differences between rows are the same under all starting models.

    `freedom`: of the interaction and of its error. `p_adjusted` is Holm's over the primary metrics.
    """

    metric: str
    f: float
    freedom: tuple[float, float]
    p: float
    p_adjusted: float
    rows: int
    seeds: int
    questions: int

    @property
    def is_significant(self) -> bool:
        """Whether seeds were sampled, and the differences between rows depend on the model."""
        return self.seeds > 1 and self.p_adjusted < SIGNIFICANCE_LEVEL


class GainEntry(BoardEntry):
    """A row's difference from the baseline under one starting model minus that under another; tests as of a `Delta`."""

    optional = frozenset({"one_seed"})

    metric: str
    row: str
    left: str
    right: str
    mean: float
    low: float
    high: float
    p: float
    p_own: float
    p_adjusted: float
    one_seed: Literal[True] | None = None

    @property
    def is_significant(self) -> bool:
        """Whether the row gains more under one of the models."""
        return self.p_adjusted < SIGNIFICANCE_LEVEL and not self.low <= 0 <= self.high and not self.one_seed


class ReversalEntry(BoardEntry):
    """A pair of rows of which another one is better under each model, by the means.

    `better` is so under `left`. `difference_left` and `difference_right` are better minus worse, in the metric's unit.
    """

    metric: str
    left: str
    right: str
    better: str
    worse: str
    difference_left: float
    difference_right: float
    p: float
    p_adjusted: float


class AcrossEntry(BoardEntry):
    """The comparison between starting models, on the primary metrics; `families` are the tests corrected together."""

    orders: tuple[OrderEntry, ...] = ()
    interactions: tuple[InteractionEntry, ...] = ()
    gains: tuple[GainEntry, ...] = ()
    reversals: tuple[ReversalEntry, ...] = ()
    families: tuple[FamilyEntry, ...] = ()

    def on(self, metric: MetricEntry) -> AcrossEntry:
        """Return what is said of one metric."""
        key = metric.key
        return AcrossEntry(
            orders=tuple(entry for entry in self.orders if entry.metric == key),
            interactions=tuple(entry for entry in self.interactions if entry.metric == key),
            gains=tuple(entry for entry in self.gains if entry.metric == key),
            reversals=tuple(entry for entry in self.reversals if entry.metric == key),
        )

    def significant_reversals(self, one_seed: bool) -> list[ReversalEntry]:
        """Return the pairs whose order reverses significantly; none where seeds were not sampled."""
        return [] if one_seed else [entry for entry in self.reversals if entry.p_adjusted < SIGNIFICANCE_LEVEL]
