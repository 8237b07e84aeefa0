"""One comparison, from a config to a board."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.errors import StageError
from harness.execute.events import Outcome
from harness.execute.local import LocalExecutor
from harness.graph import Graph, RowPlan
from harness.leaderboard.board import Board, ExampleRow, RowResult, build_board
from harness.leaderboard.page import write_all
from harness.observers import Observers
from harness.plan import plan
from harness.registry import Registry
from harness.resolve import Comparison, Variant, describe, resolve
from harness.sharing import measure_sharing, row_budget, row_cost
from harness.stages.context import read_answers, read_dataset
from harness.store import Store
from harness.types import Score

SHOWN_EXAMPLES = 40
REPORTED_VERSIONS = ("torch", "transformers", "trl", "lm-eval", "numpy", "scikit-learn", "tokenizers", "safetensors")
MUCH_DROPPED = 0.2


@dataclass(frozen=True)
class RunResult:
    """What a run leaves: the board, where its files are, and how its stages ended."""

    board: Board
    folder: Path
    outcome: Outcome


def compare(
    raw: Mapping[str, Any],
    *,
    folder: Path,
    store: Path,
    workers: int,
    interactive: bool = False,
    command: str = "",
    where: str = "the configuration",
) -> RunResult:
    """Run a comparison and write its board to `folder`.

    Args:
        raw: the config as a mapping, overrides applied.
        store: where artifacts are kept and found.
        workers: processes; each computes on one thread.
        interactive: whether observers may draw.
        command: what a person typed, for the provenance.

    Raises:
        ConfigError: before any compute, with every problem.
        StageError: no row could be finished.
    """
    registry = Registry.load()
    comparison = resolve(raw, registry, where)
    graph = plan(comparison)
    kept = Store(store)
    kept.sweep()
    present = {stage.key for stage in graph if kept.holds(stage.key)}
    observers = Observers(registry)
    observers.call(
        "harness_run_started",
        name=comparison.config.name,
        weights={stage.key: stage.weight for stage in graph if stage.key not in present},
        cached=len(present),
        interactive=interactive,
    )
    settings = {"store": str(kept.root), "checkpoints": graph.checkpoints}
    try:
        outcome = LocalExecutor(workers, settings, folder / "logs").run(graph, present, observers)
    finally:
        observers.call("harness_run_finished")
    board = assemble(comparison, graph, kept, outcome, command, list(observers.failures.items()))
    examples = collect_examples(comparison, graph, kept)
    write_all(board, examples, folder)
    observers.call("harness_board_ready", board=board.model_dump(mode="json"), folder=folder)
    return RunResult(board, folder, outcome)


def assemble(
    comparison: Comparison, graph: Graph, store: Store, outcome: Outcome, command: str, failures: Sequence[tuple[str, str]]
) -> Board:
    """The board from what the store holds.

    Raises:
        StageError: the baseline or every row failed; there is nothing to compare.
    """
    titles = {stage.key: stage.title for stage in graph}
    rows = [_result(variant, comparison, graph, store, outcome, titles) for variant in comparison.variants]
    baseline = next(row for row in rows if row.label == comparison.config.baseline)
    if baseline.failed:
        raise StageError(f"the baseline {baseline.label!r} failed, so there is nothing to compare with: {baseline.failed}")
    warnings = [f"observer {name} failed and was left out: {reason}" for name, reason in failures]
    warnings += [text for row in rows for text in _data_warnings(row)]
    return build_board(
        name=comparison.config.name,
        description=comparison.config.description,
        config=comparison.config.model_dump(mode="json", by_alias=True),
        baseline=comparison.config.baseline,
        rows=rows,
        metrics={evaluator.name: evaluator.metrics() for evaluator in comparison.evaluators},
        examples=collect_examples(comparison, graph, store),
        sharing={**measure_sharing(graph, store, outcome.ran).as_dict(), "command": command, "versions": versions()},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        warnings=warnings,
    )


def _result(
    variant: Variant, comparison: Comparison, graph: Graph, store: Store, outcome: Outcome, titles: Mapping[str, str]
) -> RowResult:
    plans = [row for row in graph.rows if row.label == variant.label]
    reasons = [reason for row in plans if (reason := outcome.reason(graph.needed_by(row), titles))]
    done = [] if reasons else plans
    scores: dict[str, dict[int, list[Score]]] = {evaluator.name: {} for evaluator in comparison.evaluators}
    for row in done:
        for name, key in row.evaluations.items():
            scores[name][row.seed] = [Score(*fields) for fields in store.open(key).read_lines("scores.jsonl")]
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
        failed=reasons[0] if reasons else None,
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


def _data_warnings(row: RowResult) -> list[str]:
    said = []
    for seed, rounds in row.provenance["data"].items():
        asked, built = sum(facts["prompts"] for facts in rounds), sum(facts["groups"] for facts in rounds)
        if asked and 1 - built / asked > MUCH_DROPPED:
            reasons = sorted({reason for facts in rounds for reason in facts["dropped"]})
            said.append(f"{row.label}, seed {seed}: only {built} of {asked} prompts gave a group ({', '.join(reasons)})")
    return said


def collect_examples(comparison: Comparison, graph: Graph, store: Store) -> list[ExampleRow]:
    """The first evaluated prompts with each row's first answer at the first seed."""
    answers: dict[str, list[str]] = {}
    first = comparison.config.seeds[0]
    for row in graph.rows:
        keys = [key for evaluation in row.evaluations.values() for key in _answer_keys(graph, evaluation)]
        if row.seed == first and keys and store.holds(keys[0]):
            answers[row.label] = [responses[0].text for responses in read_answers(store.open(keys[0]))][:SHOWN_EXAMPLES]
    if not answers:
        return []
    source = next(stage.key for stage in graph if stage.kind == "source")
    shown = read_dataset(store.open(source))[comparison.config.evaluation.split][:SHOWN_EXAMPLES]
    return [
        ExampleRow(
            id=example.prompt.id,
            prompt="\n\n".join(f"{message.role}: {message.content}" for message in example.prompt.messages)
            if len(example.prompt.messages) > 1
            else example.prompt.text,
            target=example.target,
            answers={label: texts[index] for label, texts in answers.items() if index < len(texts)},
        )
        for index, example in enumerate(shown[: max(len(texts) for texts in answers.values())])
    ]


def _answer_keys(graph: Graph, evaluation: str) -> list[str]:
    stage = graph.stages[evaluation]
    return [key for name, key in sorted(stage.inputs.items()) if name.startswith("answers:")]


def versions() -> dict[str, str]:
    """Versions of what decides results."""
    found = {"python": platform.python_version()}
    for name in REPORTED_VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
