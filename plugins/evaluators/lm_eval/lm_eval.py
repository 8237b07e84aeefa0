"""lm-eval's benchmarks on the policy in memory, document by document, through lm-eval's own engine.

`lm_eval.evaluate` is called and not `simple_evaluate`, which runs the same engine but seeds the process, asks the model hub
for a revision and lists the machine's packages.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from harness import EvaluationTask, Evaluator, HarnessError, Metric, Paper, Prompt, Score
from harness_plugins.evaluators.lm_eval.documents import bounds_of, documents_hash
from harness_plugins.evaluators.lm_eval.engine import language_model, quiet_and_offline
from harness_plugins.evaluators.lm_eval.tasks import AVERAGE, OWN, SUITE, SUITE_REPORT, Finder, Tasks, hash_of_files

SOURCE = "source"
SANDBOX_REPORT = ("sandbox_choice/acc", "sandbox_generation/exact_match")


class _Needs:
    """`benchmarks` only where the source's own tasks are asked for; the class by itself asks for them."""

    def __get__(self, evaluator: LmEval | None, owner: type[LmEval]) -> frozenset[str]:
        return frozenset({"benchmarks"}) if evaluator is None or SOURCE in evaluator.tasks else frozenset()


class LmEval(Evaluator):
    """Any lm-eval task whose data are on this machine; the source's own by default. Never uses the network.

    `open_llm_leaderboard` is the first Open LLM Leaderboard's six with the papers' shots and metrics, without a chat template:
    arc_challenge 25, hellaswag 10, winogrande 5, mmlu 5, truthfulqa_mc2 0, gsm8k 5. `gsm8k_eval` is GSM8K as Self-Contrast
    reports it: 8 worked examples, and the number after "The answer is" or else the last. The model that was trained is used as
    it is in memory.
    """

    name = "lm_eval"
    reads_split: ClassVar[bool] = False
    needs: ClassVar[Any] = _Needs()
    paper = Paper("Lessons from the Trenches on Reproducible Evaluation of Language Models", "2405.14782")

    tasks: tuple[str, ...] = Field(
        (SOURCE,),
        min_length=1,
        description="lm-eval tasks, groups or tags; `source` stands for all that the source ships, "
        f"`{SUITE}` for the leaderboard's six",
    )
    report: tuple[str, ...] = Field(
        SANDBOX_REPORT,
        min_length=1,
        description="what goes on the board: `task/metric`, or `task/metric,filter` where a task has several filters; "
        f"`{AVERAGE}` is the mean over tasks of each's first metric. For the source's tasks and the six it need not be said",
    )
    folder: str | None = Field(None, description="a folder of further lm-eval task files; they stand over lm-eval's own")
    data: str | None = Field(
        None,
        description="a folder of data sets, laid out as on the hub: `gsm8k` is read from DATA/openai/gsm8k/main/test.jsonl",
    )
    limit: int | None = Field(None, ge=1, description="documents per task; all if absent")
    batch_size: int | Literal["auto"] = Field("auto", description="requests at a time; `auto` finds what fits")
    num_fewshot: int | None = Field(None, ge=0, description="shots, where the task's file does not fix 0; the file's if absent")
    apply_chat_template: bool | None = Field(
        None,
        description=f"ask through the tokenizer's chat template; shots become turns. Absent: not for `{SUITE}`, else yes",
    )

    @model_validator(mode="before")
    @classmethod
    def _report_of_the_suite(cls, fields: Any) -> Any:
        """The suite says itself what it reports."""
        if isinstance(fields, Mapping) and "report" not in fields and fields.get("tasks") in ([SUITE], (SUITE,)):
            return {**fields, "report": SUITE_REPORT}
        return fields

    @field_validator("batch_size")
    @classmethod
    def _some_at_a_time(cls, size: int | str) -> int | str:
        if isinstance(size, int) and size < 1:
            raise ValueError("it must be at least 1, or auto")
        return size

    @field_validator("report")
    @classmethod
    def _report_is_well_formed(cls, report: tuple[str, ...]) -> tuple[str, ...]:
        for entry in report:
            task, _, metric = entry.partition("/")
            if entry == AVERAGE:
                continue
            if not task or not metric.partition(",")[0]:
                raise ValueError(f"{entry!r} should read 'task/metric', as in 'arc_challenge/acc_norm'")
        if len(set(report)) < len(report):
            raise ValueError("an entry occurs twice; leave one of them out")
        if AVERAGE in report and len({entry.partition("/")[0] for entry in report}) < 3:
            raise ValueError(f"`{AVERAGE}` is a mean over tasks: report a metric of two at least")
        return report

    @model_validator(mode="after")
    def _fields_go_together(self) -> LmEval:
        if SOURCE not in self.tasks and "report" not in self.model_fields_set:
            raise ValueError(f"say in `report` which metrics of {', '.join(self.tasks)} to show, as in '{self.tasks[0]}/acc'")
        if SUITE in self.tasks and len(self.tasks) > 1 and self.apply_chat_template is None:
            raise ValueError(f"{SUITE} is asked without a chat template and other tasks with it: set apply_chat_template")
        return self

    @property
    def templated(self) -> bool:
        """Return whether to ask through the chat template."""
        return SUITE not in self.tasks if self.apply_chat_template is None else self.apply_chat_template

    def metrics(self) -> Sequence[Metric]:
        entries = [(entry, *entry.split("/", 1)) for entry in self.report if entry != AVERAGE]
        metrics = {
            entry: Metric(entry, f"{metric} on lm-eval's {task}", primary=True, bounds=bounds_of(metric))
            for entry, task, metric in entries
        }
        metrics[AVERAGE] = Metric(AVERAGE, f"mean over the tasks of {', '.join(self._averaged())}", primary=True)
        return [metrics[entry] for entry in self.report]

    def _averaged(self) -> tuple[str, ...]:
        """Return the reported entries that the average is taken of: the first of each task."""
        first = {entry.partition("/")[0]: entry for entry in reversed(self.report) if entry != AVERAGE}
        return tuple(entry for entry in self.report if entry in first.values())

    def problems(self) -> Sequence[tuple[str, str]]:
        metadata.version("lm_eval")  # raises where it is not installed
        given = {"folder": self.folder, "data": self.data}
        return [
            (field, f"{path}: no such folder") for field, path in given.items() if path is not None and not Path(path).is_dir()
        ]

    def absent(self) -> Collection[str]:
        return [field for field, _ in self.problems()]

    def fingerprint(self) -> str:
        """Return a hash of lm-eval's version, which brings the tasks, and of the files read; not of the source's tasks."""
        if self.tasks == (SOURCE,):
            return ""
        return " ".join(["lm-eval", metadata.version("lm_eval"), self._files]).strip()

    @cached_property
    def _files(self) -> str:
        """Read once: planning asks for the fingerprint row by row."""
        ours = any((OWN / f"{name}.yaml").is_file() for name in self.tasks)
        return hash_of_files((self.folder, self.data, str(OWN) if ours else None))

    def benchmark_prompts(self, shipped: Path | None = None) -> Sequence[Prompt]:
        """The documents of all tasks asked for, each as the task words it and by its columns that ask."""
        with quiet_and_offline(), TemporaryDirectory() as cache:
            return list(self._loaded(shipped, Path(cache)).questions(self.limit))

    def evaluate(self, task: EvaluationTask) -> Iterable[Score]:
        import lm_eval

        model, tokenizer = task.policy()
        if self.templated and not tokenizer.chat_template:
            raise HarnessError("apply_chat_template = True: this tokenizer has no chat template; set it to false")
        with quiet_and_offline():
            loaded = self._load(task)
            entries = {entry: _resolve(entry, loaded) for entry in self.report if entry != AVERAGE}
            wrapped, batch_size = language_model(model, tokenizer, self.batch_size)
            results = lm_eval.evaluate(
                wrapped,
                loaded.for_lm_eval(),
                limit=self.limit,
                bootstrap_iters=0,
                apply_chat_template=self.templated,
                fewshot_as_multiturn=self.templated,
            )
        for name, fact in self._facts(results, loaded, batch_size).items():
            task.note(name, fact)
        scores = {entry: list(_scores(results["samples"], entry, *chosen)) for entry, chosen in entries.items()}
        for entry in scores:
            yield from scores[entry]
        if AVERAGE in self.report:
            yield from _average([scores[entry] for entry in self._averaged()])

    def _load(self, task: EvaluationTask) -> Tasks:
        """The tasks with their data. Local files are cached in the evaluation's folder, others where lm-eval puts them."""
        loaded = self._loaded(task.benchmarks() if SOURCE in self.tasks else None, task.folder / "datasets")
        loaded.set_shots(self.num_fewshot, papers=SUITE in self.tasks)
        return loaded

    def _loaded(self, shipped: Path | None, cache: Path) -> Tasks:
        loaded, finder = Tasks(), Finder(self.folder, self.data, cache)
        if shipped is not None:
            loaded.add(finder.shipped(shipped))
        if named := [name for name in self.tasks if name != SOURCE]:
            loaded.add(finder.named(named))
        return loaded

    def _facts(self, results: Mapping[str, Any], loaded: Tasks, batch_size: int) -> dict[str, Any]:
        """Return facts for the board: versions, shots and documents of each reported task, and how it was asked."""
        names = sorted({entry.partition("/")[0] for entry in self.report if entry != AVERAGE})
        tasks = {name: [task.task_name for task in loaded.of(name)] for name in names}
        return {
            "lm_eval": metadata.version("lm_eval"),
            "versions": {name: results["versions"].get(name) for name in names},
            "shots": {name: results["n-shot"][tasks[name][0]] for name in names},
            "documents": {name: _documents(tasks[name], results["samples"]) for name in names},
            "chat_template": self.templated,
            "batch_size": batch_size,
            "limit": self.limit,
        }


def _scores(samples: Mapping[str, Any], entry: str, names: Sequence[str], metric: str, chosen: str) -> Iterator[Score]:
    """Yield one score for each document of an entry's tasks."""
    for name in names:
        for row in samples[name]:
            if row["filter"] == chosen and metric in row:
                yield Score(f"{name}:{row['doc_id']}", entry, float(row[metric]))


def _average(tasks: Sequence[Sequence[Score]]) -> Iterator[Score]:
    """Yield one score for each document of several tasks, so that their mean is the mean of the tasks' means.

    A document of a task with n of N documents among T tasks counts N / (T·n) times. Resampling documents over all tasks then
    gives the average's interval; it is a little wide, since the number of documents of each task varies too.
    """
    documents = sum(len(scores) for scores in tasks)
    for scores in tasks:
        for score in scores:
            yield Score(score.example, AVERAGE, score.value * documents / (len(tasks) * len(scores)))


def _documents(tasks: Sequence[str], samples: Mapping[str, Any]) -> str | None:
    """Return the documents that the tasks took."""
    return documents_hash({f"{task}:{row['doc_id']}": row["doc_hash"] for task in tasks for row in samples[task]})


def _resolve(entry: str, loaded: Tasks) -> tuple[list[str], str, str]:
    """A `report` entry -> (names of its tasks, metric, filter); a group stands for all its tasks' documents."""
    name, _, rest = entry.partition("/")
    metric, _, chosen = rest.partition(",")
    tasks = loaded.of(name)
    if not tasks:
        known = ", ".join(sorted({**loaded.tasks, **loaded.groups}))
        raise HarnessError(f"report {entry!r}: the tasks asked for are {known}")
    for task in tasks:
        if metric not in task.aggregation():
            raise HarnessError(f"report {entry!r}: {task.task_name} reports {', '.join(sorted(task.aggregation()))}")
        if getattr(task.aggregation()[metric], "__name__", "") != "mean" or not task.higher_is_better().get(metric):
            raise HarnessError(f"report {entry!r}: {metric} is not a mean over documents of which more is better")
    filters = sorted({each.name for task in tasks for each in task._filters})
    if chosen not in filters and (chosen or len(filters) > 1):
        raise HarnessError(f"report {entry!r}: write {' or '.join(f'{name}/{metric},{each}' for each in filters)}")
    return [task.task_name for task in tasks], metric, chosen or filters[0]
