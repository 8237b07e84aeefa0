"""Strengths: one metric per evaluator whose rows meet each other, by a Bradley–Terry model over all pairs that met.

A strength is a function of a fit, so that the scores of a row are pseudo-values, one for each seed and question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from harness.api.interfaces import Evaluator
from harness.api.types import Metric, Score
from harness.board.build import RowResult
from harness.board.statistics import crossed_pseudo_values
from harness.models.judge.bradley_terry import Floats, fit
from harness.run.records import EvaluateInputs
from harness.run.results import Run

PAIRED_METRIC = "win_rate"  # of an evaluator with opponents: 1 for a win, 0 for a loss, between them for a tie
STRENGTH = "strength"


@dataclass(frozen=True)
class Strengths:
    """The strengths of one comparison.

    Attributes:
        metrics: evaluator -> its further metric.
        scores: row -> evaluator -> seed -> pseudo-values.
        warnings: why an evaluator has none.
    """

    metrics: dict[str, Metric] = field(default_factory=dict)
    scores: dict[str, dict[str, dict[int, list[Score]]]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def added_to(self, row: RowResult) -> RowResult:
        """Return the row with its strengths among its scores."""
        scores = dict(row.scores)
        for evaluator, by_seed in self.scores.get(row.label, {}).items():
            runs = scores.get(evaluator, {})
            scores[evaluator] = {seed: [*runs.get(seed, ()), *by_seed.get(seed, ())] for seed in {**runs, **by_seed}}
        return replace(row, scores=scores)

    def added_metrics(self, evaluators: Mapping[str, Evaluator]) -> dict[str, list[Metric]]:
        """Return the metrics of all evaluators, with the strengths."""
        further = self.metrics
        return {
            label: [*evaluator.metrics(), *([further[label]] if label in further else [])]
            for label, evaluator in evaluators.items()
        }


def pair_strengths(run: Run, rows: Sequence[RowResult]) -> Strengths:
    """Return the strengths of all rows that met, in log-odds against the baseline's 0."""
    strengths = Strengths()
    baseline = run.comparison.config.baseline
    mixed = any(judge.allow_mixed_judges for judge in run.comparison.judges.values())
    for label, evaluator in run.comparison.evaluators.items():
        if not evaluator.opponents() or not any(metric.name == PAIRED_METRIC for metric in evaluator.metrics()):
            continue
        judges = {" and ".join(judged) for row in rows if (judged := row.judges(label))}
        if len(judges) > 1 and not mixed:
            strengths.warnings.append(
                f"There is no {label}/{STRENGTH}, since rows were judged by {'; others by '.join(sorted(judges))}; "
                "set judge.allow_mixed_judges to have it all the same."
            )
            continue
        meetings = _meetings(label, evaluator, run, rows)
        rows_met = sorted({row for meeting in meetings for row in (meeting.row, meeting.other)})
        if baseline in rows_met:
            description = f"Bradley–Terry strength over all pairs of rows that met: log-odds of winning against {baseline}"
            strengths.metrics[label] = Metric(STRENGTH, description, fit="rows")
            for row, by_seed in _scores(meetings, rows_met, baseline).items():
                strengths.scores.setdefault(row, {})[label] = by_seed
    return strengths


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


def _scores(meetings: Meetings, labels: Sequence[str], baseline: str) -> dict[str, dict[int, list[Score]]]:
    """Return row -> seed -> a pseudo-value of each question; their mean is the row's strength.

    Rows with the same seeds and questions, as all have in most comparisons, get theirs from one fit to all games on these.
    """
    seeds: dict[str, set[int]] = {label: set() for label in labels}
    questions: dict[str, set[str]] = {label: set() for label in labels}
    for meeting in meetings:
        for label in (meeting.row, meeting.other):
            seeds[label].add(meeting.seed)
            questions[label].add(meeting.question)
    on = {label: (tuple(sorted(seeds[label])), tuple(sorted(questions[label]))) for label in labels}
    scores = {}
    for lines, columns in sorted(set(on.values())):
        values = pseudo_strengths(_table(meetings, lines, columns, labels), labels.index(baseline))
        for place, label in enumerate(labels):
            if on[label] == (lines, columns) and np.isfinite(values[..., place]).all():
                scores[label] = {
                    seed: [Score(name, STRENGTH, float(value)) for name, value in zip(columns, line, strict=True)]
                    for seed, line in zip(lines, values[..., place], strict=True)
                }
    return scores


def pseudo_strengths(wins: Floats, anchor: int) -> Floats:
    """Return pseudo-values [seeds, questions, k] of Bradley–Terry strengths; the anchor's are 0.

    Args:
        wins: [seeds, questions, k, k], how often the row's side beat the column's; 0 where a pair did not meet.
    """
    seeds, questions, size, _ = wins.shape
    if seeds * questions < 2:  # one cell alone has no error, and no second one to leave it out for
        return fit(wins.sum(axis=(0, 1)), anchor).reshape(seeds, questions, size)
    return crossed_pseudo_values(lambda weights: fit(np.tensordot(weights, wins, axes=2), anchor), seeds, questions)


def _table(meetings: Meetings, seeds: Sequence[int], questions: Sequence[str], labels: Sequence[str]) -> Floats:
    """Return the wins, [seeds, questions, k, k]. A pair that both rows report, as among all rows, counts once."""
    lines, columns, place = ({name: at for at, name in enumerate(names)} for names in (seeds, questions, labels))
    table: Floats = np.zeros((len(seeds), len(questions), len(labels), len(labels)))
    for meeting, values in meetings.items():
        if meeting.seed not in lines or meeting.question not in columns:
            continue
        share = 0.5 if meeting._replace(row=meeting.other, other=meeting.row) in meetings else 1.0
        won = sum(values) / len(values)
        pairs = table[lines[meeting.seed], columns[meeting.question]]
        row, other = place[meeting.row], place[meeting.other]
        pairs[row, other] += share * won
        pairs[other, row] += share * (1 - won)
    return table
