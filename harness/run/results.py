"""What the finished stages of a row hand to the board: scores, costs, curves, provenance."""

from __future__ import annotations

import hashlib
import re
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.run.executors.events import Outcome
from harness.run.graph import Graph, RowPlan
from harness.board.build import RowResult
from harness.models.checkpoint import Checkpoint
from harness.models.options import LoadOptions, weights_dtype
from harness.models.reward import reward_dtype
from harness.models.scratch import CHAT_TEMPLATE
from harness.config import Comparison, Variant, describe
from harness.run.costs import row_budget, row_cost
from harness.run.stages.benchmarks import UNKNOWN, overlap, read_benchmarks, trained_on
from harness.run.stages.context import read_dataset
from harness.run.stages.evaluate import FILES
from harness.store import Store, key_of
from harness.training.settings import resolve_precision
from harness.api.types import Score

BENCHMARKS_VERSION = 1  # as `harness.run.graph.VERSIONS`, of the counts of training prompts with a benchmark's questions
# Of a row's judge: summed over its seeds.
_COUNTED = ("judge_calls", "judge_tokens", "judgments", "unparsed", "declined", "cut_off")


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
        provenance=_provenance(variant, done, run),
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


def _model(checkpoint: Checkpoint | None) -> dict[str, Any]:
    """The starting model: where it is from, how it is loaded, the hash of its chat template."""
    if checkpoint is not None:
        return checkpoint.provenance()
    return {"scratch": True, "chat_template_sha256": hashlib.sha256(CHAT_TEMPLATE.encode()).hexdigest()}


def _provenance(variant: Variant, rows: Sequence[RowPlan], run: Run) -> dict[str, Any]:
    """How a row came about: starting model, components with all their fields, keys of its models, how its data turned out."""
    store, checkpoint, backend = run.store, run.comparison.checkpoint, describe(run.comparison.backend)
    return {
        "method": variant.method,
        "model": _model(checkpoint),
        "rounds": [
            {
                "data": describe(round_.builder),
                "objective": describe(round_.objective),
                "training": round_.training.model_dump(mode="json"),
                "reference": round_.reference,
            }
            for round_ in variant.rounds
        ],
        "seed_offset": variant.seed_offset,
        "backend": backend,
        "precision": row_precision(variant, run),
        "models": {str(row.seed): row.model for row in rows},
        **_judged(rows, store),
        "data": {str(row.seed): [_data(store.open(key).facts) for key in row.groups] for row in rows},
    }


def row_precision(variant: Variant, run: Run) -> dict[str, str]:
    """In which types a row was trained, is stored, was scored and generated."""
    device, config = run.graph.environment.get("device", "cpu"), run.comparison.config
    options = run.comparison.checkpoint.options if run.comparison.checkpoint else LoadOptions()
    trained = [*([config.sft] if config.sft else []), *(round_.training for round_ in variant.rounds)]
    products = dict.fromkeys(resolve_precision(settings.precision, device) for settings in trained)
    components = [*run.comparison.evaluators, *(round_.builder for round_ in variant.rounds)]
    rewards = any(getattr(component, "reward", None) is not None for component in components)
    return {
        "training": " and ".join(products) or "none",
        "weights": options.storage,
        "scoring": weights_dtype(options, device, "scoring"),
        "generation": run.comparison.backend.precision(weights_dtype(options, device, "generation")),
        **({"rewards": reward_dtype(device)} if rewards else {}),
    }


def _data(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a round's data turned out: counts, where the responses' ids come from, who judged where somebody did."""
    names = ("prompts", "groups", "pairs", "dropped", "responses", "means", "judge")
    return {name: facts[name] for name in names if name in facts}


def _judged(rows: Sequence[RowPlan], store: Store) -> dict[str, Any]:
    """Who judged a row, by evaluator, and what evaluators noted; nothing where there is nothing to say."""
    judges: dict[str, Any] = {}
    notes: dict[str, Any] = {}
    for row in rows:
        for evaluator, key in row.evaluations.items():
            facts = store.open(key).facts if store.holds(key) else {}
            if judge := facts.get("judge"):
                nothing = {"versions": [], "cut_off_reasons": [], **dict.fromkeys(_COUNTED, 0)}
                entry = judges.setdefault(evaluator, judge | nothing)
                named = [f"{judge['model']} ({version})" for version in judge["versions"]]
                entry["versions"] = sorted({*entry["versions"], *named})
                entry["cut_off_reasons"] = sorted({*entry["cut_off_reasons"], *judge["cut_off_reasons"]})
                for name in _COUNTED:
                    entry[name] += judge[name]
                entry.pop("judge_usd", None)
            if found := facts.get("notes"):
                notes.setdefault(evaluator, {})[str(row.seed)] = found
    return {name: value for name, value in (("judges", judges), ("notes", notes)) if value}


def data_facts(run: Run) -> dict[str, Any]:
    """Return which of the source's rows were kept, why the others were not, and how many hold a benchmark's questions.

    Nothing of an artifact that older code made.
    """
    key = next(stage.key for stage in run.graph if stage.kind == "source")
    facts = run.store.open(key).facts if run.store.holds(key) else {}
    if "screening" not in facts:
        return {}
    data = dict(facts["screening"])
    if "benchmarks" not in data and (counts := _benchmarks(run, key)):
        data["benchmarks"] = counts
    return {"data": data}


def _benchmarks(run: Run, source: str) -> dict[str, Any]:
    """Training prompts with questions of evaluators, through the store: a second run reads no benchmark again."""
    comparison = run.comparison
    bringing = [evaluator for evaluator in comparison.evaluators if evaluator.brings_questions()]
    if not bringing:
        return {}
    config = comparison.config
    payload = {
        "evaluators": [describe(evaluator) for evaluator in bringing],
        "trained": [any(variant.rounds for variant in comparison.variants), config.budget.prompts],
        "started": [config.sft is not None, config.model.scratch is not None],
    }
    key = key_of("benchmarks", BENCHMARKS_VERSION, payload, {"source": source})
    with run.store.claim(key):
        if run.store.holds(key):
            return dict(run.store.open(key).facts["benchmarks"])
        splits = trained_on(comparison, read_dataset(run.store.open(source)))
        counts = overlap(read_benchmarks(bringing, comparison.source), splits)
        if not any(UNKNOWN in count for count in counts.values()):  # it may be known the next time
            with run.store.draft("benchmarks", key) as draft:
                draft.facts["benchmarks"] = counts
    return counts


def copy_files(run: Run, folder: Path) -> None:
    """What evaluators left beside their scores, to `files/<row>/<evaluator>/seed-<n>/`."""
    for row in run.graph.rows:
        for evaluator, key in row.evaluations.items():
            left = run.store.open(key) / FILES if run.store.holds(key) else None
            if left is not None and left.is_dir():
                place = folder / FILES / _file_name(row.label) / evaluator / f"seed-{row.seed}"
                shutil.copytree(left, place, dirs_exist_ok=True)


def _file_name(label: str) -> str:
    """A row's label as a folder: other characters are replaced, and a hash keeps labels apart that differ in those alone."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", label).lstrip(".") or "_"
    return plain if plain == label else f"{plain}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
