"""Screen a source's rows: no prompt that is evaluated is trained on, and none longer than the config allows.

Examples are kept or left out whole, and every one that is left out is counted under its reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.api.interfaces import Source
from harness.api.texts import fold
from harness.api.types import Dataset, Example, Prompt, Response, SplitName
from harness.config import Comparison, RowConfig
from harness.config.schema import Limits
from harness.errors import Problem
from harness.extras import missing_extra
from harness.models.checkpoint import SANDBOX
from harness.models.load import load_tokenizer
from harness.models.tokenization import ChatTemplate
from harness.run.records import BenchmarkOverlap, ScreeningCounts
from harness.run.stages.benchmarks import Benchmark, all_read, overlap, read_benchmarks

EXACT, NORMALISED, CONTINUED, BENCHMARK = "exact", "normalised", "continued", "benchmark"
SHOWN_PAIRS = 20  # of each split and reason
EXCERPT = 200  # characters of a shown prompt
CHECKED = 200  # dialogues of each split that are tokenized while planning
FEWEST = 2  # examples of a split that is used: from one alone comes neither an interval nor a difference between examples
_RULES: tuple[tuple[SplitName, tuple[SplitName, ...]], ...] = (
    ("tuning", ("heldout",)),
    ("train", ("heldout", "tuning")),
    ("sft", ("heldout", "tuning")),
)
_COUNTED = {"target": "a target", "ranked": "two ranked responses"}
_Turns = tuple[tuple[str, str], ...]  # (role, folded text) of each turn


@dataclass
class Screening:
    """Counts of the examples that were kept, and of the others by reason.

    Attributes:
        kept: examples by split.
        dropped: rows that the source itself left out, by reason.
        contaminated: by split, prompts that are evaluated elsewhere: the same text (`exact`), the same but for case, spacing
            and sentence punctuation (`normalised`), or another cut of the same dialogue, which holds an evaluated answer or
            answers what an evaluated prompt goes on from (`continued`); and prompts with a question of an evaluator's own
            (`benchmark`), where the config drops them.
        too_long: by split, examples over a limit, by the limit's name.
        benchmarks: by evaluator, training prompts with a question of its own, as `benchmarks.overlap` counts them.
        usable: by split, how many of the kept examples have a target, and how many at least two ranked responses.
        pairs: left-out prompts beside the evaluated ones they were taken for, the first of each split and reason. They are
            shown by a plan and are in no artifact and on no board, since they are the data's own words.
    """

    kept: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    contaminated: dict[str, dict[str, int]] = field(default_factory=dict)
    too_long: dict[str, dict[str, int]] = field(default_factory=dict)
    benchmarks: dict[str, BenchmarkOverlap] = field(default_factory=dict)
    usable: dict[str, dict[str, int]] = field(default_factory=dict)
    pairs: list[dict[str, str]] = field(default_factory=list)

    def counts(self) -> ScreeningCounts:
        """Return the counts for artifacts and boards."""
        return ScreeningCounts(
            kept=self.kept,
            dropped=self.dropped,
            contaminated=self.contaminated,
            too_long=self.too_long,
            **({"benchmarks": self.benchmarks} if self.benchmarks else {}),
        )


def screened(
    comparison: Comparison, row: RowConfig | None = None, evaluated: Dataset | None = None
) -> tuple[Dataset, Screening] | None:
    """Return the source's rows as the `source` stage will find them; None where the hub or a package is out of reach.

    Args:
        row: one with a source of its own, which is read in place of the comparison's.
        evaluated: for such a row, the comparison's dataset.

    Raises:
        DataError: the rows cannot be read, or the chat template refuses their system turns.
    """
    limits, checkpoint = comparison.config.limits, comparison.checkpoint
    source, name = (row.source, row.source_name) if row and row.source else (comparison.source, "source")
    unknown = {**comparison.unreachable, **comparison.unchecked}
    if name in unknown or (limits is not None and "model" in unknown):
        return None
    try:
        template, loaded = None, source.load()
    except ModuleNotFoundError as error:
        if not comparison.unchecked or missing_extra(error) is None:
            raise
        return None
    known = checkpoint is not None and "model" not in unknown
    foreign = known and comparison.config.model.path != SANDBOX  # the sandbox's own template fits the sandbox's dialogues
    if checkpoint is not None and (limits is not None or foreign):
        template = ChatTemplate(load_tokenizer(checkpoint.files(weights=False), checkpoint.options))
    if template is not None:
        _check_dialogues(loaded, template)
    drop = comparison.config.evaluation.contaminated == "drop"
    benchmarks = all_read(read_benchmarks(comparison.evaluators.values(), source)) if drop else {}
    return screen(loaded, limits, template, benchmarks, evaluated)


def _check_dialogues(dataset: Dataset, template: ChatTemplate) -> None:
    """Tokenize the first dialogues of every split, and the first with a system turn, as they will be trained and asked.

    Raises:
        DataError: the template refuses one, or leaves out words of it; names the example. Otherwise the first stage would.
    """
    first = [example for rows in dataset.splits.values() for example in rows[:CHECKED]]
    for example in {example.prompt.id: example for example in first}.values():  # splits may share rows
        template.prompt_ids(example.prompt)
        for text in dict.fromkeys(text for text in (example.target, *example.ranked) if text is not None):
            template.response_ids(example.prompt, Response(text))
    if (system := _system_turn(dataset)) is not None:
        template.prompt_ids(system.prompt)


def _system_turn(dataset: Dataset) -> Example | None:
    """The first example that begins with a system turn."""
    examples = (example for rows in dataset.splits.values() for example in rows)
    return next((example for example in examples if example.prompt.messages[0].role == "system"), None)


def split_problems(
    comparison: Comparison, counts: ScreeningCounts, usable_counts: Mapping[str, Mapping[str, int]]
) -> list[Problem]:
    """Return what keeps a comparison from being run on the examples that are left, each with the fix.

    Every split that is used needs `FEWEST` examples at least, and as many of what its rows and evaluators ask of them
    (targets, ranked responses); the training split as many as the budget says.

    Args:
        usable_counts: as `Screening.usable`.
    """
    config, problems = comparison.config, []
    trained = [row for row in comparison.rows if row.rounds and row.source is None]
    needs: list[tuple[SplitName, str, frozenset[str]]] = []
    if config.sft is not None:
        needs.append(("sft", "which `sft` trains on", frozenset({"target"})))
    for row in trained:
        asked = frozenset[str]().union(*(round_.required() for round_ in row.rounds))
        needs.append(("train", f"which the row {row.label!r} trains on", asked))
    for label, evaluator in comparison.evaluators.items():
        if evaluator.reads_split:
            needs.append((config.evaluation.split, f"which {label} scores", frozenset(evaluator.required())))
    refused: set[tuple[str, str]] = set()
    for split, use, asked in needs:
        kept = counts.kept.get(split, 0)
        having = {"": kept, **{name: usable_counts.get(split, {}).get(name, 0) for name in _COUNTED if name in asked}}
        for name, count in having.items():
            if count < FEWEST and not {(split, ""), (split, name)} & refused:
                refused.add((split, name))
                problems.append(_too_few(comparison.source, split, use, count, _COUNTED.get(name), counts))
    evaluation, kept = config.evaluation, counts.kept.get(config.evaluation.split, 0)
    if evaluation.most is not None and FEWEST <= kept < evaluation.most:
        has = f"the split {evaluation.split} has {kept} prompts left{_reasons(evaluation.split, counts)}"
        problems.append(Problem("evaluation.most", evaluation.most, f"{has}: lower it to {kept}"))
    kept = counts.kept.get("train", 0)
    most = max(trained, key=lambda row: row.prompts, default=None)
    if most is not None and FEWEST <= kept < most.prompts:
        left = f"the source {comparison.source.name} has {kept} training prompts left{_reasons('train', counts)}"
        # A row's own budget is named by its row: the config's may be small enough.
        place = "" if most.budget == config.budget else f"methods.{most.series}."
        problems.append(Problem(f"{place}budget.prompts", most.budget.prompts, f"{left}: lower it to {kept}"))
    return problems


def row_source_problems(comparison: Comparison, evaluated: Dataset) -> list[Problem]:
    """Return what keeps rows from being trained on sources of their own, once each source's rows are screened.

    Args:
        evaluated: the comparison's dataset.
    """
    problems: list[Problem] = []
    seen: dict[str, Screening | None] = {}
    for row in comparison.rows:
        if row.source is None or not row.rounds:
            continue
        name = repr(row.source)
        if name not in seen:
            read = screened(comparison, row, evaluated)
            seen[name] = read[1] if read else None
        report, place = seen[name], f"methods.{row.series}"
        if report is None:
            continue
        counts, asked = report.counts(), frozenset[str]().union(*(round_.required() for round_ in row.rounds))
        kept = counts.kept.get("train", 0)
        having = {"": kept, **{name: report.usable.get("train", {}).get(name, 0) for name in _COUNTED if name in asked}}
        short = next((name for name, count in having.items() if count < FEWEST), None)
        if short is not None:
            use = f"which the row {row.label!r} trains on"
            few = _too_few(row.source, "train", use, having[short], _COUNTED.get(short), counts)
            problems.append(replace(few, field=f"{place}.{few.field}"))
        elif kept < row.prompts:
            left = f"the source {row.source.name} has {kept} training prompts left{_reasons('train', counts)}"
            problems.append(Problem(f"{place}.budget.prompts", row.budget.prompts, f"{left}: lower it to {kept}"))
    return list({problem.field: problem for problem in problems}.values())


def _too_few(source: Source, split: SplitName, use: str, count: int, lacking: str | None, counts: ScreeningCounts) -> Problem:
    """A split with too few examples, or too few with what is asked of them, at the source's field that decides its size."""
    kept, own = counts.kept.get(split, 0), f"name rows of its own in source.splits.{split}"
    if split == "train" or (split == "sft" and getattr(source, "sft_share", 0) is None):  # the same rows
        ways = {"train": "raise it", "heldout_share": "lower it, or give more rows"}
    else:
        ways = {f"{split}_share": "raise it, or give more different prompts", split: "raise it", "splits": own}
    ways = {name: way for name, way in ways.items() if name in type(source).model_fields}
    others = ", ".join(f"{name} {number:,}" for name, number in counts.kept.items() if name != split)
    has = f"{count} of {kept:,} examples with {lacking}" if lacking else f"{count} example{'s' * (count != 1)}"
    given = getattr(source, "splits", {})
    own_rows = given[split] if isinstance(given, Mapping) and split in given else None
    if lacking:
        field, fix = None, f"give rows with {lacking}"
    elif own_rows is not None:
        field, fix = "splits", f"give {own_rows} more rows, or leave it out of source.splits"
    else:
        field, fix = next(iter(ways), None), ", or ".join(ways.values()) or "give more rows"
    text = (
        f"the split {split!r} of the source {source.name}, {use}, has {has}, and at least {FEWEST} are needed "
        f"({others or 'no other split'}{_reasons(split, counts)}): {fix}"
    )
    return Problem(f"source.{field}", getattr(source, field), text) if field else Problem("source", source.name, text)


def _reasons(split: str, counts: ScreeningCounts) -> str:
    """Return the reasons why rows of a split were left out, with their counts."""
    lost = {f"{reason} (dropped by the source)": count for reason, count in counts.dropped.items()}
    lost |= {f"over {name}": count for name, count in counts.too_long.get(split, {}).items()}
    evaluated = sum(counts.contaminated.get(split, {}).values())
    lost |= {"evaluated elsewhere": evaluated}
    listed = ", ".join(f"{count:,} {reason}" for reason, count in lost.items() if count)
    return f"; left out: {listed}" if listed else ""


def fewer_than_asked(comparison: Comparison, counts: ScreeningCounts) -> list[str]:
    """Return a warning where fewer prompts are evaluated than the config asks for."""
    evaluation = comparison.config.evaluation
    kept = counts.kept.get(evaluation.split, 0)
    if (
        evaluation.prompts is None
        or kept >= evaluation.prompts
        or not any(item.reads_split for item in comparison.evaluators.values())
    ):
        return []
    return [
        f"evaluation.prompts = {evaluation.prompts}: the split {evaluation.split} has {kept}, and all of them are evaluated"
    ]


def screen(
    dataset: Dataset,
    limits: Limits | None = None,
    template: ChatTemplate | None = None,
    benchmarks: Mapping[str, Benchmark] | None = None,
    evaluated: Dataset | None = None,
) -> tuple[Dataset, Screening]:
    """Return the rows that are used, and what became of the others.

    Args:
        limits: in tokens of `template`; none if None.
        benchmarks: by evaluator, questions by which training prompts are left out.
        evaluated: for a row's own source, the comparison's dataset, on which the row is evaluated.
    """
    report = Screening(dropped=dict(dataset.dropped))
    splits = dict(dataset.splits)
    if limits is not None and template is not None:
        for split, examples in splits.items():
            splits[split] = _within(examples, limits, template, report.too_long.setdefault(split, {}))
    for split, names in _RULES:
        if split in splits:
            own = [(name, example) for name in names for example in splits.get(name, ())]
            common = [(name, example) for name in names for example in (evaluated[name] if evaluated else ())]
            others = _Evaluated([*common, *own])
            splits[split] = others.left_by(splits[split], split, report)
    if benchmarks:
        used: tuple[SplitName, ...] = ("train", "sft")
        trained = {split: splits[split] for split in used if split in splits}
        report.benchmarks = overlap(benchmarks, trained)
        for split, examples in trained.items():
            held = [any(benchmark.held_by(example.prompt)[1] for benchmark in benchmarks.values()) for example in examples]
            splits[split] = tuple(example for example, out in zip(examples, held, strict=True) if not out)
            report.contaminated.setdefault(split, {})[BENCHMARK] = sum(held)
    report.kept = {split: len(examples) for split, examples in splits.items()}
    report.usable = {split: usable(examples) for split, examples in splits.items()}
    return Dataset(splits, dataset.dropped), report


def usable(examples: Sequence[Example]) -> dict[str, int]:
    """Count the examples with a target, and those with two ranked responses, as rows and evaluators need them."""
    return {
        "target": sum(bool(example.target) for example in examples),
        "ranked": sum(len(example.ranked) > 1 for example in examples),
    }


def normalised(prompt: Prompt) -> _Turns:
    """Return what is equal for two prompts that differ in case, spacing or sentence punctuation alone; each turn apart."""
    return tuple((message.role, fold(message.content)) for message in prompt.messages)


class _Evaluated:
    """The evaluated examples, by what training prompts must not be."""

    def __init__(self, examples: Sequence[tuple[SplitName, Example]]) -> None:
        self.exact: dict[Any, tuple[SplitName, Example]] = {}
        self.alike: dict[_Turns, tuple[SplitName, Example]] = {}
        self.answered: dict[_Turns, tuple[SplitName, Example]] = {}  # prompt and answer: what no training prompt begins with
        self.history: dict[_Turns, tuple[SplitName, Example]] = {}  # a prompt up to each answer in it
        for named in examples:
            turns = normalised(named[1].prompt)
            self.exact.setdefault(named[1].prompt.messages, named)
            self.alike.setdefault(turns, named)
            for answered in _answered(turns, named[1]):
                self.answered.setdefault(answered, named)
            for earlier in _history(turns):
                self.history.setdefault(earlier, named)

    def left_by(self, examples: Sequence[Example], split: SplitName, report: Screening) -> tuple[Example, ...]:
        """Return the examples that nothing here rules out; count and show the others in the report."""
        counts = report.contaminated.setdefault(split, {})
        counts.update({EXACT: 0, NORMALISED: 0, CONTINUED: 0})
        kept = []
        for example in examples:
            match = self._match(example)
            if match is None:
                kept.append(example)
                continue
            reason, (other_split, other) = match
            counts[reason] += 1
            if counts[reason] <= SHOWN_PAIRS:
                texts = excerpts(example.prompt, other.prompt)
                pair = {"split": split, "id": example.prompt.id, "text": texts[0]}
                other_pair = {"evaluated_in": other_split, "evaluated_id": other.prompt.id, "evaluated_text": texts[1]}
                report.pairs.append({"reason": reason, **pair, **other_pair})
        return tuple(kept)

    def _match(self, example: Example) -> tuple[str, tuple[SplitName, Example]] | None:
        if (same := self.exact.get(example.prompt.messages)) is not None:
            return EXACT, same
        turns = normalised(example.prompt)
        if (alike := self.alike.get(turns)) is not None:
            return NORMALISED, alike
        # HH-RLHF and its like hold a dialogue several times, cut at different turns.
        cuts = [self.answered.get(earlier) for earlier in _history(turns)]
        if self.history:
            cuts += [self.history.get(answered) for answered in _answered(turns, example)]
        cut = next((named for named in cuts if named is not None), None)
        return None if cut is None else (CONTINUED, cut)


def _answered(turns: _Turns, example: Example) -> Iterator[_Turns]:
    """The dialogue with each of its answers."""
    for text in dict.fromkeys((example.target, *example.ranked)):
        if text is not None:
            yield (*turns, ("assistant", fold(text)))


def _history(turns: _Turns) -> Iterator[_Turns]:
    """The beginnings of a dialogue that end with an answer."""
    return (turns[: place + 1] for place, (role, _) in enumerate(turns) if role == "assistant")


def excerpts(one: Prompt, other: Prompt) -> tuple[str, str]:
    """Return the parts of two prompts that show how they differ."""
    texts = ["\n".join(message.content for message in prompt.messages) for prompt in (one, other)]
    first = next((place for place, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
    start = max(0, first - EXCERPT // 2) if max(map(len, texts)) > EXCERPT else 0
    cut = [text[start : start + EXCERPT] for text in texts]
    shown = [
        ("…" if start else "") + part + ("…" if start + EXCERPT < len(text) else "")
        for text, part in zip(texts, cut, strict=True)
    ]
    return shown[0], shown[1]


def _within(examples: Sequence[Example], limits: Limits, template: ChatTemplate, counts: dict[str, int]) -> tuple[Example, ...]:
    kept = []
    for example in examples:
        reason = _over(example, limits, template)
        if reason is None:
            kept.append(example)
        else:
            counts[reason] = counts.get(reason, 0) + 1
    return tuple(kept)


def _over(example: Example, limits: Limits, template: ChatTemplate) -> str | None:
    """The first limit that an example is over; its longest response counts."""
    prompt = len(template.prompt_ids(example.prompt))
    texts = {text for text in (example.target, *example.ranked) if text is not None}
    response = max((len(template.response_ids(example.prompt, Response(text))) for text in texts), default=0)
    sizes = {"max_prompt_tokens": prompt, "max_response_tokens": response, "max_tokens": prompt + response}
    for name, size in sizes.items():
        most = getattr(limits, name)
        if most is not None and size > most:
            return name
    return None
