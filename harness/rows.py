"""What the finished stages of a row hand to the board: scores, costs, curves, provenance, answers to look at."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.execute.events import Outcome
from harness.graph import Graph, RowPlan
from harness.leaderboard.board import ExampleRow, RowResult
from harness.resolve import Comparison, Variant, describe
from harness.sharing import row_budget, row_cost
from harness.stages.context import read_answers, read_dataset
from harness.store import Store
from harness.types import Example, Score

SHOWN_EXAMPLES = 40
MUCH_DROPPED = 0.2


@dataclass(frozen=True)
class Run:
    """A comparison whose stages have ended, well or not."""

    comparison: Comparison
    graph: Graph
    store: Store
    outcome: Outcome

    def failure(self, *keys: str) -> str | None:
        """Why one of `keys` was not made, by the title of the stage that failed; None if all were."""
        failed = sorted(self.graph.ancestors(*keys) & self.outcome.failed.keys())
        return f"{self.graph.stages[failed[0]].title}: {self.outcome.failed[failed[0]]}" if failed else None


def row_result(variant: Variant, run: Run) -> RowResult:
    """A row over all its seeds. One whose training failed at any seed has its reason and no scores; an evaluator that failed
    at any seed leaves its metrics out; `evaluation_failures` says why."""
    plans = [row for row in run.graph.rows if row.label == variant.label]
    reason = run.failure(*(row.model for row in plans))
    done, graph, store = [] if reason else plans, run.graph, run.store
    scores: dict[str, dict[int, list[Score]]] = {}
    for evaluator in run.comparison.evaluators:
        keys = {row.seed: row.evaluations[evaluator.name] for row in done}
        kept = {} if run.failure(*keys.values()) else keys
        scores[evaluator.name] = {
            seed: [Score(*fields) for fields in store.open(key).read_lines("scores.jsonl")] for seed, key in kept.items()
        }
    budgets = [row_budget(graph, store, row) for row in done]
    return RowResult(
        label=variant.label,
        data=variant.data,
        objective=variant.objective,
        rounds=len(variant.rounds),
        kind=variant.kind,  # type: ignore[arg-type]
        scores=scores,
        costs={row.seed: row_cost(graph, store, row) for row in done},
        budget={name: statistics.fmean(budget[name] for budget in budgets) for name in budgets[0]} if budgets else {},
        provenance=_provenance(variant, done, graph, store),
        failed=reason,
        curves={row.seed: _curve(row, store) for row in done if row.training},
    )


def _curve(row: RowPlan, store: Store) -> list[dict[str, float]]:
    """The training log over all rounds, steps counted through."""
    curve: list[dict[str, float]] = []
    for number, key in enumerate(row.training):
        before = len(curve)
        for step, entry in enumerate(store.open(key).read_lines("history.jsonl"), start=1):
            curve.append({**entry, "step": before + step, "round": number})
    return curve


def _provenance(variant: Variant, rows: Sequence[RowPlan], graph: Graph, store: Store) -> dict[str, Any]:
    """How a row came about: components with all their fields, keys of its models, how its data turned out."""
    facts = ("prompts", "groups", "pairs", "dropped", "means")
    return {
        "method": variant.method,
        "rounds": [
            {
                "data": describe(round_.builder),
                "objective": describe(round_.objective),
                "training": round_.training.model_dump(mode="json"),
            }
            for round_ in variant.rounds
        ],
        "seed_offset": variant.seed_offset,
        "models": {str(row.seed): row.model for row in rows},
        "data": {str(row.seed): [{name: store.open(key).facts[name] for name in facts} for key in row.groups] for row in rows},
    }


def run_warnings(run: Run, rows: Sequence[RowResult]) -> list[str]:
    """What a reader of the board should know: evaluators that failed, slow layouts, prompts that gave no data."""
    return [*_evaluation_failures(run), *_layout_warnings(run), *(text for row in rows for text in _data_warnings(row))]


def _evaluation_failures(run: Run) -> list[str]:
    """Why metrics are missing from rows whose training went well."""
    said = []
    for row in run.graph.rows:
        for name, key in row.evaluations.items():
            if run.failure(row.model) is None and (reason := run.failure(key)):
                said.append(f"{row.label}, seed {row.seed}: no scores of {name}, since it failed ({reason})")
    return said


def _layout_warnings(run: Run) -> list[str]:
    """Models that were trained more slowly than others would be, and why: once each."""
    keys = [key for row in run.graph.rows for key in row.training if run.store.holds(key)]
    said = [run.store.open(key).facts.get("layout_warning", "") for key in keys]
    return [text for text in dict.fromkeys(said) if text]


def _data_warnings(row: RowResult) -> list[str]:
    """What a reader should know of a row's data: rounds in which many prompts gave no group."""
    said = []
    for seed, rounds in row.provenance["data"].items():
        asked, built = sum(facts["prompts"] for facts in rounds), sum(facts["groups"] for facts in rounds)
        if asked and 1 - built / asked > MUCH_DROPPED:
            reasons = sorted({reason for facts in rounds for reason in facts["dropped"]})
            said.append(f"{row.label}, seed {seed}: only {built} of {asked} prompts gave a group ({', '.join(reasons)})")
    return said


def collect_examples(run: Run) -> list[ExampleRow]:
    """The first evaluated prompts with each row's first answer at the first seed."""
    answers: dict[str, list[str]] = {}
    for row in run.graph.rows:
        keys = [key for evaluation in row.evaluations.values() for key in _answer_keys(run.graph, evaluation)]
        if row.seed == run.comparison.config.seeds[0] and keys and run.store.holds(keys[0]):
            answers[row.label] = [responses[0].text for responses in read_answers(run.store.open(keys[0]))][:SHOWN_EXAMPLES]
    if not answers:
        return []
    source = next(stage.key for stage in run.graph if stage.kind == "source")
    shown = read_dataset(run.store.open(source))[run.comparison.config.evaluation.split]
    return [
        ExampleRow(
            id=example.prompt.id,
            prompt=_dialogue(example),
            target=example.target,
            answers={label: texts[index] for label, texts in answers.items()},
        )
        for index, example in enumerate(shown[: min(len(texts) for texts in answers.values())])
    ]


def _dialogue(example: Example) -> str:
    """The prompt as a person reads it: a single turn bare, several with who said what."""
    messages = example.prompt.messages
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in messages)


def _answer_keys(graph: Graph, evaluation: str) -> list[str]:
    stage = graph.stages[evaluation]
    return [key for name, key in sorted(stage.inputs.items()) if name.startswith("answers:")]
