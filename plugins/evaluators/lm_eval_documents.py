"""Documents of lm-eval's tasks as `--log_samples` wrote them: their values, and whether those make lm-eval's own number."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isclose, isfinite
from pathlib import Path
from typing import Any

from harness import Score, read_lines
from harness_plugins.evaluators.shapes import Document, checked, parsed

NO_FILTER = "none"
RELATIVE, ABSOLUTE = 1e-6, 1e-9  # between a mean and lm-eval's number that is the same
SHOWN_DIGITS = 16  # of a hash on boards


@dataclass
class Documents:
    """What was kept of one task. `values` maps `metric,filter` to the documents' values, `hashes` documents to theirs."""

    task: str
    values: dict[str, list[tuple[str, float]]] = field(default_factory=dict)
    hashes: dict[str, str | None] = field(default_factory=dict)

    @classmethod
    def read(cls, task: str, path: Path) -> Documents:
        """Raises DataError naming file and line."""
        found = cls(task)
        for number, row in enumerate(_lines(path), start=1):
            fix = "give what --log_samples wrote"
            checked(Document, row, f"{path}:{number} is no document as lm-eval writes it: it", fix)
            example = f"{task}:{row['doc_id']}"
            found.hashes[example] = row.get("doc_hash")
            for metric in dict.fromkeys(row["metrics"]):
                if isinstance(row.get(metric), int | float):
                    found.values.setdefault(f"{metric},{row['filter']}", []).append((example, float(row[metric])))
        return found


@dataclass
class Part:
    """A task or a group on a board.

    Attributes:
        scores: of metrics whose mean over the documents is lm-eval's number, per document.
        figures: lm-eval's own numbers of the other metrics.
        unlike: those of the others that documents have values of, or that have none per document: what a reader is told.
        missing: tasks without all their documents.
        documents: their number and hash; None where lm-eval left no hashes.
    """

    name: str
    scores: list[Score] = field(default_factory=list)
    figures: list[Score] = field(default_factory=list)
    unlike: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    documents: str | None = None


def part(name: str, numbers: Mapping[str, Mapping[str, float]], kept: Iterable[Documents], missing: Iterable[str]) -> Part:
    """What can be compared document by document, and what stands as lm-eval's number alone.

    Args:
        numbers: lm-eval's own, of the task or group and of all its tasks.
        kept: documents of all its tasks; of none where some are missing.
    """
    made, tasks, own = Part(name, missing=list(missing)), list(kept), numbers.get(name, {})
    for key in dict.fromkeys([*(key for task in tasks for key in task.values), *own]):
        entry = entry_name(name, key)
        by_task = {task.task: task.values[key] for task in tasks if key in task.values}
        pooled = [pair for values in by_task.values() for pair in values]
        if pooled and all(_is_mean(values, numbers.get(of, {}).get(key)) for of, values in {**by_task, name: pooled}.items()):
            made.scores += [Score(example, entry, value) for example, value in pooled]
            continue
        made.figures += [Score(name, entry, own[key])] if key in own else []
        if tasks:
            mean = f"mean over documents {_mean(pooled):.4g}" if pooled else "no values per document"
            made.unlike.append(f"{entry} {f'{own[key]:.4g}' if key in own else 'left out, having no number'} ({mean})")
    hashes = {example: digest for task in tasks for example, digest in task.hashes.items()}
    made.documents = documents_hash(hashes) if made.scores else None
    return made


def entry_name(name: str, key: str) -> str:
    """`metric,filter` of a task as the evaluator `lm_eval` reports it."""
    metric, _, chosen = key.partition(",")
    return f"{name}/{metric}" if chosen == NO_FILTER else f"{name}/{key}"


def own_numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """lm-eval's numbers of a task, by `metric,filter`; not their errors."""
    return {
        key: float(value)
        for key, value in row.items()
        if isinstance(value, int | float) and key.partition(",")[2] and not key.partition(",")[0].endswith("_stderr")
    }


def documents_hash(hashes: Mapping[str, str | None]) -> str | None:
    """How many documents and a hash of them by their places; the same for the same documents in the same order."""
    if not hashes or not all(hashes.values()):
        return None
    whole = hashlib.sha256()
    for example, digest in sorted(hashes.items()):
        whole.update(f"{example.rpartition(':')[2]} {digest}\n".encode())
    return f"{len(hashes)} (sha256 {whole.hexdigest()[:SHOWN_DIGITS]})"


def _is_mean(values: Iterable[tuple[str, float]], number: float | None) -> bool:
    """Whether lm-eval's number is the mean of the documents that have one; true where it gives none that is finite."""
    if number is None or not isfinite(number):
        return True
    return isclose(_mean(values), number, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def _mean(values: Iterable[tuple[str, float]]) -> float:
    finite = [value for _, value in values if isfinite(value)]
    return sum(finite) / len(finite) if finite else float("nan")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in read_lines(path):
        yield parsed(line, f"{path}:{number}", "JSON")
