"""Documents of lm-eval's tasks as `--log_samples` wrote them: their values, and whether those make lm-eval's own number."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isclose, isfinite
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from harness import Score, read_lines, read_text
from harness_plugins.evaluators.validation import LARGEST, ForeignRow, Text, checked, named, parsed, whole_text

NO_FILTER = "none"
RELATIVE, ABSOLUTE = 1e-6, 1e-9  # between a mean and lm-eval's number that is the same
NO_METRICS = ("alias", "name", "sample_len", "sample_count", "samples", "tab", " ")  # of a task's row of results
SHOWN_DIGITS = 16  # of a hash on boards
NAMES_FILTERS = "0.4.7"  # the first release of lm-eval whose samples name their filter


def _identifier(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("it should be a whole number or a text")
    return whole_text(value) if isinstance(value, str) else value


class Document(ForeignRow):
    """One line of lm-eval's samples_<task>_<date>.jsonl. Releases before 0.4.7 wrote neither `filter` nor `metrics`."""

    doc_id: Annotated[Any, AfterValidator(_identifier)]
    filter: Text | None = None
    metrics: list[Text] | None = None
    doc_hash: Text | None = None


@dataclass
class Documents:
    """The rows and numbers that were kept of one task.

    Attributes:
        values: maps `metric,filter` to the documents' finite values.
        holes: maps `metric,filter` to the values that are no finite numbers, each with file and line.
        hashes: maps documents to theirs.
        unnamed: says why rows that name no filter could not be told apart; '' where they could.
    """

    task: str
    values: dict[str, list[tuple[str, float]]] = field(default_factory=dict)
    holes: dict[str, list[str]] = field(default_factory=dict)
    hashes: dict[str, str | None] = field(default_factory=dict)
    unnamed: str = ""

    @classmethod
    def read(cls, task: str, path: Path, keys: Iterable[str]) -> Documents:
        """Read a task's samples.

        Releases before 0.4.7 name neither filter nor metrics. They write all documents of one filter, then all of the next, in
        the order in which the results have the filters: a document's second row is that of the second filter. Whether that
        holds for a file is seen later, where the documents' mean must be lm-eval's number.

        Args:
            keys: the task's `metric,filter` in the results, in their order.

        Raises:
            DataError: names file and line.
        """
        documents, seen = cls(task), Counter[str]()
        metrics: dict[str, list[str]] = {}
        for key in keys:
            metric, _, chosen = key.partition(",")
            metrics.setdefault(chosen, []).append(metric)
        filters = list(metrics)
        for where, row in _entries(path):
            checked(Document, row, f"{where} is no document as lm-eval writes it: it", "give what --log_samples wrote")
            example, chosen = f"{task}:{row['doc_id']}", row.get("filter")
            documents.hashes[example] = row.get("doc_hash")
            if chosen is None:
                seen[example] += 1
                chosen = filters[min(seen[example], len(filters)) - 1] if filters else NO_FILTER
            for metric in dict.fromkeys(row["metrics"] if row.get("metrics") is not None else metrics.get(chosen, ())):
                value = _value(row.get(metric))
                if value is not None and usable(value):
                    documents.values.setdefault(f"{metric},{chosen}", []).append((example, value))
                elif value is not None:
                    documents.holes.setdefault(f"{metric},{chosen}", []).append(f"{where}: {metric} = {named(value)}")
        odd = next(((example, count) for example, count in seen.items() if count != max(len(filters), 1)), None)
        if odd is not None:
            rows, needed = (
                f"{odd[1]} row{'s' if odd[1] > 1 else ''}",
                f"{len(filters)} filter{'s' if len(filters) != 1 else ''}",
            )
            documents.unnamed = f"{task} ({rows} of document {odd[0].rpartition(':')[2]} for {needed})"
        return documents


@dataclass
class TaskResult:
    """A task or a group on a board.

    Attributes:
        scores: of metrics whose mean over the documents is lm-eval's number, per document.
        figures: lm-eval's own numbers of the other metrics.
        unlike: those of the others that documents have values of, or that have none per document: what a reader is told.
        ungiven: metrics that documents have values of and that lm-eval gives no number of.
        infinite: metrics whose number in lm-eval's file is no finite one.
        holes: metrics that some documents have no finite value of.
        missing: tasks without all their documents.
        unnamed: tasks whose documents name no filter and cannot be told apart.
        documents: their number and hash; None where lm-eval left no hashes.
    """

    name: str
    scores: list[Score] = field(default_factory=list)
    figures: list[Score] = field(default_factory=list)
    unlike: list[str] = field(default_factory=list)
    ungiven: list[str] = field(default_factory=list)
    infinite: list[str] = field(default_factory=list)
    holes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    documents: str | None = None


def task_result(
    name: str, numbers: Mapping[str, Mapping[str, float]], kept: Iterable[Documents], missing: Iterable[str]
) -> TaskResult:
    """Sort a task's or a group's metrics: those that can be compared document by document, and lm-eval's numbers alone.

    Args:
        numbers: lm-eval's own, of the task or group and of all its tasks.
        kept: documents of all its tasks; of none where some are missing.
    """
    result, tasks, own = TaskResult(name, missing=list(missing)), list(kept), numbers.get(name, {})
    for key in dict.fromkeys([*(key for task in tasks for key in task.values), *own]):
        entry = entry_name(name, key)
        if key not in own:
            result.ungiven.append(entry)  # a mean over documents would be a number that lm-eval does not give
            continue
        if not usable(own[key]):
            result.infinite.append(f"{entry} = {named(own[key])}")
            continue
        by_task = {task.task: task.values[key] for task in tasks if key in task.values}
        pooled = [pair for values in by_task.values() for pair in values]
        if pooled and all(_is_mean(values, numbers.get(of, {}).get(key)) for of, values in {**by_task, name: pooled}.items()):
            result.scores += [Score(example, entry, value) for example, value in pooled]
            holes = [place for task in tasks for place in task.holes.get(key, ())]
            result.holes += [f"{entry} ({len(holes)} of {len(holes) + len(pooled)}; the first is {holes[0]})"] if holes else []
            continue
        result.figures.append(Score(name, entry, own[key]))
        if tasks:
            mean = f"mean over documents {_mean(pooled):.4g}" if pooled else "no values per document"
            result.unlike.append(f"{entry} {own[key]:.4g} ({mean})")
    hashes = {example: digest for task in tasks for example, digest in task.hashes.items()}
    result.documents = documents_hash(hashes) if result.scores else None
    return result


def entry_name(name: str, key: str) -> str:
    """`metric,filter` of a task as the evaluator `lm_eval` reports it."""
    metric, _, chosen = key.partition(",")
    return f"{name}/{metric}" if chosen == NO_FILTER else f"{name}/{key}"


def own_numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """lm-eval's numbers of a task, by `metric,filter`, NaN and infinite ones too; not their errors, nor placeholders.

    `bypass` is what lm-eval writes with --predict_only: 999 for every task.
    """
    numbers = {key: _value(value) for key, value in row.items() if not isinstance(value, bool)}
    return {
        key: value
        for key, value in numbers.items()
        if value is not None and key.partition(",")[2] and _is_metric(key.partition(",")[0])
    }


def with_filters(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Results with the keys that lm-eval writes since 0.4: `acc,none` for an `acc` of releases before, without filters."""
    if any("," in key for row in rows.values() for key in row):
        return {name: dict(row) for name, row in rows.items()}
    return {
        name: {key if key in NO_METRICS else f"{key},{NO_FILTER}": value for key, value in row.items()}
        for name, row in rows.items()
    }


def usable(value: float) -> bool:
    """Return whether a number can be shown and computed with."""
    return isfinite(value) and abs(value) <= LARGEST


def _is_metric(name: str) -> bool:
    return name != "bypass" and not name.endswith("_stderr")


def _value(raw: Any) -> float | None:
    """A number; a text that is one too, since older releases wrote numpy's 32-bit floats as texts."""
    if isinstance(raw, int | float):
        return float(raw)
    try:
        return float(raw) if isinstance(raw, str) else None
    except ValueError:
        return None


def documents_hash(hashes: Mapping[str, str | None]) -> str | None:
    """Return the number of documents and a hash of them in order; None if lm-eval left no hashes."""
    if not hashes or not all(hashes.values()):
        return None
    whole = hashlib.sha256()
    for example, digest in sorted(hashes.items()):
        whole.update(f"{example.rpartition(':')[2]} {digest}\n".encode())
    return f"{len(hashes)} (sha256 {whole.hexdigest()[:SHOWN_DIGITS]})"


def _is_mean(values: Iterable[tuple[str, float]], number: float | None) -> bool:
    """Return whether lm-eval's number is the mean over the documents that have a value; true if it gives no finite number."""
    if number is None or not isfinite(number):
        return True
    return isclose(_mean(values), number, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def _mean(values: Iterable[tuple[str, float]]) -> float:
    numbers = [value for _, value in values]
    return sum(numbers) / len(numbers) if numbers else float("nan")


def _entries(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows with their places: one a line, or one list, which releases before 0.4.3 wrote into their .jsonl files."""
    _, first = next(read_lines(path), (0, b""))
    if first.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        rows = parsed(read_text(path), str(path), "lm-eval's samples")
        yield from ((f"{path}, entry {number}", row) for number, row in enumerate(rows, start=1))
        return
    for number, line in read_lines(path):
        yield f"{path}:{number}", parsed(line, f"{path}:{number}", "JSON")


def bounds_of(metric: str) -> tuple[float | None, float | None]:
    """Return the bounds of a metric: those of a share for an accuracy; the scale of an F1 differs by task."""
    name = metric.partition(",")[0]
    is_share = name in ("acc", "exact_match") or name.startswith("acc_") or name.endswith("_acc")
    return (0, 1) if is_share else (None, None)
