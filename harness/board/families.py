"""Tests that are corrected together: the primary metrics of all rows one family, the other metrics another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.board.entries import FamilyEntry, MetricEntry
from harness.board.statistics import Difference, benjamini_hochberg, holm

SURE = 0.05  # the family-wise error that a board allows itself
Cell = tuple[str, str]  # a row's label and a metric's key


@dataclass(frozen=True)
class Correction:
    """The p-values of every tested cell, corrected within its family.

    Attributes:
        adjusted: after Holm.
        discovery: after Benjamini–Hochberg.
    """

    families: tuple[FamilyEntry, ...]
    adjusted: Mapping[Cell, float]
    discovery: Mapping[Cell, float]

    def alpha(self, key: str) -> float:
        """The level of Holm's first step in the family of this metric."""
        return SURE / max(1, next((family.tests for family in self.families if key in family.metrics), 1))


def correct(metrics: Sequence[MetricEntry], differences: Mapping[Cell, Difference]) -> Correction:
    """Holm and Benjamini–Hochberg over rows × metrics."""
    families: list[FamilyEntry] = []
    adjusted: dict[Cell, float] = {}
    discovery: dict[Cell, float] = {}
    for name, primary in (("primary metrics", True), ("other metrics", False)):
        keys = tuple(metric.key for metric in metrics if metric.primary == primary)
        cells = [cell for cell in differences if cell[1] in keys]
        p = [differences[cell].p for cell in cells]
        adjusted |= dict(zip(cells, holm(p), strict=True))
        discovery |= dict(zip(cells, benjamini_hochberg(p), strict=True))
        if cells:
            tested = tuple(key for key in keys if any(key == cell[1] for cell in cells))
            families.append(FamilyEntry(name=name, metrics=tested, tests=len(cells)))
    return Correction(tuple(families), adjusted, discovery)
