"""The search for settings on a board: the best trial, the expected best of fewer trials, whether rows were tuned alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from harness.board.entries import ExpectedBest, RowEntry, SelectionEntry, SpaceEntry, TrialEntry, TuningEntry, mean_scores
from harness.board.statistics import Floats
from harness.board.views.text import count as counted
from harness.board.views.text import signed

DRAWS = 2000
EDGE = 0.05  # of an interval, at either end: a best trial there may have a better one beyond
FEWEST_CHOICES = 3  # numbers to choose from, of which the ends are an edge


def best_trial(trials: Sequence[TrialEntry], higher_is_better: bool) -> int | None:
    """Return the number of the trial with the best mean score over its seeds, the first of equal ones; None if all failed."""
    scores = mean_scores(trials)
    finished = {number: score for number, score in scores.items() if score is not None}
    if not finished:
        return None
    sign = 1 if higher_is_better else -1
    return max(finished, key=lambda number: (sign * finished[number], -number))


def expected_best(tuning: TuningEntry) -> tuple[ExpectedBest, ...] | None:
    """Return the expected best after 1, 2, … trials, after Dodge et al. 2019 (arXiv:1909.03004, Eq. 8).

    The estimate is the mean of the best of k draws with replacement from the N scores: Σ v₍ᵢ₎((i/N)ᵏ − ((i−1)/N)ᵏ), worst
    first. Its interval comes from a bootstrap over trials. A failed trial counts as the worst score. None where trials are not
    independent draws at full budget, or fewer than two finished.
    """
    scores = [score for score in tuning.scores.values() if score is not None]
    if tuning.sampler != "random" or len(scores) < 2 or any(trial.share < 1 for trial in tuning.trials or ()):
        return None
    sign = 1 if tuning.higher_is_better else -1
    signed = sign * np.array(scores)
    values = np.concatenate([signed, np.full(len(tuning.scores) - len(scores), signed.min())])
    drawn = np.random.default_rng(0).choice(values, size=(DRAWS, len(values)))
    ranked, resampled = np.sort(values), np.sort(drawn, axis=1)
    ranks = np.arange(len(values) + 1) / len(values)
    expected = []
    for count in range(1, len(values) + 1):
        weights = np.diff(ranks**count)  # [N], sums to 1
        ends = sorted(sign * np.quantile(resampled @ weights, (0.025, 0.975)))
        expected.append(
            ExpectedBest(trials=count, mean=float(sign * ranked @ weights), low=float(ends[0]), high=float(ends[1]))
        )
    return tuple(expected)


def selection(table: Floats, best: int, higher_is_better: bool) -> SelectionEntry | None:
    """Return how certain a choice is: choose again among the trials on bootstrap draws of the prompts.

    Args:
        table: [trials, prompts], scores on the prompts that all finished trials have.
        best: the chosen trial's place in the table.
    """
    trials, prompts = table.shape
    if trials < 2 or prompts < 2:
        return None
    signed = table if higher_is_better else -table
    counts = np.random.default_rng(0).multinomial(prompts, np.full(prompts, 1 / prompts), size=DRAWS)  # [draws, prompts]
    chosen = np.argmax(counts @ signed.T, axis=1)
    means = signed.mean(axis=1)
    median = int(np.argsort(means)[trials // 2 - 1])  # the better half is above it
    gaps = signed[best] - signed[median]
    error = float(gaps.std(ddof=1)) / math.sqrt(prompts)
    return SelectionEntry(
        prompts=prompts,
        kept=float(np.mean(chosen == best)),
        spread=float((means[chosen] - means[best]).std()),
        told_apart=bool(gaps.mean() > 2 * error),
    )


NORMAL = 1.96  # standard errors in half a 95 % interval


def choice_spread(key: str, *searches: TuningEntry | None) -> float:
    """Return the standard deviation that the choices of settings add to a difference between rows on a metric.

    It is known on the metric that decided between trials; on others it is 0. Rows choose by themselves, so variances add: that
    they share their tuning prompts is left out.
    """
    spreads = [tuning.selection.spread for tuning in searches if tuning and tuning.selection and tuning.metric == key]
    return math.sqrt(sum(spread**2 for spread in spreads))


def with_choice(mean: float, low: float, high: float, spread: float) -> tuple[float, float] | None:
    """Return a difference's interval with the spread of its choices added; None where there is none."""
    if spread <= 0:
        return None
    return mean - math.hypot(mean - low, NORMAL * spread), mean + math.hypot(high - mean, NORMAL * spread)


# The sentence of the first screen


def tuned_alike(rows: Sequence[RowEntry]) -> str:
    """Return whether all rows that a comparison trained had the same search, in a sentence.

    Null rows have their baseline's settings and do not count; rows from elsewhere are named.
    """
    rows = sorted(rows, key=lambda row: row.is_reference)  # as every view orders them: those that compete come first
    trained = [row for row in rows if row.is_trained_here and not row.is_null and row.rounds]
    elsewhere = [row.method for row in rows if not row.is_trained_here]
    unknown = f"how {_listed(elsewhere)} {'was' if len(elsewhere) == 1 else 'were'} tuned is not known" if elsewhere else ""
    if not trained:
        return f"Not tuned alike: {unknown}." if unknown else "No row has settings to tune."
    if all(row.tuning is None for row in trained):
        before = "no search for settings is on this board, rows have those of its config"
        return f"Not tuned alike: {before}{f'; {unknown}' if unknown else ''}."
    groups: dict[str, list[str]] = {}
    for row in trained:
        groups.setdefault(_effort(row.tuning), []).append(row.method)
    if len(groups) == 1 and not unknown:
        effort = next(iter(groups))
        return (
            f"Tuned alike: {effort} each." if trained[0].tuning and trained[0].tuning.trials else f"Not tuned alike: {effort}."
        )
    parts = [f"{effort} for {_listed(labels)}" for effort, labels in groups.items()]
    return f"Not tuned alike: {'; '.join([*parts, *([unknown] if unknown else [])])}."


def _effort(tuning: TuningEntry | None) -> str:
    """Return a row's search in words: equal words are equal searches."""
    if tuning is None or not tuning.trials:
        return "default settings"
    if tuning.budget:
        return " and ".join(f"{counted(amount)} {unit} of trials" for unit, amount in tuning.budget.items())
    count = len(tuning.scores)
    seeds = len({trial.seed for trial in tuning.trials})
    words = f"{count} {'trial' if count == 1 else 'trials'}"
    words += f" at {seeds} seeds" if seeds > 1 else ""
    words += f" by {tuning.sampler}" if tuning.sampler != "random" else ""
    words += f" with {tuning.pruner}" if tuning.pruner else ""
    return words


MOST_NAMED = 6  # rows in one sentence


def _listed(labels: Sequence[str]) -> str:
    if len(labels) > MOST_NAMED:
        return f"{', '.join(labels[: MOST_NAMED - 1])} and {len(labels) - MOST_NAMED + 1} more"
    return ", ".join(labels)


# Warnings


def tuning_warnings(rows: Sequence[RowEntry]) -> list[str]:
    """Return warnings about a search: unequal effort, a best trial on the edge, and choices that the split cannot decide."""
    searched = [row for row in rows if row.tuning is not None and row.tuning.trials and not row.is_null]
    if not searched:
        return []
    warnings = []
    sentence = tuned_alike(rows)
    if sentence.startswith("Not"):
        warnings.append(f"{sentence} A difference between rows with different searches may be the searches'.")
    sizes: dict[int, list[str]] = {}
    for row in searched:
        sizes.setdefault(len(row.tuning.space or ()) if row.tuning else 0, []).append(row.method)
    if len(sizes) > 1:
        listed = "; ".join(f"{size}: {_listed(labels)}" for size, labels in sorted(sizes.items()))
        warnings.append(
            f"Rows search different numbers of settings with their trials ({listed}): fewer are searched more densely."
        )
    if edges := [edge for row in searched if row.tuning for edge in _edges(row.method, row.tuning)]:
        warnings.append(
            f"The best trial lies on the edge of its search space, and a better one may lie beyond: {'; '.join(edges)}."
        )
    unsure = [row.method for row in searched if row.tuning and row.tuning.selection and not row.tuning.selection.told_apart]
    if unsure:
        prompts = min(row.tuning.selection.prompts for row in searched if row.tuning and row.tuning.selection)
        warnings.append(
            f"The tuning split ({prompts} prompts) is too small to tell the best trial from the median one for "
            f"{_listed(unsure)}: their settings are hardly better than others."
        )
    doubtful = [
        f"{row.method} {signed(delta.mean)} ({signed(delta.choice_low)} to {signed(delta.choice_high)}) on {key}"
        for row in searched
        for key, score in row.scores.items()
        if (delta := score.delta) and delta.is_significant and delta.choice_low is not None and delta.choice_high is not None
        if delta.choice_low <= 0 <= delta.choice_high
    ]
    if doubtful:
        warnings.append(
            "Tuning would have chosen other settings on other prompts, and with that counted these differences are no longer "
            f"significant: {'; '.join(doubtful)}."
        )
    lost = {row.method: count for row in searched if row.tuning and (count := _failures(row.tuning))}
    if lost:
        listed = ", ".join(f"{label} {count}" for label, count in lost.items())
        warnings.append(f"Trials failed: {listed}; board.json has the reasons.")
    return warnings


def _failures(tuning: TuningEntry) -> int:
    return len({trial.number for trial in tuning.trials or () if trial.state == "failed"})


def _edges(label: str, tuning: TuningEntry) -> Iterator[str]:
    for path, value in sorted((tuning.chosen or {}).items()):  # as board.json orders them, so that a board is built again alike
        space = (tuning.space or {}).get(path)
        if space is not None and (side := edge_of(space, value)):
            yield (
                f"{label} {path} = {value:.3g} ({side} end)"
                if isinstance(value, float)
                else f"{label} {path} = {value} ({side} end)"
            )


def edge_of(space: SpaceEntry, value: object) -> Literal["low", "high"] | None:
    """Return the end of its space that a number lies at; None for one inside, and for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if space.choices:
        numbers = sorted(c for c in space.choices if isinstance(c, int | float) and not isinstance(c, bool))
        if len(numbers) < max(FEWEST_CHOICES, len(space.choices)):
            return None
        return "low" if value == numbers[0] else "high" if value == numbers[-1] else None
    if space.low is None or space.high is None:
        return None
    low, high, at = (math.log(x) if space.log else x for x in (space.low, space.high, value))
    place = (at - low) / (high - low)
    return "low" if place <= EDGE else "high" if place >= 1 - EDGE else None


def optimism(row: RowEntry) -> tuple[float, float, float] | None:
    """Return the chosen trial's score on the tuning split, the row's on the held-out one, and how much better the first is.

    None where there is no such pair. A positive difference is optimism, whatever the metric's direction.
    """
    tuning = row.tuning
    if tuning is None or tuning.number is None or tuning.metric not in row.scores:
        return None
    score, held_out = tuning.scores[tuning.number], row.scores[tuning.metric].mean
    if score is None:
        return None
    return score, held_out, (score - held_out) * (1 if tuning.higher_is_better else -1)


def tuning_problems(entry: RowEntry) -> Iterator[str]:
    """Yield what does not hold of a row's search by its own trials: the choice, and the expected best."""
    tuning = entry.tuning
    if tuning is None or not tuning.trials or tuning.higher_is_better is None:
        return
    best = best_trial(tuning.trials, tuning.higher_is_better)
    if best != tuning.number:
        yield f"{entry.method}: tuning chose trial {tuning.number}, and the best of its scores is that of {best}"
    elif best is not None:
        settings: Mapping[str, object] = next(trial.settings for trial in tuning.trials if trial.number == best)
        if settings != tuning.chosen:
            yield f"{entry.method}: tuning's chosen settings are not those of trial {best}"
    shown, computed = [
        np.array([(point.mean, point.low, point.high) for point in points or ()])
        for points in (tuning.expected, expected_best(tuning))
    ]
    if shown.shape != computed.shape or not np.allclose(shown, computed, rtol=1e-6, atol=1e-9):
        yield f"{entry.method}: the expected best of its trials is not what their scores give"
