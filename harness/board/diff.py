"""Describe the differences between two boards in words: `harness diff`, and the history of a published board."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from harness.board.board import Board, Delta, MetricEntry, RowEntry
from harness.board.views.text import number, one_line, shortened, signed

SETTINGS = (
    "model",
    "source",
    "evaluation",
    "generation",
    "evaluators",
    "judge",
    "budget",
    "seeds",
    "sft",
    "training",
    "statistics",
)
LONGEST = 60  # characters of a setting that are shown


@dataclass(frozen=True)
class Change:
    """One changed setting, row or score, with its text before and after; None where it did not exist."""

    what: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        if self.before is None:
            return f"{self.what}: new, {self.after}"
        if self.after is None:
            return f"{self.what}: gone, was {self.before}"
        return f"{self.what}: {self.before} → {self.after}"


@dataclass(frozen=True)
class Changes:
    """From one board to another.

    Attributes:
        settings: of the comparison; where there are any, scores differ for more than one reason.
        rows: that came, went, failed or were mended.
        scores: means that differ, with their intervals.
        verdicts: differences from the baseline that came to stand, or no longer do, on the primary metrics.
        order: places in the ranking, and the rows that may be the best.
    """

    settings: tuple[Change, ...]
    rows: tuple[Change, ...]
    scores: tuple[Change, ...]
    verdicts: tuple[Change, ...]
    order: tuple[Change, ...]

    def __bool__(self) -> bool:
        return any((self.settings, self.rows, self.scores, self.verdicts, self.order))

    def as_dict(self) -> dict[str, object]:
        """Return the changes by kind, for JSON."""
        return asdict(self)

    def sections(self) -> list[tuple[str, tuple[Change, ...]]]:
        """Return the kinds of change that there are, each with its title."""
        named = [
            ("Settings", self.settings),
            ("Rows", self.rows),
            ("What may be said against the baseline", self.verdicts),
            ("Ranking", self.order),
            ("Scores", self.scores),
        ]
        return [(title, changes) for title, changes in named if changes]


def changes(before: Board, after: Board, *, all_metrics: bool = False) -> Changes:
    """Return everything that changed; scores of the primary metrics alone unless `all_metrics`."""
    metrics = _metrics(before, after, all_metrics)
    primary = [metric for metric in metrics if metric.key in {entry.key for entry in after.primary}]
    both = [(row, other) for row in after.rows if (other := before.row(row.method))]
    return Changes(
        settings=tuple(_settings(before, after)),
        rows=tuple(_rows(before, after)),
        scores=tuple(change for row, old in both for metric in metrics for change in _score(old, row, metric)),
        verdicts=tuple(change for row, old in both for metric in primary for change in _verdict(old, row, metric)),
        order=(*_order(before, after), *(change for metric in primary for change in _first_place(before, after, metric))),
    )


def _metrics(before: Board, after: Board, all_metrics: bool) -> list[MetricEntry]:
    known = {metric.key for metric in before.metrics}
    return [metric for metric in (after.metrics if all_metrics else after.primary) if metric.key in known]


def _settings(before: Board, after: Board) -> Iterator[Change]:
    named: list[tuple[str, Any, Any]] = [
        ("baseline", before.baseline, after.baseline),
        ("harness", before.harness, after.harness),
    ]
    named += [(name, before.config.get(name), after.config.get(name)) for name in SETTINGS]
    keys = [{metric.key for metric in board.metrics} for board in (before, after)]
    named += [("metrics", sorted(keys[0] - keys[1]) or None, sorted(keys[1] - keys[0]) or None)]
    for name, old, new in named:
        if old != new:
            yield from _differing(name, old, new)


def _differing(name: str, old: Any, new: Any) -> Iterator[Change]:
    """Yield the fields that differ, by their dotted names."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(set(old) | set(new)):
            if old.get(key) != new.get(key):
                yield from _differing(f"{name}.{key}", old.get(key), new.get(key))
    else:
        yield Change(one_line(name), _text(old), _text(new))


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return shortened(value if isinstance(value, str) else json.dumps(value, sort_keys=True), LONGEST)


def _rows(before: Board, after: Board) -> Iterator[Change]:
    for board, other, came in ((before, after, False), (after, before, True)):
        for row in board.rows:
            if other.row(row.method) is None:
                kind = one_line(row.kind)
                yield Change(one_line(row.method), None if came else kind, kind if came else None)
    for row in after.rows:
        old = before.row(row.method)
        if old is not None and (old.failed is None) != (row.failed is None):
            yield Change(one_line(row.method), "failed" if old.failed else "ran", "failed" if row.failed else "ran")
        if old is not None and old.seeds != row.seeds:
            yield Change(f"{one_line(row.method)} seeds", _listed(old), _listed(row))


def _listed(row: RowEntry) -> str:
    return ", ".join(str(seed) for seed in row.seeds) or "none"


def _score(old: RowEntry, new: RowEntry, metric: MetricEntry) -> Iterator[Change]:
    left, right = old.scores.get(metric.key), new.scores.get(metric.key)
    what = f"{one_line(new.method)} {one_line(metric.key)}"
    shown = [
        None
        if score is None
        else number(score.mean)
        if score.low is None or score.high is None
        else f"{number(score.mean)} [{number(score.low)}, {number(score.high)}]"
        for score in (left, right)
    ]
    if left is None or right is None:
        if left is not right:
            yield Change(what, *shown)
    elif left.mean != right.mean:
        yield Change(what, shown[0], f"{shown[1]} ({signed(right.mean - left.mean)})")


def _verdict(old: RowEntry, new: RowEntry, metric: MetricEntry) -> Iterator[Change]:
    scores = [row.scores.get(metric.key) for row in (old, new)]
    verdicts = [_said(score.delta, metric) if score and score.delta else None for score in scores]
    if verdicts[0] != verdicts[1] and None not in verdicts:
        yield Change(f"{one_line(new.method)} {one_line(metric.key)}", *verdicts)


def _said(delta: Delta, metric: MetricEntry) -> str:
    return delta.verdict(metric) + (", practically equal" if delta.is_equivalent else "")


def _first_place(before: Board, after: Board, metric: MetricEntry) -> Iterator[Change]:
    """Yield a change of the rows that may be the best, where either board says which."""
    places = [board.first_place(metric.key) for board in (before, after)]
    shown = [None if place is None else one_line(", ".join(place.may_be_best)) for place in places]
    if shown[0] != shown[1]:
        yield Change(f"may be best on {one_line(metric.key)}", *shown)


def _order(before: Board, after: Board) -> Iterator[Change]:
    """Yield changed places among the rows that both boards rank, under each starting model that both have."""
    if before.models and after.models:
        models = before.by_model, after.by_model
        for label in models[0].keys() & models[1].keys():
            yield from (replace(change, what=f"{label}/{change.what}") for change in _order(*(m[label] for m in models)))
        return
    places = [[row.method for row in board.ranked] for board in (before, after)]
    both = [[method for method in listed if method in places[1 - i]] for i, listed in enumerate(places)]
    for method in both[1]:
        old, new = (listed.index(method) + 1 for listed in both)
        if old != new:
            yield Change(one_line(method), f"place {old}", f"place {new}")
