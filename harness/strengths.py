"""Bradley–Terry strengths of all rows that an evaluator let meet in pairs, for the board."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.interfaces import Evaluator
from harness.judging.bradley_terry import Floats, strengths
from harness.leaderboard.board import Derived, RowResult
from harness.leaderboard.schema import MetricEntry, ScoreEntry
from harness.plan import OPPONENT
from harness.rows import Run

PAIRED_METRIC = "win_rate"  # of an evaluator with opponents: 1 for a win, 0 for a loss, between them for a tie
Meetings = dict[tuple[int, str, str, str], list[float]]  # seed, prompt, row, opponent -> what the row reached


def pair_strengths(run: Run, rows: Sequence[RowResult]) -> list[Derived]:
    """One metric per evaluator whose rows meet each other, in log-odds against the baseline's 0."""
    found = []
    for evaluator in run.comparison.evaluators:
        if not evaluator.opponents() or not any(metric.name == PAIRED_METRIC for metric in evaluator.metrics()):
            continue
        meetings = _meetings(evaluator, run, rows)
        labels = sorted({label for _, _, row, other in meetings for label in (row, other)})
        if run.comparison.config.baseline in labels:
            found.append(_derived(evaluator, meetings, labels, run.comparison.config.baseline))
    return found


def _derived(evaluator: Evaluator, meetings: Meetings, labels: Sequence[str], baseline: str) -> Derived:
    table = _table(meetings, labels)
    fitted = strengths(table, labels.index(baseline))
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
    what = f"Bradley–Terry strength over all pairs of rows that met: log-odds of winning against {baseline}"
    metric = MetricEntry(key=f"{evaluator.name}/strength", description=what, higher_is_better=True, primary=False)
    return Derived(metric, scores)


def _meetings(evaluator: Evaluator, run: Run, rows: Sequence[RowResult]) -> Meetings:
    found: Meetings = {}
    samples = next((sampling.n for sampling in evaluator.samplings()), 1)
    for result in rows:
        for seed, scores in result.scores.get(evaluator.name, {}).items():
            opponents = _opponents(run, result.label, seed, evaluator.name)
            for score in scores:
                if score.metric != PAIRED_METRIC or not opponents:
                    continue
                other = opponents[score.sample // samples]
                if other != result.label:  # the baseline's own answers tell nothing
                    found.setdefault((seed, score.example, result.label, other), []).append(score.value)
    return found


def _opponents(run: Run, label: str, seed: int, evaluator: str) -> list[str]:
    """A row's opponents as its evaluation had them, in the order of their samples."""
    row = next(row for row in run.graph.rows if (row.label, row.seed) == (label, seed))
    inputs = run.graph.stages[row.evaluations[evaluator]].inputs
    return sorted(name.removeprefix(OPPONENT) for name in inputs if name.startswith(OPPONENT))


def _table(meetings: Meetings, labels: Sequence[str]) -> Floats:
    """Wins, [seeds, prompts, k, k]. Where both rows of a pair report it, as among all rows, it counts once."""
    seeds = {seed: index for index, seed in enumerate(sorted({key[0] for key in meetings}))}
    prompts = {prompt: index for index, prompt in enumerate(sorted({key[1] for key in meetings}))}
    place = {label: index for index, label in enumerate(labels)}
    table: Floats = np.zeros((len(seeds), len(prompts), len(labels), len(labels)))
    for (seed, prompt, row, other), values in meetings.items():
        share = 0.5 if (seed, prompt, other, row) in meetings else 1.0
        won = sum(values) / len(values)
        table[seeds[seed], prompts[prompt], place[row], place[other]] += share * won
        table[seeds[seed], prompts[prompt], place[other], place[row]] += share * (1 - won)
    return table
