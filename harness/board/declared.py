"""The question that a config declares before a run: primary metrics, and the margins of practical equality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Self

from harness.board.entries import MetricEntry


@dataclass(frozen=True)
class Declared:
    """The section `statistics` of a config.

    Attributes:
        primary: metric keys, the one that orders the board first; None where each evaluator's own are primary.
        equivalent_within: metric key -> the margin, in the metric's unit.
    """

    primary: tuple[str, ...] | None = None
    equivalent_within: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Read a config as JSON, such as a board's; whatever is no declaration counts as none."""
        section = config.get("statistics")
        if not isinstance(section, Mapping):
            return cls()
        primary, margins = section.get("primary"), section.get("equivalent_within")
        keys = tuple(key for key in primary if isinstance(key, str)) if isinstance(primary, list | tuple) else ()
        items = margins.items() if isinstance(margins, Mapping) else ()
        return cls(keys or None, {str(key): float(margin) for key, margin in items if _is_margin(margin)})

    def applied(self, metrics: Sequence[MetricEntry]) -> tuple[MetricEntry, ...]:
        """Return the metrics with the declared ones primary and first, in their order; as they are where none is there."""
        by_key = {metric.key: metric for metric in metrics}
        chosen = [by_key[key] for key in self.primary or () if key in by_key]
        if not chosen:
            return tuple(metrics)
        others = [metric for metric in metrics if metric not in chosen]
        return (
            *(metric.model_copy(update={"primary": True}) for metric in chosen),
            *(metric.model_copy(update={"primary": False}) for metric in others),
        )

    def warnings(self, metrics: Sequence[MetricEntry]) -> list[str]:
        """Return a warning where a declared metric is not on the board, as an optional one may be."""
        keys = {metric.key for metric in metrics}
        missing = [key for key in dict.fromkeys((*(self.primary or ()), *self.equivalent_within)) if key not in keys]
        return [f"The config's `statistics` names {', '.join(missing)}, which no row has."] if missing else []


def _is_margin(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value > 0
