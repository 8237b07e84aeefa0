"""Strengths: one metric per evaluator whose rows meet each other, by a Bradley–Terry model over all pairs that met."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from harness.api.interfaces import Evaluator
from harness.board.board import MetricEntry, ScoreEntry
from harness.board.build import Derived, RowResult
from harness.models.judge.bradley_terry import Floats, bradley_terry
from harness.run.records import EvaluateInputs
from harness.run.results import Run

PAIRED_METRIC = "win_rate"  # of an evaluator with opponents: 1 for a win, 0 for a loss, between them for a tie


def pair_strengths(run: Run, rows: Sequence[RowResult]) -> tuple[list[Derived], list[str]]:
    """Return a metric per evaluator, in log-odds against the baseline's 0, and why an evaluator has none."""
    derived, warnings = list[Derived](), list[str]()
    baseline = run.comparison.config.baseline
    mixed = any(judge.allow_mixed_judges for judge in run.comparison.judges.values())
    for label, evaluator in run.comparison.evaluators.items():
        if not evaluator.opponents() or not any(metric.name == PAIRED_METRIC for metric in evaluator.metrics()):
            continue
        judges = {" and ".join(judged) for row in rows if (judged := row.judges(label))}
        if len(judges) > 1 and not mixed:
            warnings.append(
                f"There is no {label}/strength, since rows were judged by {'; others by '.join(sorted(judges))}; "
                "set judge.allow_mixed_judges to have it all the same."
            )
            continue
        meetings = _meetings(label, evaluator, run, rows)
        rows_met = sorted({row for meeting in meetings for row in (meeting.row, meeting.other)})
        if baseline in rows_met:
            derived.append(_derived(label, meetings, rows_met, baseline))
    return derived, warnings


class Meeting(NamedTuple):
    """One row's answer to one example against another row's.

    Attributes:
        question: shared by the examples that are resampled together, such as the turns of one dialogue.
    """

    seed: int
    question: str
    example: str
    row: str
    other: str


Meetings = dict[Meeting, list[float]]  # the row's result by sample


def _meetings(label: str, evaluator: Evaluator, run: Run, rows: Sequence[RowResult]) -> Meetings:
    meetings: Meetings = {}
    samples = next((sampling.n for sampling in evaluator.samplings()), 1)
    for result in rows:
        for seed, scores in result.scores.get(label, {}).items():
            opponents = _opponents(run, result.label, seed, label)
            for score in scores:
                if score.metric != PAIRED_METRIC or not opponents:
                    continue
                # An evaluator numbers its samples through: all of the first opponent, then all of the second, and so on.
                other = opponents[score.sample // samples]
                if other != result.label:  # the baseline against its own answers says nothing
                    meeting = Meeting(seed, score.question or score.example, score.example, result.label, other)
                    meetings.setdefault(meeting, []).append(score.value)
    return meetings


def _opponents(run: Run, label: str, seed: int, evaluator: str) -> list[str]:
    """Return a row's opponents in the order of their samples."""
    row = next(row for row in run.graph.rows if (row.label, row.seed) == (label, seed))
    return sorted(EvaluateInputs.of(run.graph.stages[row.evaluations[evaluator][0]]).opponents)


def _derived(evaluator: str, meetings: Meetings, labels: Sequence[str], baseline: str) -> Derived:
    table = _table(meetings, labels)
    fitted = bradley_terry(table, labels.index(baseline))
    scores = {
        label: ScoreEntry(
            mean=float(fitted.mean[index]),
            low=float(fitted.low[index]),
            high=float(fitted.high[index]),
            n=int((table[:, :, index].sum(axis=(0, 2)) + table[:, :, :, index].sum(axis=(0, 2)) > 0).sum()),
            higher_is_better=True,
        )
        for index, label in enumerate(labels)
        if np.isfinite(fitted.mean[index])
    }
    description = f"Bradley–Terry strength over all pairs of rows that met: log-odds of winning against {baseline}"
    metric = MetricEntry(key=f"{evaluator}/strength", description=description, higher_is_better=True, primary=False)
    return Derived(metric, scores)


def _table(meetings: Meetings, labels: Sequence[str]) -> Floats:
    """Return the wins, [seeds, questions, k, k]. A pair that both rows report, as among all rows, counts once."""
    seeds = {seed: index for index, seed in enumerate(sorted({meeting.seed for meeting in meetings}))}
    questions = {name: index for index, name in enumerate(sorted({meeting.question for meeting in meetings}))}
    place = {label: index for index, label in enumerate(labels)}
    table: Floats = np.zeros((len(seeds), len(questions), len(labels), len(labels)))
    for meeting, values in meetings.items():
        share = 0.5 if meeting._replace(row=meeting.other, other=meeting.row) in meetings else 1.0
        won = sum(values) / len(values)
        pairs, row, other = table[seeds[meeting.seed], questions[meeting.question]], place[meeting.row], place[meeting.other]
        pairs[row, other] += share * won
        pairs[other, row] += share * (1 - won)
    return table
