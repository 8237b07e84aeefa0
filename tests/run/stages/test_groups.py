"""A data builder that asks a judge: planned with it, asked through the store, on the board's bill."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from models.judge.scripted import ScriptedJudge
from pydantic import Field

from harness import Backend, BuildTask, ChatTemplate, DataBuilder, Group, Message, Response, Sampling, hookimpl
from harness.api.registry import Registry
from harness.config import resolve
from harness.errors import ConfigError, StageError
from harness.run.graph import Graph
from harness.run.plan import plan
from harness.run.stages import run_stage
from harness.run.stages.context import Context, read_groups
from harness.store import Store
from harness.training.batch import tokenize
from harness_plugins.baselines.dpo import DPO


class JudgedPairs(DataBuilder):
    """The better of two fixed answers, as the judge says."""

    name: ClassVar[str] = "judged_pairs"
    judged: ClassVar[bool] = True

    judge: dict[str, Any] = Field(default_factory=dict)

    def build(self, task: BuildTask) -> Iterable[Group]:
        asked = [(Message("user", f"which answers {example.prompt.text!r}: A or B?"),) for example in task.examples]
        judgments = task.judge(asked, parse=lambda answer: answer.text if answer.text in ("A", "B") else None)
        for example, judgment in zip(task.examples, judgments, strict=True):
            if not judgment.parsed:
                task.count("the judgment could not be read")
                continue
            best, worst = ("pear", "fig") if judgment.value == "A" else ("fig", "pear")
            yield Group(example.prompt, Response(best), (Response(worst),))


class Plugin:
    @hookimpl
    def harness_data_builders(self) -> list[type[DataBuilder]]:
        return [JudgedPairs]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load(extra=[Plugin()])


@pytest.fixture
def raw(tiny_checkpoint: Path) -> dict[str, Any]:
    return {
        "name": "a",
        "source": {"name": "sandbox", "sft": 8, "train": 8, "tuning": 4, "heldout": 4},
        "model": {"path": str(tiny_checkpoint)},
        "sft": None,
        "methods": ["sft", {"data": "judged_pairs", "objective": "dpo", "label": "judged"}],
        "judge": {"model": "a-judge", "base_url": "http://127.0.0.1:9/v1", "price": {"input": 1, "output": 1}},
        "budget": {"prompts": 4},
        "evaluators": ["response_stats"],
        "seeds": [0],
        "baseline": "sft",
    }


def context_of(graph: Graph, registry: Registry, folder: Path) -> Context:
    return Context(Store(folder), registry, graph.checkpoints, lambda *progress: None, judges=graph.judges)


def test_the_judge_is_part_of_the_plan_and_its_answers_of_the_store(
    raw: dict[str, Any], registry: Registry, tmp_path: Path
) -> None:
    words = iter(["A", "B", "what?", "A", "no idea"])
    with ScriptedJudge(lambda prompt, times: next(words)).serving() as served:
        raw["judge"] |= {"base_url": served.url, "concurrency": 1}
        graph = plan(resolve(raw, registry))
        (stage,) = [stage for stage in graph if stage.kind == "groups"]
        assert stage.payload["judge"]["model"] == "a-judge"
        context = context_of(graph, registry, tmp_path / "store")
        source = graph.stages[stage.inputs["source"]]
        run_stage(source, context)
        run_stage(stage, context)
        artifact = context.store.open(stage.key)
        assert [group.chosen.text for group in read_groups(artifact)] == ["pear", "fig", "pear"]
        assert artifact.facts["dropped"] == {"the judgment could not be read": 1}
        judge = artifact.facts["judge"]
        assert (judge["judgments"], judge["judge_calls"], judge["unparsed"]) == (4, 5, 1)
        assert sum(served.asked.values()) == 5
        other = replace(context, store=Store(tmp_path / "other"), judges={"data builders": {"model": "other"}})
        run_stage(source, other)
        with pytest.raises(StageError, match="the judge changed from"):
            run_stage(stage, other)


def test_keys_hang_on_the_judge_of_builders_that_ask_one(raw: dict[str, Any], registry: Registry) -> None:
    def keys() -> dict[str, str]:
        return {stage.kind: stage.key for stage in plan(resolve(raw, registry)) if stage.kind in ("groups", "source")}

    before = keys()
    raw["judge"]["model"] = "another"
    assert keys()["groups"] != before["groups"] and keys()["source"] == before["source"]
    raw["judge"]["model"] = "a-judge"
    raw["judge"]["concurrency"] = 3
    assert keys() == before
    raw["methods"][1]["data"] = {"name": "judged_pairs", "judge": {"model": "another"}}
    assert keys()["groups"] != before["groups"]


class Edited(DataBuilder):
    """A sample as it is, one that was edited, one whose text alone is known, and the data's own."""

    name: ClassVar[str] = "edited"

    def build(self, task: BuildTask) -> Iterable[Group]:
        for example, (first, second) in zip(task.examples, task.sample(2), strict=True):
            changed = replace(second, text=second.text + " pear")
            yield Group(example.prompt, Response(example.target or ""), (first, changed, Response("a text of its own")))


class TextAlone(Backend):
    """A server that tells no tokens."""

    name: ClassVar[str] = "text_alone"

    def generate(self, policy: Any, prompts: Any, sampling: Sampling, report: Any = None) -> list[list[Response]]:
        return [[Response(f"pear {number}", tokens=3) for number in range(sampling.n)] for _ in prompts]


class Others:
    @hookimpl
    def harness_data_builders(self) -> list[type[DataBuilder]]:
        return [Edited]

    @hookimpl
    def harness_backends(self) -> list[type[Backend]]:
        return [TextAlone]


@pytest.mark.parametrize(
    ("backend", "builder", "counts"),
    [
        ("transformers", "edited", {"as_sampled": 4, "tokenized_again": 8, "from_dataset": 4}),
        ("text_alone", "edited", {"as_sampled": 0, "tokenized_again": 12, "from_dataset": 4}),
        ("transformers", "spin", {"as_sampled": 4, "tokenized_again": 0, "from_dataset": 4}),
        ("text_alone", "spin", {"as_sampled": 0, "tokenized_again": 4, "from_dataset": 4}),
        ("text_alone", "preference", {"as_sampled": 0, "tokenized_again": 0, "from_dataset": 8}),
    ],
)
def test_responses_are_counted_by_where_their_ids_come_from(
    raw: dict[str, Any], tmp_path: Path, backend: str, builder: str, counts: dict[str, int]
) -> None:
    raw["methods"] = ["sft", {"data": builder, "objective": "dpo", "label": "made"}]
    raw["generation"] = {"backend": {"name": backend}}
    del raw["judge"]
    registry = Registry.load(extra=[Others()])
    graph = plan(resolve(raw, registry))
    context = context_of(graph, registry, tmp_path / "store")
    (stage,) = [stage for stage in graph if stage.kind == "groups"]
    run_stage(graph.stages[stage.inputs["source"]], context)
    run_stage(stage, context)
    artifact = context.store.open(stage.key)
    assert artifact.facts["responses"] == counts
    if (backend, builder) == ("transformers", "spin"):
        assert all(group.rejected[0].ids and group.chosen.ids is None for group in read_groups(artifact))
        _trains_on_what_was_sampled(context, stage.inputs["policy"], read_groups(artifact))


def _trains_on_what_was_sampled(context: Context, model: str, groups: list[Group]) -> None:
    template = ChatTemplate(context.load_tokenizer(model))
    for group, tokens in zip(groups, tokenize(groups, template, DPO()), strict=True):
        assert tokens.responses[1] == group.rejected[0].ids


def test_a_judged_builder_needs_a_judge(raw: dict[str, Any], registry: Registry) -> None:
    raw["methods"][1]["data"] = {"name": "judged_pairs", "judge": {"concurrency": 0}}
    with pytest.raises(ConfigError, match=r"methods\.1\.data\.judge\.concurrency = 0"):
        resolve(raw, registry)
    del raw["judge"]
    with pytest.raises(ConfigError, match="'judged_pairs' asks a judge: add a section"):
        resolve(raw, registry)
