"""Cut stages of a graph into shards: stages that each do a part of one, on whatever worker is free.

What is cut: responses that are drawn, for answers and data builders; and numbers that are computed, of references, of
evaluators that score and of builders that score or embed. A shard is an artifact of its own, so that each is resumed and
retried alone. The stage that it is a part of begins when its shards have ended, puts them together, and does what a failed
one left out; its key and its bytes are those of a graph without shards. So shards are no part of a plan, of a board or of its
evidence: they belong to one run, and `collect` removes them after it. The range of a shard (which of how many) is in its key:
a run with another number of shards does again what was in shards alone, not what was put together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from harness.api.interfaces import Backend, DataBuilder, Evaluator
from harness.api.registry import Registry
from harness.errors import HarnessError
from harness.run.asked import asks_for_numbers
from harness.run.estimates.gpu import Demand, probe
from harness.run.graph import SERVED, Graph, Stage
from harness.run.records import (
    AnswersInputs,
    AnswersPayload,
    Description,
    EvaluatePayload,
    GroupsInputs,
    GroupsPayload,
    ReferenceInputs,
    ScoringShardPayload,
    ShardPayload,
)
from harness.run.stages.groups import sample_request

Shards = int | Literal["auto"]  # as `run.shards`
# Prompts of a shard, with `auto`, at least: a worker loads the model for it, and drawing takes longer than scoring.
LEAST_DRAWN, LEAST_SCORED = 32, 128
DRAWING = {"answers": 0.98, "groups": 0.9}  # share of a stage's weight that drawing its responses has
SCORING = {"reference": 0.98, "evaluate": 0.95, "groups": 0.08}  # likewise, of what is computed in shards


@dataclass(frozen=True)
class _Request:
    """Responses that a stage would draw.

    Attributes:
        payload: as of one shard with all of them.
        prompts: how many there are; None where only the source's rows say it.
    """

    payload: ShardPayload
    inputs: AnswersInputs
    prompts: int | None


def with_shards(graph: Graph, present: Set[str], wanted: Shards, workers: int) -> Graph:
    """Return the graph with the stages cut that are to run; the graph itself where nothing is cut.

    Args:
        present: stages that need not run.
        wanted: shards of each stage.
        workers: stages at a time.
    """
    if wanted == 1 or (wanted == "auto" and workers == 1):
        return graph
    return _Cutter(graph, Registry.load(), wanted, workers).cut(present)


@dataclass
class _Cutter:
    graph: Graph
    registry: Registry
    wanted: Shards
    workers: int
    demands: dict[str, Demand] = field(default_factory=dict)
    numbers: dict[str, bool] = field(default_factory=dict)  # component -> whether it asks for numbers

    def cut(self, present: Set[str]) -> Graph:
        asked = {stage.key: list(self._requests(stage)) for stage in self.graph if stage.key not in present}
        # Two builders that ask one policy for samples share them: the larger request has the smaller one's.
        largest: dict[str, int] = {}
        for request in (request for requests in asked.values() for request in requests):
            largest[_place(request)] = max(request.payload.drawn.n, largest.get(_place(request), 0))
        whole = replace(self.graph, stages={})
        for stage in self.graph:
            if stage.key not in present:
                stage = self._drawn_in_shards(whole, stage, asked[stage.key], largest)
                stage = self._scored_in_shards(whole, stage)
            whole.stages[stage.key] = stage
        return whole

    def _count(self, prompts: int | None, least: int, devices: int = 1) -> int:
        """Return the number of shards of a stage with so many prompts, each on so many devices."""
        if self.wanted == "auto":
            most = max(1, self.workers // devices)
            return most if prompts is None else max(1, min(most, prompts // least))
        return self.wanted if prompts is None else min(self.wanted, prompts)

    def _drawn_in_shards(self, whole: Graph, stage: Stage, requests: list[_Request], largest: Mapping[str, int]) -> Stage:
        """Add the shards that draw a stage's responses, and return what is left of it."""
        before = list[str]()
        for request in requests:
            count = self._count(request.prompts, LEAST_DRAWN, stage.devices)
            sampling = {**request.payload.sampling, "n": largest[_place(request)]}
            for number in range(count) if count > 1 else ():
                payload = request.payload.model_copy(update={"sampling": sampling, "number": number, "count": count})
                title = f"{stage.title} · shard {number + 1} of {count}"
                weight = DRAWING[stage.kind] * stage.weight / count / len(requests)
                inputs = request.inputs.named()
                key = whole.add("shard", title, payload.as_json(), inputs, weight=0.0, devices=stage.devices)
                # A shard of what several stages share has the work that they would have had.
                whole.stages[key] = replace(whole.stages[key], weight=whole.stages[key].weight + weight)
                before.append(key)
        if not before:
            return stage
        return replace(stage, after=(*stage.after, *before), weight=(1 - DRAWING[stage.kind]) * stage.weight)

    def _scored_in_shards(self, whole: Graph, stage: Stage) -> Stage:
        """Add the shards that compute a stage's numbers, after those that draw its responses, and return what is left of it."""
        if stage.kind not in SCORING or not self._asks_for_numbers(stage):
            return stage
        weight = SCORING[stage.kind] * self.graph.stages[stage.key].weight
        count, payloads = self._count(self._prompts(stage), LEAST_SCORED), list[ScoringShardPayload]()
        for number in range(count) if count > 1 else ():
            kept = {"kind": stage.kind, "key": stage.key, "payload": dict(stage.payload)}
            payloads.append(ScoringShardPayload.model_validate({**kept, "number": number, "count": count}))
        if not payloads:
            return stage
        before = [
            whole.add(
                "scoring_shard",
                f"{stage.title} · scores, shard {payload.number + 1} of {count}",
                payload.as_json(),
                stage.inputs,
                # Two stages that share a request would wait for each other's parts.
                shares=f"{stage.shares} {payload.number} of {count}" if stage.shares else None,
                weight=weight / count,
                after=stage.after,
            )
            for payload in payloads
        ]
        return replace(stage, after=(*stage.after, *before), weight=max(0.0, stage.weight - weight))

    def _asks_for_numbers(self, stage: Stage) -> bool:
        """Whether a stage asks for numbers that shards can compute."""
        if stage.kind == "reference":
            return True
        if stage.kind == "evaluate":
            if stage.inputs["model"].startswith(SERVED):
                return False
            return self._component_asks("evaluator", EvaluatePayload.of(stage).evaluator)
        return self._component_asks("data", GroupsPayload.of(stage).builder)

    def _component_asks(self, kind: Literal["evaluator", "data"], described: Description) -> bool:
        """Return what a component does on a scripted task; each is tried once."""
        place = f"{kind} {described.name} {described.fields}"
        if place not in self.numbers:
            cls: type[Evaluator | DataBuilder] = self.registry.get(kind, described.name).component
            try:
                self.numbers[place] = asks_for_numbers(cls(**described.fields))
            except HarnessError:
                self.numbers[place] = False
        return self.numbers[place]

    def _prompts(self, stage: Stage) -> int | None:
        """Return how many prompts a stage scores; None where only the source's rows say it."""
        if stage.kind == "evaluate":
            payload = EvaluatePayload.of(stage)
            return None if payload.prompts is None else payload.prompts - payload.first
        groups = stage if stage.kind == "groups" else self.graph.stages[ReferenceInputs.of(stage).groups]
        first, last = GroupsPayload.of(groups).examples
        return last - first

    def _requests(self, stage: Stage) -> Iterator[_Request]:
        """Yield what a stage will draw, as far as it is known before it runs."""
        if stage.kind == "answers":
            yield from self._answers(stage)
        elif stage.kind == "groups":
            yield from self._samples(stage)

    def _answers(self, stage: Stage) -> Iterator[_Request]:
        payload, inputs = AnswersPayload.of(stage), AnswersInputs.of(stage)
        # One server answers all of it.
        if not inputs.model.startswith(SERVED) and self._draws_apart(payload.backend):
            prompts = None if payload.prompts is None else payload.prompts - payload.first
            yield _Request(ShardPayload(**payload.as_json(), number=0, count=1), inputs, prompts)

    def _samples(self, stage: Stage) -> Iterator[_Request]:
        payload, inputs = GroupsPayload.of(stage), GroupsInputs.of(stage)
        first, last = payload.examples
        for request, n in self._demand(payload).samples.items() if self._draws_apart(payload.backend) else ():
            kind, *given = request
            if kind != "sample":
                continue  # what is asked for depends on earlier answers
            asked = dict(given)
            model = inputs.start if asked.pop("policy", "current") == "start" else inputs.policy
            sampling = sample_request(payload.seed, payload.max_tokens, int(n), **asked)
            shard = ShardPayload(
                split="train",
                first=first,
                prompts=last,
                backend=payload.backend,
                sampling=asdict(sampling),
                number=0,
                count=1,
                blocks=True,
                **({"prefix": asked["prefix"]} if asked.get("prefix") else {}),
            )
            yield _Request(shard, AnswersInputs(inputs.source, model), last - first)

    def _draws_apart(self, described: Description) -> bool:
        """Whether parts of a generation can be drawn on their own."""
        backend: Backend = self.registry.get("backend", described.name).component(**described.fields)
        return backend.draws_apart()

    def _demand(self, payload: GroupsPayload) -> Demand:
        """Return what a builder asks for; each is tried once, on a scripted policy."""
        place = f"{payload.builder.name} {payload.builder.fields} {payload.round}"
        if place not in self.demands:
            cls: type[DataBuilder] = self.registry.get("data", payload.builder.name).component
            try:
                self.demands[place] = probe(cls(**payload.builder.fields), payload.round)
            except HarnessError:
                self.demands[place] = Demand(known=False)
        return self.demands[place]


def _place(request: _Request) -> str:
    """Return what two requests share whose samples begin alike; no two requests for answers do."""
    sampling: Mapping[str, object] = request.payload.sampling
    kept = {**sampling, "n": 0} if request.payload.blocks else sampling
    return repr((request.inputs, request.payload.model_copy(update={"sampling": kept}).as_json()))
