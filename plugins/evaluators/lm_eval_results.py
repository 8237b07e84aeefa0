"""The files of lm-eval's `--output_path`: results_<date>.json, and beside it samples_<task>_<date>.jsonl."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import DataError, Imported, Metric, read_text
from harness_plugins.evaluators.lm_eval import LmEval
from harness_plugins.evaluators.lm_eval_documents import Documents, Part, own_numbers, part
from harness_plugins.evaluators.lm_eval_models import digest, model_of
from harness_plugins.evaluators.shapes import EvalResults, checked, parsed

Row = dict[str, Any]
DEEPEST_GROUP = 20
DATE = re.compile(r"_(\d{4}-\d\d-\d\d[\dT.-]*)$")
NORMALISED = ("acc_norm", "exact_match")  # shown in the short tables, and `acc` where a task has neither
FEW = 3  # tasks of a group that a warning names
PARTS = ("versions", "n-shot", "n-samples", "group_subtasks", "higher_is_better")  # of the file, by task
ALONE = "shown as lm-eval's own numbers, without interval and test"


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
        checked(EvalResults, content, f"{path} cannot be read as lm-eval's results: it", "give results_<date>.json")
        for name in {*content["results"], *(content.get("group_subtasks") or {})}:
            if "/" in name or "\\" in name or not name.isprintable():
                raise DataError(f"{path}: {name[:80]!r} is no name of a task: give results_<date>.json as lm-eval writes it")
        tasks = {name: row for name, row in content["results"].items() if isinstance(row, dict)}
        date = DATE.search(path.stem)
        beside = {name: path.with_name(f"samples_{name}_{date[1] if date else ''}.jsonl") for name in tasks}
        measured = {name: (row, beside[name] if beside[name].is_file() else None) for name, row in tasks.items()}
        names = {*tasks, *(content.get("group_subtasks") or {})}
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
        """A row with the documents' values, and one of lm-eval's own numbers where those are not all or there are none."""
        parts = [self._part(name) for name in self._names(chosen)]
        whole, alone = [made for made in parts if made.scores], [made for made in parts if made.figures]
        warnings = tuple(self._said(parts)) if any(made.scores or made.unlike for made in parts) else ()
        if whole:
            yield self._row(label, whole, warnings, whole=True)
        if alone or not whole:
            yield self._row(label, alone, () if whole else warnings, whole=False)

    def _row(self, label: str, parts: Sequence[Part], warnings: tuple[str, ...], *, whole: bool) -> Imported:
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

    def _said(self, parts: Sequence[Part]) -> Iterator[str]:
        """What of the results cannot be compared, once there is something that can."""
        unlike = [made for made in parts if made.unlike]
        if unlike:
            groups = any(self._tasks(made.name) != [made.name] for made in unlike)
            fix = "; --set 'tasks=[…]' takes tasks of a group by themselves" if groups else ""
            yield f"no mean over documents, so {ALONE}: {', '.join(text for made in unlike for text in made.unlike)}{fix}"
        partly = [made for made in parts if made.missing]
        for said, lacking in (
            (f"not all documents are there (--log_samples), so {ALONE}", [made for made in partly if made.figures]),
            ("left out, with neither all documents nor a number of its own", [made for made in partly if not made.figures]),
        ):
            names = [made.name if made.missing == [made.name] else f"{made.name} ({_few(made.missing)})" for made in lacking]
            if names:
                yield f"{said}: {', '.join(names)}"

    def _names(self, chosen: Sequence[str]) -> list[str]:
        """What to report: what was chosen, or all that is in no group."""
        groups = self.content.get("group_subtasks") or {}
        inside = {task for tasks in groups.values() for task in tasks}
        known = sorted({*self.measured, *groups} - inside)
        for name in chosen:
            if name not in {*self.measured, *groups}:
                raise DataError(f"--set tasks={name}: {self.model} has no results of it: it has {', '.join(known)}")
        return list(chosen) or known

    def _tasks(self, name: str, above: frozenset[str] = frozenset()) -> list[str]:
        """A task, or all tasks of a group."""
        inside = (self.content.get("group_subtasks") or {}).get(name) or ()
        if name in above or len(above) > DEEPEST_GROUP:
            raise DataError(f"{self.model}: the group {name!r} contains itself: give results_<date>.json as lm-eval writes it")
        return [task for child in dict.fromkeys(inside) for task in self._tasks(child, above | {name})] or [name]

    def _documents(self, name: str) -> tuple[dict[str, Path], list[str]]:
        """The files of a name's tasks; the tasks that have none."""
        found = {task: self.measured.get(task, ({}, None))[1] for task in self._tasks(name)}
        return {task: path for task, path in found.items() if path}, [task for task, path in found.items() if not path]

    def _part(self, name: str) -> Part:
        paths, missing = self._documents(name)
        kept = [] if missing else [Documents.read(task, path) for task, path in paths.items()]
        missing += [made.task for made in kept if len(made.hashes) < self._asked_of(made.task)]
        numbers = {task: own_numbers(self.measured.get(task, ({}, None))[0]) for task in (name, *paths)}
        return part(name, numbers, [] if missing else kept, missing)

    def _asked_of(self, task: str) -> int:
        """How many documents lm-eval took, as far as the file says."""
        taken = ((self.content.get("n-samples") or {}).get(task) or {}).get("effective")
        return taken if isinstance(taken, int) else 0

    def _metric(self, entry: str) -> Metric:
        """As the evaluator `lm_eval` describes it; a task's first metric is shown in the short tables."""
        name, _, rest = entry.partition("/")
        metric = rest.partition(",")[0]
        better = (self.content.get("higher_is_better") or {}).get(name, {}).get(metric, True)
        others = {key.partition(",")[0] for task in self._tasks(name) for key in self.measured.get(task, ({}, None))[0]}
        primary = metric in NORMALISED or (metric == "acc" and not others & set(NORMALISED))
        return Metric(entry, f"{rest} on lm-eval's {name}", better, primary)

    def _shots(self, name: str) -> Any:
        return self.content["n-shot"].get(self._tasks(name)[0])


def _asked(content: Row) -> Row:
    """How many documents were asked at most, and whether by a chat template; what the file does not say is not there."""
    config = content.get("config") or {}
    found: Row = {"chat_template": bool(content["chat_template"])} if "chat_template" in content else {}
    if "limit" in config:
        limit = config["limit"]
        found["limit"] = int(limit) if isinstance(limit, float) and limit.is_integer() else limit
    return found


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= FEW else f"{', '.join(names[:FEW])} and {len(names) - FEW} more"
