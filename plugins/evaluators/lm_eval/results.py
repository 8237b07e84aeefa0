"""The files of lm-eval's `--output_path`: results_<date>.json, and beside it samples_<task>_<date>.jsonl.

Releases before 0.4.3 wrote results.json (or a file of the user's name), with MODEL_ARGS_TASK.jsonl beside it; those before 0.4
wrote one file, without filters, shots by task and groups.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from harness import DataError, Imported, Metric, read_text
from harness_plugins.evaluators.lm_eval.documents import (
    NAMES_FILTERS,
    Documents,
    TaskResult,
    bounds_of,
    own_numbers,
    task_result,
    usable,
    with_filters,
)
from harness_plugins.evaluators.lm_eval.lm_eval import LmEval
from harness_plugins.evaluators.lm_eval.models import digest, model_of
from harness_plugins.evaluators.validation import Fact, ForeignRow, Label, checked, parsed

Row = dict[str, Any]
DEEPEST_GROUP = 20
DATE = re.compile(r"_(\d{4}-\d\d-\d\d[\dT.-]*)$")
NORMALISED = ("acc_norm", "exact_match")  # shown in the short tables, and `acc` where a task has neither
# Metrics that are better when lower, by lm-eval's registry: for files of releases that did not say (before 0.4.3)
LOWER = frozenset({"perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "brier_score", "ter", "ppl", "wer"})
FEW = 3  # tasks of a group that a warning names
PARTS = ("versions", "n-shot", "n-samples", "group_subtasks", "higher_is_better")  # of the file, by task
ALONE = "shown as lm-eval's own numbers, without interval and test"


class _Config(ForeignRow):
    limit: Fact = None
    num_fewshot: Fact = None


class EvalResults(ForeignRow):
    """lm-eval's results_<date>.json. Releases before 0.4 have no `n-shot`, those before 0.4.2 no `group_subtasks`."""

    results: dict[Label, Any]
    versions: dict[str, Fact]
    shots: dict[str, Fact] | None = Field(None, alias="n-shot")
    groups: dict[Label, Any] | None = None
    group_subtasks: dict[Label, list[Label]] | None = None
    higher_is_better: dict[str, dict[str, bool | None]] | None = None
    samples: dict[str, dict[str, Any]] | None = Field(None, alias="n-samples")
    model_name: Label | None = None
    config: _Config | None = None


@dataclass
class Results:
    """One model's results.

    Attributes:
        model: its whole name, by which results of one model are known.
        measured: a task -> its numbers and the file of its documents, if there is one.
        asked: `limit` and `chat_template`, each by task; not what the file does not say.
        files: all results_<date>.json that were read.
    """

    model: str
    content: Row
    measured: dict[str, tuple[Row, Path | None]]
    asked: dict[str, Row] = field(default_factory=dict)
    files: tuple[Path, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Results:
        """Raises DataError naming the file."""
        content = parsed(read_text(path), str(path), "lm-eval's results")
        if isinstance(content, dict) and "config_general" in content:
            raise DataError(f"{path} holds results of lighteval, which is another tool: give lm-eval's results_<date>.json")
        checked(EvalResults, content, f"{path} cannot be read as lm-eval's results: it", "give results_<date>.json")
        for name in {*content["results"], *(content.get("groups") or {}), *(content.get("group_subtasks") or {})}:
            if "/" in name or "\\" in name or not name.isprintable():
                raise DataError(f"{path}: {name[:80]!r} is no name of a task: give results_<date>.json as lm-eval writes it")
        tasks = with_filters(_numbers(content))
        measured = {name: (row, _samples(path, content, name)) for name, row in tasks.items()}
        names = {*tasks, *(content.get("group_subtasks") or {})}
        if "n-shot" not in content and (shots := (content.get("config") or {}).get("num_fewshot")) is not None:
            content["n-shot"] = dict.fromkeys(sorted(names), shots)
        asked = {fact: dict.fromkeys(sorted(names), value) for fact, value in _asked(content).items()}
        return cls(model_of(content), content, measured, asked, (path,))

    def add(self, later: Results) -> None:
        """Results of a later run of the same model stand over those of this one."""
        self.measured |= later.measured
        self.files = tuple(dict.fromkeys([*self.files, *later.files]))
        for name in PARTS:
            self.content[name] = {**(self.content.get(name) or {}), **(later.content.get(name) or {})}
        for fact in dict.fromkeys([*self.asked, *later.asked]):
            before = {name: value for name, value in self.asked.get(fact, {}).items() if name not in later.measured}
            self.asked[fact] = before | later.asked.get(fact, {})

    def imported(self, chosen: Sequence[str], label: str) -> Iterator[Imported]:
        """A row with the documents' values, and one of lm-eval's own numbers where those are not all or there are none.

        Raises:
            DataError: there is no number to show.
        """
        names = self._names(chosen)
        shown = list(dict.fromkeys(entry for name in names for entry in self._shown(name)))
        parts = [self._part(name) for name in shown]
        whole, alone = [made for made in parts if made.scores], [made for made in parts if made.figures]
        warnings = (*self._opened(names), *self._said(parts))
        if not (whole or alone):
            files = ", ".join(map(str, self.files))
            why = "; ".join(warnings) or f"none of {_few(shown)} has one"
            raise DataError(f"{files}: no number of {self.model} to show ({why}): give results of tasks that lm-eval scored")
        if whole:
            yield self._row(label, whole, warnings, whole=True)
        if alone:
            yield self._row(label, alone, () if whole else warnings, whole=False)

    def _row(self, label: str, parts: Sequence[TaskResult], warnings: tuple[str, ...], *, whole: bool) -> Imported:
        names = [made.name for made in parts]
        scores = [score for made in parts for score in (made.scores if whole else made.figures)]
        facts = {
            "model_hash": digest(self.model),
            "versions": {name: self.content["versions"].get(name) for name in names},
            "shots": {name: self._shots(name) for name in names},
            "documents": {made.name: made.documents for made in parts if whole and made.documents},
            **{fact: {name: by_task[name] for name in names if name in by_task} for fact, by_task in self.asked.items()},
        }
        return Imported(
            label=label,
            evaluator=LmEval.name,
            metrics=tuple(self._metric(entry) for entry in dict.fromkeys(score.metric for score in scores)),
            scores=tuple(scores),
            whole=whole,
            facts={fact: value for fact, value in facts.items() if value},
            warnings=warnings,
            files=(*self.files, *(path for name in names if whole for path in self._documents(name)[0].values())),
        )

    def _opened(self, names: Sequence[str]) -> Iterator[str]:
        """Groups that are shown by their tasks."""
        opened = {name: shown for name in names if (shown := self._shown(name)) != [name]}
        if opened:
            groups = ", ".join(f"{name} ({_few(shown)})" for name, shown in opened.items())
            yield f"groups that lm-eval gives no number of, so shown by their tasks: {groups}"

    def _said(self, parts: Sequence[TaskResult]) -> Iterator[str]:
        """Return the reasons why results cannot be compared or shown."""
        unlike = [made for made in parts if made.unlike]
        alone = any(made.scores for made in parts) or bool(unlike)  # else all rows are figures, and their kind says so
        if unlike:
            groups = any(self._tasks(made.name) != [made.name] for made in unlike)
            fix = "; --set 'tasks=[…]' takes tasks of a group by themselves" if groups else ""
            yield f"no mean over documents, so {ALONE}: {', '.join(text for made in unlike for text in made.unlike)}{fix}"
        partly = [made for made in parts if made.missing]
        for said, lacking in (
            (f"not all documents are there (--log_samples), so {ALONE}", [made for made in partly if made.figures and alone]),
            (
                "left out, with neither all documents nor a number of its own",
                [made for made in partly if not (made.figures or made.infinite)],
            ),
        ):
            names = [made.name if made.missing == [made.name] else f"{made.name} ({_few(made.missing)})" for made in lacking]
            if names:
                yield f"{said}: {', '.join(names)}"
        for said, texts in (
            (
                f"documents name no filter (lm-eval before {NAMES_FILTERS}) and not each has a row for each filter, so {ALONE}",
                [text for made in parts for text in made.unnamed],
            ),
            ("left out, since lm-eval gives no number of it", [text for made in parts for text in made.ungiven]),
            ("left out, since lm-eval's number is not finite", [text for made in parts for text in made.infinite]),
            ("documents without a finite value, left out of the mean", [text for made in parts for text in made.holes]),
        ):
            if texts:
                yield f"{said}: {', '.join(texts)}"

    def _names(self, chosen: Sequence[str]) -> list[str]:
        """Return the tasks and groups to report: the chosen ones, or all that are in no group."""
        groups = self.content.get("group_subtasks") or {}
        inside = {task for tasks in groups.values() for task in tasks}
        known = sorted({*self.measured, *groups} - inside)
        for name in chosen:
            if name not in {*self.measured, *groups}:
                raise DataError(f"--set tasks={name}: {self.model} has no results of it: it has {', '.join(known)}")
        return list(chosen) or known

    def _shown(self, name: str, above: frozenset[str] = frozenset()) -> list[str]:
        """A task, or a group with a number of its own; else the tasks and groups that are in it."""
        inside = (self.content.get("group_subtasks") or {}).get(name) or ()
        self._check_depth(name, above)
        if not inside or any(usable(value) for value in self._numbers(name).values()):
            return [name]
        return [entry for child in dict.fromkeys(inside) for entry in self._shown(child, above | {name})]

    def _numbers(self, name: str) -> dict[str, float]:
        return own_numbers(self.measured.get(name, ({}, None))[0])

    def _check_depth(self, name: str, above: frozenset[str]) -> None:
        if name in above or len(above) > DEEPEST_GROUP:
            raise DataError(f"{self.model}: the group {name!r} contains itself: give results_<date>.json as lm-eval writes it")

    def _tasks(self, name: str, above: frozenset[str] = frozenset()) -> list[str]:
        """A task, or all tasks of a group."""
        inside = (self.content.get("group_subtasks") or {}).get(name) or ()
        self._check_depth(name, above)
        return [task for child in dict.fromkeys(inside) for task in self._tasks(child, above | {name})] or [name]

    def _documents(self, name: str) -> tuple[dict[str, Path], list[str]]:
        """The files of a name's tasks; the tasks that have none."""
        found = {task: self.measured.get(task, ({}, None))[1] for task in self._tasks(name)}
        return {task: path for task, path in found.items() if path}, [task for task, path in found.items() if not path]

    def _part(self, name: str) -> TaskResult:
        paths, missing = self._documents(name)
        kept = [] if missing else [Documents.read(task, path, self._numbers(task)) for task, path in paths.items()]
        unnamed = [made.unnamed for made in kept if made.unnamed]
        missing += [made.task for made in kept if len(made.hashes) < self._asked_of(made.task)]
        numbers = {task: self._numbers(task) for task in (name, *paths)}
        made = task_result(name, numbers, [] if missing or unnamed else kept, missing)
        made.unnamed = unnamed if made.figures else []
        return made

    def _asked_of(self, task: str) -> int:
        """Return how many documents lm-eval took, if the file says."""
        taken = ((self.content.get("n-samples") or {}).get(task) or {}).get("effective")
        return taken if isinstance(taken, int) else 0

    def _metric(self, entry: str) -> Metric:
        """As the evaluator `lm_eval` describes it; a task's first metric is shown in the short tables."""
        name, _, rest = entry.partition("/")
        metric = rest.partition(",")[0]
        others = {key.partition(",")[0] for task in self._tasks(name) for key in self.measured.get(task, ({}, None))[0]}
        primary = metric in NORMALISED or (metric == "acc" and not others & set(NORMALISED))
        return Metric(entry, f"{rest} on lm-eval's {name}", self._better(name, metric), primary, bounds=bounds_of(metric))

    def _better(self, name: str, metric: str) -> bool | None:
        """Return whether higher is better: by the file for the task or group, or for the group's tasks if those agree."""
        known = self.content.get("higher_is_better") or {}
        if metric in (known.get(name) or {}):
            return known[name][metric]  # type: ignore[no-any-return]
        directions = {known[task][metric] for task in self._tasks(name) if metric in (known.get(task) or {})}
        if len(directions) > 1:
            return None
        return directions.pop() if directions else metric not in LOWER

    def _shots(self, name: str) -> Any:
        return (self.content.get("n-shot") or {}).get(self._tasks(name)[0])


def _numbers(content: Row) -> dict[str, Row]:
    """A task or group -> its numbers; those of groups stand in both parts of a file, and of a few files in `groups` alone."""
    results, groups = content["results"], content.get("groups") or {}
    rows = {name: {**_row(groups.get(name)), **_row(results.get(name))} for name in dict.fromkeys([*results, *groups])}
    return {name: row for name, row in rows.items() if row}


def _row(value: Any) -> Row:
    return value if isinstance(value, dict) else {}


def _samples(path: Path, content: Mapping[str, Any], task: str) -> Path | None:
    """The file of a task's documents beside the results, by the name that each release of lm-eval gives it."""
    date, arguments = DATE.search(path.stem), (content.get("config") or {}).get("model_args")
    names = [f"samples_{task}_{date[1]}.jsonl"] if date else [f"samples_{task}.jsonl"]
    if not date and isinstance(arguments, str):
        names.append(f"{re.sub('/|=', '__', arguments)}_{task}.jsonl")  # before 0.4.3
    return next((file for name in names if (file := path.with_name(name)).is_file()), None)


def _asked(content: Row) -> Row:
    """Return the limit on documents and whether a chat template was used; what the file does not say is left out."""
    config = content.get("config") or {}
    found: Row = {"chat_template": bool(content["chat_template"])} if "chat_template" in content else {}
    if "limit" in config:
        limit = config["limit"]
        found["limit"] = int(limit) if isinstance(limit, float) and limit.is_integer() else limit
    return found


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= FEW else f"{', '.join(names[:FEW])} and {len(names) - FEW} more"
