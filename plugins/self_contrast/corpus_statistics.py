"""Self-Contrast's statistics of a corpus: samples, tokens, turns, and the writers of the first rank (Table 3, Figure 7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from harness import (
    AnalysisContext,
    Axes,
    Cell,
    CheckedClaim,
    ComparisonResults,
    Example,
    Figure,
    Line,
    Panel,
    Report,
    Values,
    contrast,
    interval,
)

SHOWN = 8  # writers in the figure; the others are one place
UNKNOWN = "not said"


def run(context: AnalysisContext) -> Report:
    """Read the source as a comparison would, screening included, and count."""
    label = "targets"
    raw = context.config("data", [context.row("sft_continued", label)], sft=None)
    results = context.build(raw)
    model = results.start(label, results.seeds[0])
    splits = _splits(results)
    counted = {name: _counted(results, model, examples) for name, examples in splits.items()}
    writers = {name: Counter(str(example.metadata.get("writer", UNKNOWN)) for example in rows) for name, rows in splits.items()}
    rows: list[Sequence[Cell]] = []
    for name, examples in splits.items():
        (first, often) = writers[name].most_common(1)[0]
        measures = [interval(values) for values in counted[name].values()]
        rows.append([name, len(examples), *measures, first, often / len(examples)])
    largest = max(splits, key=lambda name: len(splits[name]))
    return Report(
        ["split", "samples", "prompt tokens", "target tokens", "turns", "most frequent writer", "its share"],
        rows,
        _figure(writers[largest]),
        _findings(counted[largest]),
        [
            "Rows as a run trains on them: after the source's own rules, the config's limits, and without prompts that are "
            f"evaluated. Figure and findings are of the split {largest!r}, the largest.",
            "Tokens by the starting model's tokenizer; a prompt's with what its chat template writes around the turns, up to "
            "the words that open the answer; a target's with the token that ends it. Turns: the user's.",
            f"The writer is what the source notes as `writer`: Nectar's rows name the model of each answer; else {UNKNOWN!r}.",
        ],
        {"data": raw},
        {"prompts": len(splits[largest])},
    )


def _splits(results: ComparisonResults) -> dict[str, Sequence[Example]]:
    """Return the splits with targets; `sft` stands for `train` too where both are the same rows."""
    rows = {name: [e for e in results.dataset[name] if e.target is not None] for name in ("sft", "train", "heldout")}
    if [example.prompt.id for example in rows["sft"]] == [example.prompt.id for example in rows["train"]]:
        del rows["train"]
    return {name: examples for name, examples in rows.items() if examples}


def _counted(results: ComparisonResults, model: str, examples: Sequence[Example]) -> dict[str, Values]:
    """Return prompt tokens, target tokens and user turns, each as values of the examples."""
    lengths = results.lengths(model, examples)
    names = [example.prompt.id for example in examples]
    turns = [sum(message.role == "user" for message in example.prompt.messages) for example in examples]
    return {
        "prompt": _values(names, [prompt for prompt, _ in lengths]),
        "target": _values(names, [target for _, target in lengths]),
        "turns": _values(names, turns),
    }


def _values(names: Sequence[str], numbers: Sequence[int]) -> Values:
    return Values.from_numbers({0: {name: float(number) for name, number in zip(names, numbers, strict=True)}})


def _findings(counted: Mapping[str, Values]) -> list[CheckedClaim]:
    turns = counted["turns"]
    one = Values.from_numbers({0: dict.fromkeys(turns.examples, 1.0)})
    return [
        CheckedClaim.above_zero(
            "Targets are longer than prompts (256 tokens against 146 in Nectar).",
            "Table 3",
            "target tokens less prompt tokens",
            contrast([counted["target"], counted["prompt"]], [1, -1]),
        ),
        CheckedClaim.above_zero(
            "Dialogues have more than one turn on average (1.54 in Nectar).",
            "Table 3",
            "turns less 1",
            contrast([turns, one], [1, -1]),
        ),
    ]


def _figure(writers: Counter[str]) -> Figure:
    shown = writers.most_common(SHOWN)
    rest = writers.total() - sum(count for _, count in shown)
    places = [(name, count) for name, count in shown] + ([("others", rest)] if rest else [])
    axes = Axes("writer of the target", "share of samples", [name for name, _ in places])
    line = Line("targets", [count / writers.total() for _, count in places])
    return Figure("Who wrote the targets", [Panel(axes, [line])])
