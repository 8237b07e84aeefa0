"""What a reader of a board should know of its rows before comparing them."""

from __future__ import annotations

from collections.abc import Sequence

from harness.leaderboard.board import RowResult
from harness.rows import Run

MUCH_DROPPED = 0.2  # of a row's prompts


def run_warnings(run: Run, rows: Sequence[RowResult]) -> list[str]:
    """What a reader of the board should know: evaluators that failed, slow trainings, prompts that gave no data."""
    of_rows = (text for row in rows for text in (*_data_warnings(row), *_judge_warnings(row)))
    return [*_evaluation_failures(run), *_training_warnings(run), *of_rows]


def _evaluation_failures(run: Run) -> list[str]:
    """Why metrics are missing from rows whose training went well."""
    said = []
    for row in run.graph.rows:
        for name, key in row.evaluations.items():
            if run.failure(row.model) is None and (reason := run.failure(key)):
                said.append(f"{row.label}, seed {row.seed}: no scores of {name}, since it failed ({reason})")
    return said


def _training_warnings(run: Run) -> list[str]:
    """Models that were trained more slowly than others would be, and why: once each, with the rows unless all share it."""
    starts = [run.store.open(stage.key).facts for stage in run.graph if stage.kind == "sft" and run.store.holds(stage.key)]
    shared = dict.fromkeys(filter(None, (facts.get("memory_warning") for facts in starts)))
    rows: dict[str, list[str]] = {}
    trained = {row.label for row in run.graph.rows if row.training}
    for row in run.graph.rows:
        for key in filter(run.store.holds, row.training):
            facts = run.store.open(key).facts
            for text in filter(None, (facts.get("layout_warning"), facts.get("memory_warning"))):
                rows.setdefault(text, []).append(row.label)
    said = [text if set(labels) == trained else f"{', '.join(dict.fromkeys(labels))}: {text}" for text, labels in rows.items()]
    return [*shared, *said]


def _judge_warnings(row: RowResult) -> list[str]:
    """Judgments that could not be read, and a judge that changed while it judged one row."""
    said = []
    for evaluator, judge in row.provenance.get("judges", {}).items():
        if judge["unparsed"]:
            asked = f"{judge['unparsed']} of {judge['judgments']} judgments of {evaluator}"
            said.append(f"{row.label}: {asked} could not be read, asked twice; they are not scored")
        if len(judge["versions"]) > 1:
            said.append(f"{row.label}: several versions of the judge marked {evaluator}: {', '.join(judge['versions'])}")
    return said


def _data_warnings(row: RowResult) -> list[str]:
    """What a reader should know of a row's data: rounds in which many prompts gave no group."""
    said = []
    for seed, rounds in row.provenance["data"].items():
        asked, built = sum(facts["prompts"] for facts in rounds), sum(facts["groups"] for facts in rounds)
        if asked and 1 - built / asked > MUCH_DROPPED:
            reasons = sorted({reason for facts in rounds for reason in facts["dropped"]})
            said.append(f"{row.label}, seed {seed}: only {built} of {asked} prompts gave a group ({', '.join(reasons)})")
    return said
