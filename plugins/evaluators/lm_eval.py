"""lm-eval's benchmarks on the policy in memory, document by document, through lm-eval's own engine.

`lm_eval.evaluate` is called and not `simple_evaluate`, which runs the same engine but seeds the process, asks the model hub
for a revision and lists the machine's packages.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator, model_validator

from harness import DataError, EvaluationTask, Evaluator, HarnessError, Metric, Paper, Score

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SOURCE = "source"
SANDBOX_REPORT = ("sandbox_choice/acc", "sandbox_generation/exact_match")
FEWSHOT_SEED = 1234  # lm-eval's own default


class _Needs:
    """`benchmarks` only where the source's own tasks are asked for; the class by itself asks for them."""

    def __get__(self, evaluator: LmEval | None, owner: type[LmEval]) -> frozenset[str]:
        return frozenset({"benchmarks"}) if evaluator is None or SOURCE in evaluator.tasks else frozenset()


class LmEval(Evaluator):
    """Any lm-eval task whose data are on this machine; the source's own by default. Never uses the network."""

    name = "lm_eval"
    needs: ClassVar[Any] = _Needs()
    paper = Paper("Lessons from the Trenches on Reproducible Evaluation of Language Models", "2405.14782")

    tasks: tuple[str, ...] = Field(
        (SOURCE,), min_length=1, description="lm-eval tasks, groups or tags; `source` stands for all that the source ships"
    )
    report: tuple[str, ...] = Field(
        SANDBOX_REPORT,
        min_length=1,
        description="what goes on the board: `task/metric`, or `task/metric,filter` where a task has several filters",
    )
    folder: str | None = Field(None, description="a folder of further lm-eval task files; rename it when they change")
    limit: int | None = Field(None, ge=1, description="documents per task; all if absent")
    batch_size: int = Field(64, ge=1, description="requests at a time")
    num_fewshot: int | None = Field(None, ge=0, description="shots, where the task's file does not fix 0; the file's if absent")
    apply_chat_template: bool = Field(True, description="ask through the tokenizer's chat template; shots become turns")

    @field_validator("report")
    @classmethod
    def _report_is_well_formed(cls, report: tuple[str, ...]) -> tuple[str, ...]:
        for entry in report:
            task, _, metric = entry.partition("/")
            if not task or not metric.partition(",")[0]:
                raise ValueError(f"{entry!r} should read 'task/metric', as in 'arc_challenge/acc_norm'")
        if len(set(report)) < len(report):
            raise ValueError("an entry occurs twice; leave one of them out")
        return report

    @model_validator(mode="after")
    def _report_is_about_tasks(self) -> LmEval:
        if SOURCE not in self.tasks and "report" not in self.model_fields_set:
            raise ValueError(f"say in `report` which metrics of {', '.join(self.tasks)} to show, as in '{self.tasks[0]}/acc'")
        return self

    def metrics(self) -> Sequence[Metric]:
        return [Metric(entry, "{1} on lm-eval's {0}".format(*entry.split("/", 1)), primary=True) for entry in self.report]

    def evaluate(self, task: EvaluationTask) -> Iterable[Score]:
        import lm_eval

        model, tokenizer = task.policy()
        if self.apply_chat_template and not tokenizer.chat_template:
            raise HarnessError("apply_chat_template = True: this tokenizer has no chat template; set it to false")
        with _quiet_and_offline():
            loaded = self._load(task)
            entries = {entry: _resolve(entry, loaded) for entry in self.report}
            results = lm_eval.evaluate(
                _language_model(model, tokenizer, self.batch_size),
                loaded,
                limit=self.limit,
                bootstrap_iters=0,
                apply_chat_template=self.apply_chat_template,
                fewshot_as_multiturn=self.apply_chat_template,
            )
        for entry, (names, metric, chosen) in entries.items():
            for name in names:
                for row in results["samples"][name]:
                    if row["filter"] == chosen and metric in row:
                        yield Score(f"{name}:{row['doc_id']}", entry, float(row[metric]))

    def _load(self, task: EvaluationTask) -> dict[str, Any]:
        """The tasks with their data. The source's are cached in the evaluation's folder, others where lm-eval puts them."""
        import datasets.config
        from lm_eval.tasks import TaskManager

        loaded: dict[str, Any] = {"tasks": {}, "groups": {}}
        named = [name for name in self.tasks if name != SOURCE]
        if SOURCE in self.tasks:
            manager = TaskManager(include_defaults=False, include_path=task.benchmarks())
            with _attributes(datasets.config, HF_DATASETS_CACHE=task.folder / "datasets"):
                _merge(loaded, manager.load(manager.all_subtasks))
        if named:
            manager = TaskManager(include_defaults=False, include_path=self.folder)
            if not set(named) <= set(manager.all_tasks):  # reading lm-eval's own task files takes seconds
                manager = TaskManager(include_path=self.folder)
            unknown = sorted(set(named) - set(manager.all_tasks))
            if unknown:
                raise HarnessError(f"lm-eval knows no task {', '.join(map(repr, unknown))}: `lm-eval ls tasks` lists them")
            try:
                _merge(loaded, manager.load(named))
            except (OSError, ValueError) as error:
                message = f"the data of lm-eval's {', '.join(named)} are not on this machine: run lm-eval on them once, online"
                raise DataError(f"{message} ({error})") from error
        self._set_shots(loaded["tasks"].values())
        return loaded

    def _set_shots(self, tasks: Iterable[Any]) -> None:
        """As `lm_eval.simple_evaluate` does: a task that fixes 0 shots keeps 0."""
        for task in tasks:
            fixed = task.get_config("num_fewshot")
            if fixed is None or (fixed != 0 and self.num_fewshot is not None):
                task.set_config(key="num_fewshot", value=self.num_fewshot or 0)
            task.set_fewshot_seed(seed=FEWSHOT_SEED)


def _merge(loaded: dict[str, Any], more: Mapping[str, Any]) -> None:
    loaded["tasks"].update(more["tasks"])
    loaded["groups"].update(more.get("groups", {}))


def _resolve(entry: str, loaded: Mapping[str, Any]) -> tuple[list[str], str, str]:
    """A `report` entry -> (names of its tasks, metric, filter); a group stands for all its tasks' documents."""
    name, _, rest = entry.partition("/")
    metric, _, chosen = rest.partition(",")
    if name in loaded["groups"]:
        tasks = loaded["groups"][name].get_all_tasks()
    elif name in loaded["tasks"]:
        tasks = [loaded["tasks"][name]]
    else:
        known = ", ".join(sorted({**loaded["tasks"], **loaded["groups"]}))
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


def _language_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int) -> Any:
    """lm-eval's own wrapper of a model in memory, without progress bars, and never with two beginning-of-sequence tokens."""
    from lm_eval.models.huggingface import HFLM

    class PolicyModel(HFLM):
        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> Any:
            check_beginning(self.tok_encode(requests[0].args[0]), self.tokenizer)
            return super().loglikelihood(requests, disable_tqdm=True)

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> Any:
            return super().loglikelihood_rolling(requests, disable_tqdm=True)

        def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> Any:
            check_beginning(self.tok_batch_encode([requests[0].args[0]])[0][0].tolist(), self.tokenizer)
            return super().generate_until(requests, disable_tqdm=True)

    return PolicyModel(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)


def check_beginning(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> None:
    """A prompt that begins with two beginning-of-sequence tokens would quietly cost every policy some accuracy."""
    begin = tokenizer.bos_token_id
    if begin is not None and list(ids[:2]) == [begin, begin]:
        token = tokenizer.bos_token
        raise HarnessError(f"prompts begin with {token} twice: the tokenizer and its chat template both add it; drop one")


@contextmanager
def _attributes(owner: Any, **values: Any) -> Iterator[None]:
    """Module attributes changed for a while."""
    before = {name: getattr(owner, name) for name in values}
    try:
        for name, value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


@contextmanager
def _quiet_and_offline() -> Iterator[None]:
    """Without lm-eval's log and progress bars, which have no switch of their own, and without any download."""
    import datasets
    import huggingface_hub.constants
    import lm_eval.api.task

    logger, bars = logging.getLogger("lm_eval"), datasets.are_progress_bars_disabled()
    level = logger.level
    with ExitStack() as stack:
        stack.enter_context(_attributes(datasets.config, HF_HUB_OFFLINE=True, HF_DATASETS_OFFLINE=True))
        stack.enter_context(_attributes(huggingface_hub.constants, HF_HUB_OFFLINE=True))
        stack.enter_context(_attributes(lm_eval.api.task, tqdm=lambda documents, **_: documents))
        stack.callback(logger.setLevel, level)
        logger.setLevel(logging.ERROR)
        if not bars:
            datasets.disable_progress_bars()
            stack.callback(datasets.enable_progress_bars)
        yield
