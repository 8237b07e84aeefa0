"""What a reader of a board should know of its rows before comparing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.board.build import RowResult
from harness.run.results import Run

MUCH_DROPPED = 0.2  # of a row's prompts


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
