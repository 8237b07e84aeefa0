"""Answers to look at: the first evaluated prompts with what each row said, and what judges said of that."""

from __future__ import annotations

import json

from harness.run.graph import Graph, RowPlan
from harness.board.build import ExampleRow
from harness.run.results import Run
from harness.run.stages.context import read_answers, read_dataset
from harness.run.stages.evaluate import FILES
from harness.store import Store
from harness.api.types import Example

SHOWN_EXAMPLES = 40
JUDGMENTS = "judgments.jsonl"  # lines of example, sample, verdict and words, left by an evaluator in its files


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
