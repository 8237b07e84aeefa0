"""The files of lm-eval's `--output_path`: results_<date>.json, and beside it samples_<task>_<date>.jsonl."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import DataError, Imported, Metric, Score
from harness_plugins.evaluators.lm_eval import LmEval
from harness_plugins.evaluators.shapes import Document, EvalResults, checked, parsed

Row = dict[str, Any]
NO_FILTER = "none"
DEEPEST_GROUP = 20
DATE = re.compile(r"_(\d{4}-\d\d-\d\d[\dT.-]*)$")
NORMALISED = ("acc_norm", "exact_match")  # shown in the short tables, and `acc` where a task has neither


@dataclass
class Results:
    """One model's results; `measured` maps a task to its numbers and the file of its documents, if there is one."""

    model: str
    content: Row
    measured: dict[str, tuple[Row, Path | None]]

    @classmethod
    def read(cls, path: Path) -> Results:
        """Raises DataError naming the file."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as lm-eval's results ({error}): give results_<date>.json") from error
        content = parsed(text, str(path), "lm-eval's results")
        checked(EvalResults, content, f"{path} cannot be read as lm-eval's results: it", "give results_<date>.json")
        for name in {*content["results"], *(content.get("group_subtasks") or {})}:
            if "/" in name or "\\" in name or not name.isprintable():
                raise DataError(f"{path}: {name[:80]!r} is no name of a task: give results_<date>.json as lm-eval writes it")
        tasks = {name: row for name, row in content["results"].items() if isinstance(row, dict)}
        model = _model(content)
        date = DATE.search(path.stem)
        beside = {name: path.with_name(f"samples_{name}_{date[1] if date else ''}.jsonl") for name in tasks}
        measured = {name: (row, beside[name] if beside[name].is_file() else None) for name, row in tasks.items()}
        return cls(model, content, measured)

    def add(self, later: Results) -> None:
        """Results of a later run of the same model stand over those of this one."""
        self.measured |= later.measured
        for part in ("versions", "n-shot", "group_subtasks", "higher_is_better"):
            self.content[part] = {**(self.content.get(part) or {}), **(later.content.get(part) or {})}

    def imported(self, chosen: Sequence[str]) -> Imported:
        """A row with the documents' values; of a task without them its numbers, if no task has any."""
        names = self._names(chosen)
        whole = any(self._documents(name) for name in names)
        metrics: dict[str, Metric] = {}
        scores: list[Score] = []
        for name in names:
            for score in self._scores(name) if whole else self._numbers(name):
                scores.append(score)
                if score.metric not in metrics:
                    metrics[score.metric] = self._metric(score.metric)
        facts = {
            "versions": {name: self.content["versions"].get(name) for name in names},
            "shots": {name: self._shots(name) for name in names},
        }
        return Imported(self.model, LmEval.name, tuple(metrics.values()), tuple(scores), whole=whole, facts=facts)

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

    def _documents(self, name: str) -> list[tuple[str, Path]]:
        """The tasks of a name with their files; nothing unless all have one."""
        found = [(task, self.measured.get(task, ({}, None))[1]) for task in self._tasks(name)]
        return [(task, path) for task, path in found if path is not None] if all(path for _, path in found) else []

    def _scores(self, name: str) -> Iterator[Score]:
        for task, path in self._documents(name):
            for number, row in enumerate(_lines(path), start=1):
                checked(
                    Document, row, f"{path}:{number} is no document as lm-eval writes it: it", "give what --log_samples wrote"
                )
                label = "" if row["filter"] == NO_FILTER else f",{row['filter']}"
                values = {metric: row[metric] for metric in row["metrics"] if isinstance(row.get(metric), int | float)}
                example = f"{task}:{row['doc_id']}"
                for metric, value in values.items():
                    yield Score(example, f"{name}/{metric}{label}", float(value))

    def _numbers(self, name: str) -> Iterator[Score]:
        for key, value in self.measured.get(name, ({}, None))[0].items():
            metric, _, chosen = key.partition(",")
            if isinstance(value, int | float) and chosen and not metric.endswith("_stderr"):
                yield Score(name, f"{name}/{metric}{'' if chosen == NO_FILTER else f',{chosen}'}", float(value))

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


def _model(content: Row) -> str:
    """The model's name, without the folders of a checkpoint's path."""
    name = str(content.get("model_name") or (content.get("config") or {}).get("model") or "model")
    return Path(name).name if name.startswith((".", "/")) else name


def _lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            yield parsed(line, f"{path}:{number}", "JSON")
