"""Training prompts held against the questions that evaluators bring: MT-Bench's, AlpacaEval's, those of lm-eval's tasks.

A training prompt holds a question if one of its user turns says the same (case, spacing and sentence punctuation apart), or
has the question's words in a row, from `LEAST_WORDS` on. They are counted by evaluator. `evaluation.contaminated: drop` leaves
them out of training as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.api.interfaces import Evaluator, Source
from harness.api.texts import fold
from harness.api.types import Dataset, Example, Prompt, SplitName
from harness.config import Comparison, describe
from harness.errors import DataError, HarnessError
from harness.extras import missing_extra
from harness.run.records import BenchmarkFacts, BenchmarkOverlap, SplitOverlap
from harness.run.stages.context import read_dataset
from harness.store import Store, key_of

VERSION = 1  # as `harness.run.graph.VERSIONS`, of the stored counts
LEAST_WORDS = 8  # of a question that is looked for inside a longer prompt: fewer stand in many prompts by chance


class Benchmark:
    """An evaluator's questions, by their folded words."""

    def __init__(self, prompts: Iterable[Prompt]) -> None:
        self.ids: set[str] = set()
        self._whole: dict[str, str] = {}
        self._by_beginning: dict[tuple[str, ...], list[tuple[tuple[str, ...], str]]] = {}
        for prompt in prompts:
            self.ids.add(prompt.id)
            text = fold(next(message.content for message in prompt.messages if message.role == "user"))
            if text in self._whole:
                continue
            self._whole[text] = prompt.id
            words = tuple(text.split())
            if len(words) >= LEAST_WORDS:
                self._by_beginning.setdefault(words[:LEAST_WORDS], []).append((words, prompt.id))

    def held_by(self, prompt: Prompt) -> tuple[bool, frozenset[str]]:
        """Return whether a turn is a question word for word, and the ids of all questions that the prompt holds."""
        turns = [fold(message.content) for message in prompt.messages if message.role == "user"]
        same = {self._whole[turn] for turn in turns if turn in self._whole}
        held = set(same)
        for turn in turns if self._by_beginning else ():
            words = tuple(turn.split())
            for start in range(len(words) - LEAST_WORDS + 1):
                for question, name in self._by_beginning.get(words[start : start + LEAST_WORDS], ()):
                    if words[start : start + len(question)] == question:
                        held.add(name)
        return bool(same), frozenset(held)


def read_benchmarks(evaluators: Iterable[Evaluator], source: Source) -> dict[str, Benchmark | str]:
    """Return the questions of every evaluator that brings some; for one whose files are not here, the reason."""
    benchmarks: dict[str, Benchmark | str] = {}
    for evaluator in (item for item in evaluators if item.brings_questions()):
        with ExitStack() as stack:
            shipped = None
            if "benchmarks" in evaluator.needs and "benchmarks" in source.offers():
                shipped = Path(stack.enter_context(TemporaryDirectory()))
                source.write_benchmarks(shipped)
            try:
                benchmarks[evaluator.name] = Benchmark(evaluator.benchmark_prompts(shipped))
            except (HarnessError, ImportError) as error:
                benchmarks[evaluator.name] = str(missing_extra(error) or error)
    return benchmarks


def all_read(benchmarks: Mapping[str, Benchmark | str]) -> dict[str, Benchmark]:
    """Return the benchmarks, all of which must be readable because training prompts are dropped by them.

    Raises:
        DataError: names the first whose questions could not be read.
    """
    for name, benchmark in benchmarks.items():
        if isinstance(benchmark, str):
            raise DataError(
                f"evaluation.contaminated = 'drop': the questions of {name} cannot be read ({benchmark}): put its files in "
                "place, or write count"
            )
    return {name: benchmark for name, benchmark in benchmarks.items() if isinstance(benchmark, Benchmark)}


def overlap(
    benchmarks: Mapping[str, Benchmark | str], splits: Mapping[SplitName, Sequence[Example]]
) -> dict[str, BenchmarkOverlap]:
    """Count by evaluator and split the training prompts that hold a question."""
    counts: dict[str, BenchmarkOverlap] = {}
    for name, benchmark in benchmarks.items():
        if isinstance(benchmark, str):
            counts[name] = BenchmarkOverlap(unknown=benchmark)
        else:
            found = {split: _split_overlap(benchmark, examples) for split, examples in splits.items()}
            counts[name] = BenchmarkOverlap(questions=len(benchmark.ids), splits=found)
    return counts


def _split_overlap(benchmark: Benchmark, examples: Sequence[Example]) -> SplitOverlap:
    matches = [match for example in examples if (match := benchmark.held_by(example.prompt))[1]]
    return SplitOverlap(
        of=len(examples),
        prompts=len(matches),
        same=sum(same for same, _ in matches),
        questions=len(frozenset[str]().union(*(ids for _, ids in matches))),
    )


def trained_on(comparison: Comparison, dataset: Dataset) -> dict[SplitName, Sequence[Example]]:
    """Return the examples that training uses: of `train` as many as the budget has."""
    config, splits = comparison.config, dict[SplitName, Sequence[Example]]()
    if any(row.rounds and row.source is None for row in comparison.rows):
        splits["train"] = dataset["train"][: _most_prompts(comparison)]
    if config.model.scratch is not None:
        splits["train"] = dataset["train"]  # its text makes the starting model
    if config.sft is not None or config.model.scratch is not None:
        splits["sft"] = dataset["sft"]
    return splits


def _most_prompts(comparison: Comparison) -> int:
    """Return how many training prompts the row with the largest budget draws on; the config's budget where nothing trains."""
    return max(
        (row.prompts for row in comparison.rows if row.rounds and row.source is None), default=comparison.config.budget.prompts
    )


def stored_overlap(comparison: Comparison, store: Store, source: str) -> dict[str, BenchmarkOverlap]:
    """Count the training prompts with an evaluator's questions, through the store: a second run reads no benchmark again.

    Args:
        source: key of the source's artifact.
    """
    bringing = [evaluator for evaluator in comparison.evaluators.values() if evaluator.brings_questions()]
    if not bringing:
        return {}
    config = comparison.config
    payload = {
        "evaluators": [describe(evaluator) for evaluator in bringing],
        "trained": [any(row.rounds and row.source is None for row in comparison.rows), _most_prompts(comparison)],
        "started": [config.sft is not None, config.model.scratch is not None],
    }
    key = key_of("benchmarks", VERSION, payload, {"source": source})
    with store.claim(key):
        if store.holds(key):
            return BenchmarkFacts.of(store.open(key)).benchmarks
        splits = trained_on(comparison, read_dataset(store.open(source)))
        counts = overlap(read_benchmarks(bringing, comparison.source), splits)
        # Questions that cannot be read now may be readable in the next run, so such counts are not kept.
        if all(count.unknown is None for count in counts.values()):
            with store.draft("benchmarks", key) as draft:
                draft.facts |= BenchmarkFacts(benchmarks=counts).as_json()
    return counts


def overlap_warnings(counts: Mapping[str, BenchmarkOverlap], dropped: bool = False) -> list[str]:
    """Return warnings for readers of an evaluator's scores whose questions are in the training data.

    Args:
        dropped: whether those training prompts were left out.
    """
    warnings = []
    for name, count in counts.items():
        if count.unknown is not None:
            warnings.append(f"{name}: training prompts were not held against its questions: {count.unknown}")
            continue
        hits = [
            f"{split} {held.prompts:,} of {held.of:,} ({held.same:,} word for word)"
            for split, held in count.splits.items()
            if held.prompts
        ]
        most = max((held.questions for held in count.splits.values()), default=0)
        if hits:
            text = f"{name}: training prompts hold {most:,} of its {count.questions:,} questions: {', '.join(hits)}"
            end = "they were left out" if dropped else "its scores may show what was learnt by heart"
            warnings.append(f"{text}; {end}")
    return warnings
