"""What the finished stages of a row hand to the board: scores, costs, curves, provenance."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.api.interfaces import Evaluator
from harness.api.types import Example, Score
from harness.board.board import MetricEntry, ScoreEntry
from harness.board.build import Derived, ExampleRow, RowResult
from harness.board.compare import judges_of
from harness.config import Comparison, Variant, describe
from harness.models.checkpoint import Checkpoint
from harness.models.judge.bradley_terry import Floats, bradley_terry
from harness.models.options import LoadOptions, weights_dtype
from harness.models.reward import reward_dtype
from harness.models.scratch import CHAT_TEMPLATE
from harness.run.costs import row_budget, row_cost
from harness.run.executors.events import Outcome
from harness.run.graph import Graph, RowPlan
from harness.run.plan import OPPONENT
from harness.run.stages.benchmarks import UNKNOWN, overlap, read_benchmarks, trained_on
from harness.run.stages.context import read_answers, read_dataset
from harness.run.stages.evaluate import FILES
from harness.store import Store, key_of
from harness.training.settings import resolve_precision

SHOWN_EXAMPLES = 40
JUDGMENTS = "judgments.jsonl"  # lines of example, sample, verdict and words, left by an evaluator in its files
MUCH_DROPPED = 0.2  # of a row's prompts
PAIRED_METRIC = "win_rate"  # of an evaluator with opponents: 1 for a win, 0 for a loss, between them for a tie


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


def collect_examples(run: Run) -> list[ExampleRow]:
    """The first evaluated prompts with each row's first answer at the first seed; none where the config keeps them back."""
    if not run.comparison.config.run.examples:
        return []
    answers: dict[str, list[str]] = {}
    said: dict[str, dict[str, list[dict[str, str]]]] = {}  # row → example → what judges said
    for row in run.graph.rows:
        keys = [key for evaluation in row.evaluations.values() for key in _answer_keys(run.graph, evaluation)]
        if row.seed == run.comparison.config.seeds[0] and keys and run.store.holds(keys[0]):
            answers[row.label] = [responses[0].text for responses in read_answers(run.store.open(keys[0]))][:SHOWN_EXAMPLES]
            said[row.label] = _judgments(row, run.store)
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
            judged={label: found[example.prompt.id] for label, found in said.items() if example.prompt.id in found},
        )
        for index, example in enumerate(shown[: min(len(texts) for texts in answers.values())])
    ]


def _judgments(row: RowPlan, store: Store) -> dict[str, list[dict[str, str]]]:
    """Example → what judges said of its first answer, where an evaluator left a `judgments.jsonl` that says so."""
    found: dict[str, list[dict[str, str]]] = {}
    for evaluator, key in row.evaluations.items():
        left = store.open(key) / FILES / JUDGMENTS if store.holds(key) else None
        for line in left.read_text(encoding="utf-8").splitlines() if left is not None and left.is_file() else ():
            said = json.loads(line)
            if not said.get("sample", 0):
                words = {name: str(said.get(name, "")) for name in ("verdict", "words")}
                found.setdefault(str(said["example"]), []).append({"evaluator": evaluator, **words})
    return found


def _dialogue(example: Example) -> str:
    """The prompt as a person reads it: a single turn bare, several with who said what."""
    messages = example.prompt.messages
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in messages)


def _answer_keys(graph: Graph, evaluation: str) -> list[str]:
    stage = graph.stages[evaluation]
    return [key for name, key in sorted(stage.inputs.items()) if name.startswith("answers:")]


def run_warnings(run: Run, rows: Sequence[RowResult]) -> list[str]:
    """What a reader of the board should know: evaluators that failed, slow trainings, prompts that gave no data."""
    of_rows = (text for row in rows for text in (*_data_warnings(row), *_judge_warnings(row)))
    return [*_evaluation_failures(run), *_passes_warning(run), *_training_warnings(run), *of_rows]


def _evaluation_failures(run: Run) -> list[str]:
    """Why metrics are missing from rows whose training went well."""
    said = []
    for row in run.graph.rows:
        for name, key in row.evaluations.items():
            if run.failure(row.model) is None and (reason := run.failure(key)):
                said.append(f"{row.label}, seed {row.seed}: no scores of {name}, since it failed ({reason})")
    return said


def _passes_warning(run: Run) -> list[str]:
    """Rows that go through the same prompts more often than others: a budget in prompts alone lets them."""
    if run.comparison.config.budget.limit is not None:
        return []
    passes: dict[str, list[str]] = {}
    for variant in run.comparison.variants:
        if variant.rounds:
            counts = dict.fromkeys(str(round_.training.epochs) for round_ in variant.rounds)
            passes.setdefault(" and ".join(counts), []).append(variant.label)
    if len(passes) < 2:
        return []
    told = "; ".join(f"{count}: {', '.join(labels)}" for count, labels in sorted(passes.items()))
    return [f"rows go through their prompts a different number of times ({told}): budget.updates would hold them equal"]


def _training_warnings(run: Run) -> list[str]:
    """Models that were trained more slowly than others would be, and why: once each, with the rows unless all share it."""
    starts = [run.store.open(stage.key).facts for stage in run.graph if stage.kind == "sft" and run.store.holds(stage.key)]
    shared = dict.fromkeys(
        filter(None, (text for facts in starts for text in (facts.get("memory_warning"), _rounded(facts, "SFT"))))
    )
    rows: dict[str, list[str]] = {}
    trained = {row.label for row in run.graph.rows if row.training}
    for row in run.graph.rows:
        for key in filter(run.store.holds, row.training):
            facts = run.store.open(key).facts
            for text in filter(
                None, (facts.get("layout_warning"), facts.get("memory_warning"), _unpaired(facts), _rounded(facts))
            ):
                rows.setdefault(text, []).append(row.label)
    said = [text if set(labels) == trained else f"{', '.join(dict.fromkeys(labels))}: {text}" for text, labels in rows.items()]
    return [*shared, *said]


def _unpaired(facts: Mapping[str, Any]) -> str:
    """What is said of groups that were left out of a training since they have no rejected response."""
    count = facts.get("unpaired", 0)
    return f"{count} groups have no rejected response and were not trained on" if count else ""


def _rounded(facts: Mapping[str, Any], what: str = "training") -> str:
    """Return the warning of a model that is stored with fewer digits than it was trained with."""
    rounding = facts.get("rounding")
    if not rounding:
        return ""
    return (
        f"stored in {rounding['dtype']}, as model.storage asks: of {rounding['moved']:,} weights that {what} moved "
        f"{rounding['kept']:.1%} are stored as they were before; what rounding changes is {rounding['error']:.3g} times as "
        "long as the update"
    )


def _judge_warnings(row: RowResult) -> list[str]:
    """Judgments that could not be read, and a judge that changed while it judged one row."""
    said = []
    for evaluator, judge in row.provenance.get("judges", {}).items():
        if judge["unparsed"]:
            asked = f"{judge['unparsed']} of {judge['judgments']} judgments of {evaluator}"
            said.append(f"{row.label}: {asked} could not be read{_unread_reasons(judge)}; they are not scored")
        if len(judge["versions"]) > 1:
            said.append(f"{row.label}: several versions of the judge marked {evaluator}: {', '.join(judge['versions'])}")
    return said


def _unread_reasons(judge: Mapping[str, Any]) -> str:
    """Why judgments could not be read, as far as their servers said, with the fix for those that were cut off."""
    reasons = [f"{judge['declined']} declined"] if judge["declined"] else []
    if judge["cut_off"]:
        ends = ", ".join(judge["cut_off_reasons"])
        reasons.append(f"{judge['cut_off']} cut off, asked twice ({ends}): raise judge.max_tokens")
    rest = judge["unparsed"] - judge["declined"] - judge["cut_off"]
    if not reasons:
        return ", asked twice"
    return f" ({'; '.join([*reasons, *([f'{rest} without a verdict, asked twice'] if rest else [])])})"


def _data_warnings(row: RowResult) -> list[str]:
    """Return what a reader should know of a row's data: many prompts without a group, own samples tokenized again."""
    said = []
    for seed, rounds in row.provenance["data"].items():
        asked, built = sum(facts["prompts"] for facts in rounds), sum(facts["groups"] for facts in rounds)
        if asked and 1 - built / asked > MUCH_DROPPED:
            reasons = sorted({reason for facts in rounds for reason in facts["dropped"]})
            said.append(f"{row.label}, seed {seed}: only {built} of {asked} prompts gave a group ({', '.join(reasons)})")
    return [*said, *_tokenized_again(row)]


def _tokenized_again(row: RowResult) -> list[str]:
    """Return a warning where all own samples of a row were tokenized again: its ids may not be those that were sampled."""
    counts = [facts.get("responses", {}) for rounds in row.provenance["data"].values() for facts in rounds]
    again, kept = (sum(count.get(name, 0) for count in counts) for name in ("tokenized_again", "as_sampled"))
    if not again or kept:
        return []
    return [
        f"{row.label}: all {again} responses that are not the data's own were tokenized again from their text, since the "
        "backend gave no tokens or the data builder edited them: what is trained may differ from what was sampled"
    ]


class Meeting(NamedTuple):
    """One row's answer to one example against another row's.

    Attributes:
        question: what the examples of one resampling unit share: the turns of a dialogue, say.
    """

    seed: int
    question: str
    example: str
    row: str
    other: str


Meetings = dict[Meeting, list[float]]  # what the row reached, by sample


def pair_strengths(run: Run, rows: Sequence[RowResult]) -> tuple[list[Derived], list[str]]:
    """One metric per evaluator whose rows meet each other, in log-odds against the baseline's 0; and why one is missing."""
    found, warnings = [], []
    baseline = run.comparison.config.baseline
    mixed = any(judge.allow_mixed_judges for judge in run.comparison.judges.values())
    for evaluator in run.comparison.evaluators:
        if not evaluator.opponents() or not any(metric.name == PAIRED_METRIC for metric in evaluator.metrics()):
            continue
        judges = {" and ".join(judged) for row in rows if (judged := judges_of(row, evaluator.name))}
        if len(judges) > 1 and not mixed:
            warnings.append(
                f"There is no {evaluator.name}/strength, since rows were judged by {'; others by '.join(sorted(judges))}; "
                "set judge.allow_mixed_judges to have it all the same."
            )
            continue
        meetings = _meetings(evaluator, run, rows)
        labels = sorted({label for meeting in meetings for label in (meeting.row, meeting.other)})
        if baseline in labels:
            found.append(_derived(evaluator, meetings, labels, baseline))
    return found, warnings


def _derived(evaluator: Evaluator, meetings: Meetings, labels: Sequence[str], baseline: str) -> Derived:
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
                    meeting = Meeting(seed, score.question or score.example, score.example, result.label, other)
                    found.setdefault(meeting, []).append(score.value)
    return found


def _opponents(run: Run, label: str, seed: int, evaluator: str) -> list[str]:
    """A row's opponents as its evaluation had them, in the order of their samples."""
    row = next(row for row in run.graph.rows if (row.label, row.seed) == (label, seed))
    inputs = run.graph.stages[row.evaluations[evaluator]].inputs
    return sorted(name.removeprefix(OPPONENT) for name in inputs if name.startswith(OPPONENT))


def _table(meetings: Meetings, labels: Sequence[str]) -> Floats:
    """Wins, [seeds, questions, k, k]. Where both rows of a pair report it, as among all rows, it counts once."""
    seeds = {seed: index for index, seed in enumerate(sorted({meeting.seed for meeting in meetings}))}
    questions = {name: index for index, name in enumerate(sorted({meeting.question for meeting in meetings}))}
    place = {label: index for index, label in enumerate(labels)}
    table: Floats = np.zeros((len(seeds), len(questions), len(labels), len(labels)))
    for meeting, values in meetings.items():
        share = 0.5 if meeting._replace(row=meeting.other, other=meeting.row) in meetings else 1.0
        won = sum(values) / len(values)
        drawn, row, other = table[seeds[meeting.seed], questions[meeting.question]], place[meeting.row], place[meeting.other]
        drawn[row, other] += share * won
        drawn[other, row] += share * (1 - won)
    return table
