"""The first place on a metric: the rows that may be the best, the best against the runner-up, and every row's rank interval.

`harness.board.statistics.best` has the tests. Methods compete: controls, null rows and published numbers stand beside the
ranking, and a row whose seeds were not sampled is left out where those of others were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.board.compare import Statistics
from harness.board.entries import FirstPlaceEntry, MetricEntry
from harness.board.statistics import Pairs, Values, best_p, compare_all, difference_of_means, rank_sets
from harness.board.views.text import plain

ALPHA = 0.05
NO_SEEDS, OTHER_JUDGE = "no seeds were sampled", "another judge"


def first_place(statistics: Statistics, metric: MetricEntry) -> FirstPlaceEntry | None:
    """Return the board's entry of a metric; None where it has no direction or fewer than two rows compete."""
    if metric.higher_is_better is None:
        return None
    in_ranking = [row.label for row in statistics.rows if not row.is_reference and metric.key in statistics.values[row.label]]
    tables = {label: _higher_is_better(statistics.paired_values(label, metric.key), metric) for label in in_ranking}
    decided = statistics.decisions.pairs.get(metric.key) if statistics.decisions else None
    if statistics.decisions and decided is None and statistics.decisions.design.decides(metric.key, list(tables.values())):
        return None  # the baseline lacks the metric, so that no look was at it
    labels, left_out = _competing(statistics, metric.key, tables, None if decided is None else decided[0])
    if len(labels) < 2:
        return None
    compared = decided[1] if decided is not None else compare_all([tables[label] for label in labels])
    one_seed = min(len(tables[label].seeds) for label in labels) < 2
    means = {label: _mean(statistics, label, metric.key) for label in labels}
    if metric.higher_is_better is False:
        means = {label: -mean for label, mean in means.items()}
    return _entry(labels, tables, means, compared, left_out, one_seed)


def _mean(statistics: Statistics, label: str, key: str) -> float:
    """Return a row's mean, as the board orders rows; by its difference from the baseline where rows have different prompts."""
    gap = statistics.differences.get((label, key))
    if gap is None or not statistics.adds_prompts(key):
        return statistics.intervals[label, key].mean
    return statistics.intervals[statistics.baseline, key].mean + gap.mean


def _higher_is_better(values: Values, metric: MetricEntry) -> Values:
    answered = values.answered()
    return answered if metric.higher_is_better else replace(answered, values=-answered.values)


def _competing(
    statistics: Statistics, key: str, tables: Mapping[str, Values], decided: Sequence[str] | None
) -> tuple[list[str], dict[str, str]]:
    """Return the rows that compete, and those of the ranking that are left out with the reason.

    Args:
        decided: the rows that the looks compared, where seeds were added where they decide.
    """
    left_out = {label: OTHER_JUDGE for label in tables if not statistics.is_comparable(label, key)}
    judged = [label for label in tables if label not in left_out]
    several = [label for label in judged if len(tables[label].seeds) > 1]
    chosen = list(decided) if decided is not None else several if len(several) > 1 else judged
    left_out |= {label: NO_SEEDS for label in judged if label not in chosen}
    return chosen, left_out


def _entry(
    labels: Sequence[str],
    tables: Mapping[str, Values],
    means: Mapping[str, float],
    compared: Pairs,
    left_out: Mapping[str, str],
    one_seed: bool,
) -> FirstPlaceEntry:
    order = sorted(range(len(labels)), key=lambda place: (-means[labels[place]], labels[place]))
    p, (lowest, highest) = best_p(compared), rank_sets(compared, ALPHA)
    best, second = order[:2]
    return FirstPlaceEntry(
        best=plain(labels[best]),
        runner_up=plain(labels[second]),
        ahead=difference_of_means(tables[labels[best]], tables[labels[second]]),
        p=float(p[second]),
        may_be_best=tuple(plain(labels[place]) for place in order if p[place] >= ALPHA),
        ranks={plain(labels[place]): (int(lowest[place]), int(highest[place])) for place in order},
        left_out={plain(label): reason for label, reason in left_out.items()} or None,
        one_seed=True if one_seed else None,
    )
