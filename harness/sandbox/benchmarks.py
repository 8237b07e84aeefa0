"""Two lm-eval tasks that ask held-out questions: does alignment cost ability?

Both mark what a policy knows and leave out how it chooses to say it, which is the gold reward's business.
`sandbox_choice` compares the likelihoods of the right list and three wrong ones; `sandbox_generation` takes the list out of a
greedy answer, so neither a courtesy nor another list format costs anything.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import yaml

from harness.sandbox.annotators import layout
from harness.sandbox.language import (
    BULLET,
    CATEGORIES,
    CLOSERS,
    LEADS,
    OPENERS,
    OPPOSITES,
    RECIPES,
    REFUSALS,
    RUDE,
    WAFFLE,
)
from harness.sandbox.tasks import Task, draw_task

CHOICES = 4
SEPARATOR = rf"(?:\d+\)|{BULLET}|,) "
WORDS = (*(word for words in CATEGORIES.values() for word in words), *OPPOSITES)
STEPS = tuple(dict.fromkeys(step for steps in RECIPES.values() for step in steps))
# An item that begins a phrase, as in "happy to help !", is none.
PHRASES = [text for text in (*OPENERS, *CLOSERS, *LEADS, *WAFFLE, *RUDE, *REFUSALS) if text.split()[0] in WORDS]
ITEM = rf"\b(?!{'|'.join(PHRASES)})(?:\d+(?![\d)])|{'|'.join((*STEPS, *WORDS))})\b"
# At least two items side by side, as every question asks for.
LIST = rf"((?:{SEPARATOR})?{ITEM}(?: (?:{SEPARATOR})?{ITEM})+)"


def write_benchmarks(folder: Path, seed: int = 0, documents: int = 100) -> None:
    """Write the tasks' YAML and JSONL files under `folder`; only the data files' absolute paths depend on where it is.

    Args:
        folder: created; files in it overwritten.
        seed: decides the questions and the wrong choices.
        documents: questions per task, all different.
    """
    folder.mkdir(parents=True, exist_ok=True)
    choice, generation = _documents("choice", seed, _choice_document), _documents("generation", seed, _generation_document)
    _write(folder, "sandbox_choice", _choice_config(), islice(choice, documents))
    _write(folder, "sandbox_generation", _generation_config(), islice(generation, documents))


def _write(folder: Path, name: str, config: Mapping[str, object], documents: Iterator[Mapping[str, object]]) -> None:
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data.resolve())}},
        "test_split": "test",
        "num_fewshot": 0,
        "doc_to_text": "{{question}}",
        **config,
        "metadata": {"version": 1},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False, width=2**16), encoding="utf-8")


def _documents(
    stream: str, seed: int, document: Callable[[Task, random.Random], Mapping[str, object] | None]
) -> Iterator[Mapping[str, object]]:
    """Documents on different held-out questions, without end; None leaves a question out."""
    rng, seen = random.Random(f"sandbox benchmark {stream} {seed}"), set[str]()
    while True:
        task = draw_task(rng)
        if task.split != "heldout" or task.identity in seen:
            continue
        seen.add(task.identity)
        fields = document(task, rng)
        if fields is not None:
            yield {"question": task.question, "family": task.family, **fields}


def _choice_config() -> Mapping[str, object]:
    return {
        "output_type": "multiple_choice",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def _choice_document(task: Task, rng: random.Random) -> Mapping[str, object]:
    right = list(task.expected) if task.ordered else rng.sample(task.expected, task.count)
    lists = [right]
    while len(lists) < CHOICES:
        wrong = _slip(task, right, rng)
        if wrong not in lists:
            lists.append(wrong)
    rng.shuffle(lists)
    return {"choices": [layout(items, task.format) for items in lists], "answer": lists.index(right)}


def _slip(task: Task, right: Sequence[str], rng: random.Random) -> list[str]:
    """`right` with one mistake: two items exchanged where the order counts, or one item replaced by a wrong one of as many
    words that the list does not have, so that neither length nor repetition gives the mistake away.
    """
    items = list(right)
    position = rng.randrange(len(items))
    others = [item for item in task.distractors if item not in task.expected and item not in items]
    alike = [item for item in others if len(item.split()) == len(items[position].split())]
    if task.ordered and (not others or rng.random() < 0.5):
        other = rng.choice([index for index in range(len(items)) if index != position])
        items[position], items[other] = items[other], items[position]
    else:
        items[position] = rng.choice(alike or others)
    return items


def _generation_config() -> Mapping[str, object]:
    take_list = [{"function": "regex", "regex_pattern": LIST}, {"function": "take_first"}]
    return {
        "output_type": "generate_until",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["<end>"], "do_sample": False, "temperature": 0.0, "max_gen_toks": 64},
        "filter_list": [{"name": "list", "filter": take_list}],
        "metric_list": [
            {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "regexes_to_ignore": [SEPARATOR]}
        ],
    }


def _generation_document(task: Task, rng: random.Random) -> Mapping[str, object] | None:
    """Ordered families alone: an exact match needs a single right list."""
    return {"answer": layout(list(task.expected), task.format)} if task.ordered else None
