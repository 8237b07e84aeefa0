"""Results: read what the stages of a finished run made, and turn it into the rows, examples and warnings of its board.

`Run.seeds` reads the store, each row at each seed once; everything after it works on those.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from pydantic import JsonValue

from harness.api.interfaces import Backend
from harness.api.methods import GROUPED
from harness.api.types import Cost, Example, Score
from harness.board.build import ExampleRow, RowResult
from harness.board.compare import RowState
from harness.board.entries import RepeatabilityEntry
from harness.board.facts import Provenance
from harness.board.files import bounded
from harness.board.sequential import PromptsDesign
from harness.board.statistics import repeatability
from harness.config import Comparison, RowConfig, describe
from harness.config.checks import unused_settings
from harness.config.comparison import without_states
from harness.models.checkpoint import Checkpoint
from harness.models.options import LoadOptions, weights_dtype
from harness.models.reward import RewardModel, reward_dtype
from harness.models.scratch import CHAT_TEMPLATE
from harness.models.served import ASKED_AS
from harness.run.costs import Artifacts, judge_cost, stage_cost, used_budget
from harness.run.executors.events import Outcome
from harness.run.graph import Graph, RowPlan, StatePlan
from harness.run.records import (
    EvaluateFacts,
    EvaluateInputs,
    GroupsFacts,
    JudgeFacts,
    ScreeningCounts,
    SftFacts,
    SourceFacts,
    TrainFacts,
    TrainingFacts,
)
from harness.run.stages.benchmarks import stored_overlap
from harness.run.stages.context import read_answers, read_dataset
from harness.run.stages.evaluate import FILES
from harness.store import Artifact, Store
from harness.training.settings import resolve_precision


@dataclass(frozen=True)
class Evaluation:
    """One evaluator's artifacts for a row at one seed, one for each block of prompts, and the facts of all of them."""

    artifacts: tuple[Artifact, ...]
    facts: EvaluateFacts

    @classmethod
    def of(cls, artifacts: Sequence[Artifact]) -> Evaluation:
        return cls(tuple(artifacts), _together([EvaluateFacts.of(artifact) for artifact in artifacts]))

    def scores(self) -> list[Score]:
        return [Score(*fields) for artifact in self.artifacts for fields in artifact.read_lines("scores.jsonl")]


def _together(blocks: Sequence[EvaluateFacts]) -> EvaluateFacts:
    """Return what the board shows of the facts of blocks of prompts: the judge's and the notes, numbers of which are counts."""
    if len(blocks) == 1:
        return blocks[0]
    judges = [facts.judge for facts in blocks if facts.judge]
    notes: dict[str, Any] = {}
    for facts in blocks:
        for name, value in facts.notes.items():
            counts = isinstance(value, int) and isinstance(notes.get(name), int)
            notes[name] = notes[name] + value if counts else value
    return EvaluateFacts(**({"judge": _summed(judges)} if judges else {}), **({"notes": notes} if notes else {}))


@dataclass(frozen=True)
class SeedResult:
    """A row at one seed, as its stages left it.

    Attributes:
        failed: why its training failed; None where it did not. A failed row has the facts of the rounds before, and no cost.
        groups, training: the facts of each round.
        evaluations: evaluator -> its artifacts; without those that failed.
        cost: the row's data, reference and training, in full even where shared, and the judges of its evaluation. The shared
            starting model is left out.
        curve: the training log of all rounds, its steps counted through.
        states: each of the plan's states with its evaluations; without those that failed.
    """

    plan: RowPlan
    failed: str | None
    groups: tuple[GroupsFacts, ...]
    training: tuple[TrainFacts, ...]
    evaluations: Mapping[str, Evaluation]
    cost: Cost
    curve: list[dict[str, float]]
    states: tuple[tuple[StatePlan, Mapping[str, Evaluation]], ...] = ()


class FinishedStages:
    """Stages that have ended, well or not, and the rows that they are of: those of a run, or those that a board names."""

    graph: Graph
    store: Artifacts
    outcome: Outcome

    def failure(self, *keys: str) -> str | None:
        """Return why one of `keys` was not made, after the title of the stage that failed; None if all were made."""
        failed = sorted(self.graph.ancestors(*keys) & self.outcome.failed.keys())
        return f"{self.graph.stages[failed[0]].title}: {self.outcome.failed[failed[0]]}" if failed else None

    @cached_property
    def seeds(self) -> tuple[SeedResult, ...]:
        """Every row at every seed, in the graph's order.

        Raises:
            StoreError: an artifact is damaged, or was removed since it was made.
        """
        return tuple(_read(plan, self) for plan in self.graph.rows)

    def seeds_of(self, label: str) -> list[SeedResult]:
        """Return a row at all its seeds."""
        return [result for result in self.seeds if result.plan.label == label]


@dataclass(frozen=True)
class Run(FinishedStages):
    """A comparison whose stages have ended, well or not."""

    comparison: Comparison
    graph: Graph
    store: Store
    outcome: Outcome


def _read(plan: RowPlan, run: FinishedStages) -> SeedResult:
    """Read a row at one seed from the store."""
    failed, store = run.failure(plan.model), run.store
    evaluations = {
        name: Evaluation.of([store.open(key) for key in keys])
        for name, keys in plan.evaluations.items()
        if all(store.holds(key) for key in keys)
    }
    data, trained = (
        [store.open(key) for key in keys if failed is None or store.holds(key)] for keys in (plan.groups, plan.training)
    )
    cost, curve = Cost(), list[dict[str, float]]()
    if failed is None:
        for key in run.graph.ancestors(*plan.training):
            if run.graph.stages[key].kind in ("groups", "reference", "train"):
                cost += stage_cost(store.open(key))
        for evaluation in evaluations.values():
            cost += judge_cost(evaluation.facts)
        for number, artifact in enumerate(trained):
            before = len(curve)
            for step, entry in enumerate(artifact.read_lines("history.jsonl"), start=1):
                curve.append({**entry, "step": before + step, "round": number})
    return SeedResult(
        plan,
        failed,
        tuple(GroupsFacts.of(artifact) for artifact in data),
        tuple(TrainFacts.of(artifact) for artifact in trained),
        evaluations,
        cost,
        curve,
        tuple(
            (
                state,
                {name: Evaluation.of([store.open(key)]) for name, key in state.evaluations.items() if store.holds(key)},
            )
            for state in plan.states
        ),
    )


# Rows


@dataclass(frozen=True)
class MeasuredFacts:
    """The facts of a row that follow from its stages alone.

    Attributes:
        costs, curves: per seed.
        provenance: its part: the keys of its models, counts of its data, judges and notes.
    """

    costs: dict[int, Cost]
    budget: dict[str, float]
    curves: dict[int, list[dict[str, float]]]
    provenance: Mapping[str, Any]

    @classmethod
    def of(cls, seeds: Sequence[SeedResult], *, trained: bool = True) -> Self:
        """Compute them.

        Args:
            seeds: all seeds of a row that did not fail.
            trained: False for a model from elsewhere, which has no budget.
        """
        budgets = [used_budget(result.training) for result in seeds] if trained else []
        judges, notes = _judges(seeds), _notes(seeds)
        return cls(
            costs={result.plan.seed: result.cost for result in seeds},
            budget={name: statistics.fmean(budget[name] for budget in budgets) for name in budgets[0]} if budgets else {},
            curves={result.plan.seed: result.curve for result in seeds if result.training},
            provenance={
                "models": {str(result.plan.seed): result.plan.model for result in seeds},
                **({"judges": judges} if judges else {}),
                **({"notes": notes} if notes else {}),
                "data": {str(result.plan.seed): [_data(facts) for facts in result.groups] for result in seeds},
            },
        )


def row_result(config: RowConfig, run: Run) -> RowResult:
    """Return a row over all its seeds.

    A row whose training failed at any seed has the reason and no scores. An evaluator that failed at any seed has no scores of
    the row; `run_warnings` says why.
    """
    seeds = run.seeds_of(config.label)
    reason = run.failure(*(result.plan.model for result in seeds))
    done = [] if reason else seeds
    scores: dict[str, dict[int, list[Score]]] = {}
    for label in run.comparison.evaluators:
        failed = run.failure(*(key for result in done for key in result.plan.evaluations[label]))
        complete = [] if failed else done
        scores[label] = {result.plan.seed: result.evaluations[label].scores() for result in complete}
    facts = MeasuredFacts.of(done, trained=not config.is_as_it_is)
    return RowResult(
        label=config.label,
        data=config.data,
        objective=config.objective,
        rounds=len(config.rounds),
        kind=config.kind,
        scores=scores,
        costs=facts.costs,
        budget=facts.budget,
        provenance=Provenance.read({**_provenance(config, run), **facts.provenance}),
        failed=reason,
        curves=facts.curves,
        states=_states(done, run),
        without_states=without_states(config) if run.comparison.during_evaluators else None,
    )


def _states(seeds: Sequence[SeedResult], run: Run) -> tuple[RowState, ...]:
    """Return the evaluated states of a row over all its seeds, without the scores of evaluators that failed at any seed."""
    states = []
    for place, state in enumerate(seeds[0].plan.states if seeds else ()):
        at_seeds = {result.plan.seed: result.states[place][1] for result in seeds}
        scores = {
            label: {seed: evaluations[label].scores() for seed, evaluations in at_seeds.items()}
            for label in run.comparison.during_evaluators
            if all(label in evaluations for evaluations in at_seeds.values())
        }
        states.append(RowState(state.position, state.round, state.share, scores))
    return tuple(states)


def prompts_so_far(run: Run) -> PromptsDesign | None:
    """Return the prompts that rows got one block after another; None where the config gives them all at once.

    Raises:
        StoreError: the source's artifact is damaged, or was removed since it was made.
    """
    evaluation = run.comparison.config.evaluation
    if evaluation.until is None or evaluation.most is None:
        return None
    key = next(stage.key for stage in run.graph if stage.kind == "source")
    names = [example.prompt.id for example in read_dataset(run.store.open(key))[evaluation.split]]
    divisible = frozenset(label for label, evaluator in run.comparison.evaluators.items() if evaluator.divisible)
    design = PromptsDesign(evaluation.first_prompts, evaluation.most, divisible, ())
    looks = design.rule.looks[: max(len(row.evaluations[label]) for row in run.graph.rows for label in divisible)]
    return replace(design, blocks=tuple(tuple(names[first:last]) for first, last in pairwise((0, *looks))))


def _provenance(config: RowConfig, run: Run) -> Mapping[str, Any]:
    """Return how a row came about, as far as its config says: starting model, components with all their fields."""
    base = run.comparison.config.budget
    sourced = any(row.source is not None for row in run.comparison.rows)
    budgeted = bool(config.rounds) and any(row.budget != base for row in run.comparison.rows)
    return {
        "method": config.method,
        "model": _starting_model(run.comparison.checkpoint),
        "rounds": [
            {
                "data": describe(round_.builder) if round_.builder else None,
                "objective": describe(round_.objective) if round_.objective else None,
                **({"trainer": describe(round_.trainer)} if round_.trainer.name != GROUPED else {}),
                "training": round_.training.model_dump(mode="json"),
                "reference": round_.reference,
            }
            for round_ in config.rounds
        ],
        **({"trained_on": describe(config.source or run.comparison.source)} if sourced else {}),
        **({"budget": config.budget.model_dump(mode="json", exclude_none=True)} if budgeted else {}),
        **({"prefix": config.prefix} if config.prefix else {}),
        "seed_offset": config.seed_offset,
        **({"checkpoint": config.checkpoint.provenance()} if config.checkpoint else {}),
        **({"served": {"model": config.served.model, **config.served.identity}} if config.served else {}),
        "backend": describe(run.comparison.backend) if config.backend is None else _asking(config.backend),
        "precision": row_precision(config, run),
    }


def _asking(backend: Backend) -> Mapping[str, Any]:
    """Return the backend that asks a served model, as the row's keys have it."""
    return {"name": backend.name, "version": backend.version, "fields": dict(ASKED_AS)}


def _starting_model(checkpoint: Checkpoint | None) -> Mapping[str, Any]:
    """Return where the starting model is from, how it is loaded, and the hash of its chat template."""
    if checkpoint is not None:
        return checkpoint.provenance()
    return {"scratch": True, "chat_template_sha256": hashlib.sha256(CHAT_TEMPLATE.encode()).hexdigest()}


def row_precision(config: RowConfig, run: Run) -> dict[str, str]:
    """Return the types in which a row was trained, is stored, was scored and generated."""
    device, comparison = run.graph.environment.get("device", "cpu"), run.comparison
    if config.served is not None:
        return {}  # the server's own affair
    start = config.checkpoint or comparison.checkpoint
    options = start.options if start else LoadOptions()
    sft = None if config.checkpoint else comparison.config.sft
    trained = [*([sft] if sft else []), *(round_.training for round_ in config.rounds)]
    products = dict.fromkeys(resolve_precision(settings.precision, device) for settings in trained)
    components = [
        *comparison.evaluators.values(),
        *(part for round_ in config.rounds for part in (round_.builder, round_.trainer) if part),
    ]
    rewards = any(isinstance(getattr(component, "reward", None), RewardModel) for component in components)
    return {
        "training": " and ".join(products) or "none",
        "weights": options.storage,
        "scoring": weights_dtype(options, device, "scoring"),
        "generation": comparison.backend.precision(weights_dtype(options, device, "generation")),
        **({"rewards": reward_dtype(device)} if rewards else {}),
    }


def _data(facts: GroupsFacts) -> dict[str, JsonValue]:
    """Return the facts of a round's data that a board shows; those that an older version did not write are left out."""
    known = facts.as_json()
    shown = ("prompts", "groups", "pairs", "dropped", "responses", "means", "judge")
    return {name: known[name] for name in shown if name in known}


def _judges(seeds: Sequence[SeedResult]) -> dict[str, JsonValue]:
    """Return the judge of each evaluator, its counts summed over the seeds."""
    judges = merge_judges(seeds)
    # Dollars are part of the row's cost, where an unknown price makes the whole sum unknown.
    return {evaluator: judge.model_dump(exclude={"judge_usd", "repeated"}) for evaluator, judge in judges.items()}


def merge_judges(seeds: Sequence[SeedResult]) -> dict[str, JudgeFacts]:
    """Return evaluator -> its judge over all seeds; a version is named together with its model."""
    by_evaluator: dict[str, list[JudgeFacts]] = {}
    for result in seeds:
        for evaluator, evaluation in result.evaluations.items():
            if evaluation.facts.judge:
                by_evaluator.setdefault(evaluator, []).append(evaluation.facts.judge)
    return {
        evaluator: _summed(judges).model_copy(
            update={"versions": sorted({f"{judge.model} ({version})" for judge in judges for version in judge.versions})}
        )
        for evaluator, judges in by_evaluator.items()
    }


def _summed(judges: Sequence[JudgeFacts]) -> JudgeFacts:
    """Return one judge's facts over several artifacts; its price is unknown where one is."""
    dollars = [judge.judge_usd for judge in judges]
    return judges[0].model_copy(
        update={
            "judge_calls": sum(judge.judge_calls for judge in judges),
            "judge_tokens": sum(judge.judge_tokens for judge in judges),
            "judge_usd": None if None in dollars else sum(dollar or 0.0 for dollar in dollars),
            "judgments": sum(judge.judgments for judge in judges),
            "unparsed": sum(judge.unparsed for judge in judges),
            "declined": sum(judge.declined for judge in judges),
            "cut_off": sum(judge.cut_off for judge in judges),
            "cut_off_reasons": sorted({reason for judge in judges for reason in judge.cut_off_reasons}),
            "versions": sorted({version for judge in judges for version in judge.versions}),
            "repeated": {key: verdicts for judge in judges for key, verdicts in judge.repeated.items()},
        }
    )


VERDICTS = {"A": 1.0, "B": 0.0, "C": 0.5, "tie": 0.5}  # of the answer shown first, where a verdict is a name


def judge_repeatability(run: Run) -> list[RepeatabilityEntry]:
    """Return how far each judge agrees with itself, over all rows and seeds; nothing where no question was asked again."""
    verdicts: dict[str, dict[str, list[JsonValue]]] = {}
    for result in run.seeds:
        for evaluator, evaluation in result.evaluations.items():
            if evaluation.facts.judge and evaluation.facts.judge.repeated:
                verdicts.setdefault(evaluator, {}).update(evaluation.facts.judge.repeated)
    entries = [_repeatability(evaluator, list(asked.values())) for evaluator, asked in verdicts.items()]
    return [entry for entry in entries if entry is not None]


def _repeatability(evaluator: str, verdicts: Sequence[Sequence[JsonValue]]) -> RepeatabilityEntry | None:
    """Return the entry of one evaluator's judge; verdicts that are no numbers have an agreement alone."""
    flat = [verdict for listed in verdicts for verdict in listed]
    named = VERDICTS if all(isinstance(verdict, str) and verdict in VERDICTS for verdict in flat) else {}
    numbers = all(isinstance(verdict, int | float) for verdict in flat)
    # Any other verdict is told from others and no more: its place among them stands for it.
    places = {text: float(place) for place, text in enumerate(dict.fromkeys(json.dumps(verdict) for verdict in flat))}
    table = [
        [float(verdict) if numbers else named[verdict] if named else places[json.dumps(verdict)] for verdict in listed]  # type: ignore[arg-type,index]
        for listed in verdicts
    ]
    measured = repeatability(table)
    if measured is None:
        return None
    share = measured.share if (numbers or named) and measured.correlation is not None else None
    return RepeatabilityEntry(
        evaluator=evaluator,
        questions=measured.questions,
        verdicts=measured.repeats,
        agreement=measured.agreement,
        share=share,
    )


def _notes(seeds: Sequence[SeedResult]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Return evaluator -> seed -> the evaluator's notes."""
    notes: dict[str, dict[str, Mapping[str, Any]]] = {}
    for result in seeds:
        for evaluator, evaluation in result.evaluations.items():
            if evaluation.facts.notes:
                notes.setdefault(evaluator, {})[str(result.plan.seed)] = evaluation.facts.notes
    return notes


def screening_counts(run: Run) -> ScreeningCounts | None:
    """Return the counts of the source's rows, with those that hold a benchmark's questions.

    None where the source failed, or an older version made its artifact and did not count.
    """
    key = next(stage.key for stage in run.graph if stage.kind == "source")
    counts = SourceFacts.of(run.store.open(key)).screening if run.store.holds(key) else None
    if counts is None or counts.benchmarks:
        return counts
    overlap = stored_overlap(run.comparison, run.store, key)
    return counts.model_copy(update={"benchmarks": overlap}) if overlap else counts


# Files and examples

JUDGMENTS = "judgments.jsonl"  # a file that evaluators may write: lines of example, sample, verdict and words
QUESTIONS = "questions.jsonl"  # and one about questions of their own: lines of example, prompt, target and answer


def copy_files(run: Run, folder: Path) -> None:
    """Copy the files that evaluators wrote beside their scores to `files/<row>/<evaluator>/seed-<n>/`.

    Those of a further block of prompts go to a folder in it, `block-<n>`.
    """
    for result in run.seeds:
        for evaluator, evaluation in result.evaluations.items():
            start = run.comparison.start
            row = result.plan.label if start is None else f"{start}/{result.plan.label}"
            for number, artifact in enumerate(evaluation.artifacts, start=1):
                if (artifact / FILES).is_dir():
                    place = folder / FILES / _file_name(row) / evaluator / f"seed-{result.plan.seed}"
                    block = place if number == 1 else place / f"block-{number}"
                    shutil.copytree(artifact / FILES, block, dirs_exist_ok=True)


def _file_name(label: str) -> str:
    """Return a row's label as the name of a folder: a hash keeps labels apart that differ in replaced characters alone."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", label).lstrip(".") or "_"
    return plain if plain == label else f"{plain}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"


def collect_examples(run: Run) -> list[ExampleRow]:
    """Return the evaluated prompts with each row's first answer at the first seed; none where the config hides them.

    After the source's come the questions of evaluators that bring their own. Where the texts are more than a board keeps, the
    first ones.
    """
    config, store = run.comparison.config, run.store
    if not config.run.examples:
        return []
    answers: dict[str, list[str]] = {}
    judged: dict[str, dict[str, list[dict[str, str]]]] = {}
    asked: dict[str, ExampleRow] = {}
    for result in run.seeds:
        if result.plan.seed != config.first_seeds[0]:
            continue
        label = result.plan.label
        judged[label] = _judgments(result)
        for question in _own_questions(result):
            known = asked.setdefault(question.id, question)
            asked[question.id] = replace(known, answers={**known.answers, **question.answers})
        key = _first_answers(result.plan, run.graph)
        if key is not None and store.holds(key):
            answers[label] = [drawn[0].text for drawn in read_answers(store.open(key))]
    shown: list[ExampleRow] = []
    if answers:
        source = next(stage.key for stage in run.graph if stage.kind == "source")
        examples = read_dataset(store.open(source))[config.evaluation.split]
        for index, example in enumerate(examples[: min(len(texts) for texts in answers.values())]):
            texts = {label: answered[index] for label, answered in answers.items()}
            shown.append(ExampleRow(example.prompt.id, _dialogue(example), example.target, texts))
    return bounded(
        replace(example, judged={label: words[example.id] for label, words in judged.items() if example.id in words})
        for example in (*shown, *asked.values())
    )


def _first_answers(plan: RowPlan, graph: Graph) -> str | None:
    """Return the stage of the first answers that any evaluator asks of a row."""
    for keys in plan.evaluations.values():
        for answers in EvaluateInputs.of(graph.stages[keys[0]]).answers.values():
            return answers
    return None


def _judgments(result: SeedResult) -> dict[str, list[dict[str, str]]]:
    """Return example -> the judges' verdicts on its first answer, from the evaluators that wrote a file of judgments."""
    judgments: dict[str, list[dict[str, str]]] = {}
    for evaluator, evaluation in result.evaluations.items():
        file = evaluation.artifacts[0] / FILES / JUDGMENTS
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
            judgment = json.loads(line)
            if not judgment.get("sample", 0):
                words = {name: str(judgment.get(name, "")) for name in ("verdict", "words")}
                judgments.setdefault(str(judgment["example"]), []).append({"evaluator": evaluator, **words})
    return judgments


def _own_questions(result: SeedResult) -> Iterator[ExampleRow]:
    """Yield the questions that evaluators brought, with the row's answers, from those that wrote a file of them."""
    for evaluation in result.evaluations.values():
        file = evaluation.artifacts[0] / FILES / QUESTIONS
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
            question = json.loads(line)
            target = None if question.get("target") is None else str(question["target"])
            answers = {result.plan.label: str(question["answer"])}
            yield ExampleRow(str(question["example"]), str(question["prompt"]), target, answers)


def _dialogue(example: Example) -> str:
    """Return a prompt for people: a single turn as it is, several turns each after its role."""
    messages = example.prompt.messages
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in messages)


# Warnings

MUCH_DROPPED = 0.2  # of a row's prompts


def run_warnings(run: Run) -> list[str]:
    """Return warnings for readers of the board: failed evaluators, slow trainings, prompts without data, unread judgments."""
    rows = list(dict.fromkeys(result.plan.label for result in run.seeds if run.failure(result.plan.model) is None))
    return [
        *_evaluation_failures(run),
        *_source_warning(run),
        *_budget_warning(run),
        *unused_settings(run.comparison),
        *_passes_warning(run),
        *_training_warnings(run),
        *_changed_warning(run),
        *(text for label in rows for text in _row_warnings(label, run)),
    ]


def _evaluation_failures(run: Run) -> Iterator[str]:
    """Name the evaluators that failed on rows whose training succeeded."""
    for result in run.seeds:
        for name, keys in result.plan.evaluations.items():
            if result.failed is None and (reason := run.failure(*keys)):
                yield f"{result.plan.label}, seed {result.plan.seed}: no scores of {name}, since it failed ({reason})"
        for state in result.plan.states:
            for name, key in state.evaluations.items():
                if result.failed is None and (reason := run.failure(key)):
                    place = f"round {state.round} at {state.share:.4g}"
                    yield f"{result.plan.label}, seed {result.plan.seed}: {place} has no scores of {name} ({reason})"


def _source_warning(run: Run) -> Iterator[str]:
    """Name the rows that are trained on sources of their own."""
    named: dict[str, list[str]] = {}
    for config in run.comparison.rows:
        if config.source is not None:
            named.setdefault(config.source.name, []).append(config.label)
    if named:
        listed = "; ".join(f"{name}: {', '.join(labels)}" for name, labels in named.items())
        yield (
            f"rows are trained on other data than the comparison's {run.comparison.source.name} ({listed}): a difference "
            "between them and the others, marked †, is not their methods' alone"
        )
        if run.comparison.config.evaluation.contaminated == "count" and any(
            evaluator.brings_questions() for evaluator in run.comparison.evaluators.values()
        ):
            yield "training prompts of rows' own sources were not held against evaluators' questions"


def _budget_warning(run: Run) -> Iterator[str]:
    """Name the budget of each trained row, where they do not all have the same."""
    rows: dict[tuple[int, int, str], list[str]] = {}
    for config in run.comparison.rows:
        if config.rounds:
            limit = config.budget.limit
            amount, unit = (config.spent(limit.amount), limit.unit) if limit else (0, "")
            rows.setdefault((config.spent(config.budget.prompts), amount, unit), []).append(config.label)
    if len(rows) > 1:
        listed = "; ".join(
            f"{prompts:,} prompts{f' and {amount:,} {unit}' if unit else ''}: {', '.join(labels)}"
            for (prompts, amount, unit), labels in sorted(rows.items())
        )
        yield f"rows have different budgets ({listed}): a difference between them is not their methods' alone"


def _passes_warning(run: Run) -> Iterator[str]:
    """Name rows that go through the same prompts more often than others: a budget in prompts alone allows it."""
    passes: dict[str, list[str]] = {}
    for config in run.comparison.rows:
        if config.rounds and config.budget.limit is None:
            counts = dict.fromkeys(str(round_.training.epochs) for round_ in config.rounds)
            passes.setdefault(" and ".join(counts), []).append(config.label)
    if len(passes) > 1:
        listed = "; ".join(f"{count}: {', '.join(labels)}" for count, labels in sorted(passes.items()))
        yield f"rows go through their prompts a different number of times ({listed}): budget.updates would hold them equal"


def _training_warnings(run: Run) -> list[str]:
    """Return why models were trained more slowly than others, or lost digits: once each, with the rows unless all share it."""
    starts = [
        SftFacts.of(run.store.open(stage.key)) for stage in run.graph if stage.kind == "sft" and run.store.holds(stage.key)
    ]
    shared = dict.fromkeys(
        text
        for facts in starts
        for text in (facts.layout_warning, facts.memory_warning, _rounding_warning(facts, "SFT"))
        if text
    )
    rows: dict[str, list[str]] = {}
    for result in run.seeds:
        for facts in result.training:
            for text in (
                facts.layout_warning,
                facts.memory_warning,
                _unpaired_warning(facts),
                _rounding_warning(facts),
                *facts.notes,
            ):
                if text:
                    rows.setdefault(text, []).append(result.plan.label)
    trained = {result.plan.label for result in run.seeds if result.plan.training}
    own = [text if set(labels) == trained else f"{', '.join(dict.fromkeys(labels))}: {text}" for text, labels in rows.items()]
    return [*shared, *own]


def _changed_warning(run: Run) -> Iterator[str]:
    """Name the trainings whose model was dropped, and came out differently when it was made again."""
    keys = dict.fromkeys(key for result in run.seeds if result.failed is None for key in result.plan.training)
    if changed := [run.graph.stages[key].title for key in keys if run.store.open(key).changed]:
        yield (
            f"models were dropped (run.keep_models) and made again to other weights ({', '.join(changed)}): scores from before "
            "and after are of different weights"
        )


def _unpaired_warning(facts: TrainFacts) -> str:
    return f"{facts.unpaired} groups have no rejected response and were not trained on" if facts.unpaired else ""


def _rounding_warning(facts: TrainingFacts, what: str = "training") -> str:
    """Return the warning of a model that is stored with fewer digits than it was trained with."""
    rounding = facts.rounding
    if rounding is None:
        return ""
    return (
        f"stored in {rounding.dtype}, as model.storage asks: of {rounding.moved:,} weights that {what} moved "
        f"{rounding.kept:.1%} are stored as they were before; what rounding changes is {rounding.error:.3g} times as "
        "long as the update"
    )


def _row_warnings(label: str, run: Run) -> Iterator[str]:
    """Yield warnings of a row's data and judges."""
    seeds = run.seeds_of(label)
    if any(result.failed for result in seeds):
        return
    for result in seeds:
        prompts, groups = sum(facts.prompts for facts in result.groups), sum(facts.groups for facts in result.groups)
        if prompts and 1 - groups / prompts > MUCH_DROPPED:
            reasons = ", ".join(sorted({reason for facts in result.groups for reason in facts.dropped}))
            yield f"{label}, seed {result.plan.seed}: only {groups} of {prompts} prompts gave a group ({reasons})"
    counts = [facts.responses for result in seeds for facts in result.groups if facts.responses]
    again = sum(count.tokenized_again for count in counts)
    if again and not any(count.as_sampled for count in counts):
        yield (
            f"{label}: all {again} responses that are not the data's own were tokenized again from their text, since the "
            "backend gave no tokens or the data builder edited them: what is trained may differ from what was sampled"
        )
    for evaluator, judge in merge_judges(seeds).items():
        if judge.unparsed:
            asked = f"{judge.unparsed} of {judge.judgments} judgments of {evaluator}"
            yield f"{label}: {asked} could not be read{_unread_reasons(judge)}; they are not scored"
        if len(judge.versions) > 1:
            yield f"{label}: several versions of the judge marked {evaluator}: {', '.join(judge.versions)}"


def _unread_reasons(judge: JudgeFacts) -> str:
    """Return why judgments could not be read, as far as the servers say, with the fix for those that were cut off."""
    reasons = [f"{judge.declined} declined"] if judge.declined else []
    if judge.cut_off:
        ends = ", ".join(judge.cut_off_reasons)
        reasons.append(f"{judge.cut_off} cut off, asked twice ({ends}): raise judge.max_tokens")
    if not reasons:
        return ", asked twice"
    rest = judge.unparsed - judge.declined - judge.cut_off
    return f" ({'; '.join([*reasons, *([f'{rest} without a verdict, asked twice'] if rest else [])])})"
