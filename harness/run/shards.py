"""Cut the generations of a graph into shards: stages that each draw a part of the prompts, on whatever worker is free.

A shard is an artifact of its own, so that each is resumed and retried alone. The stage that it is a part of begins when its
shards have ended, puts them together, and draws what a failed one left out; its key and its bytes are those of a graph
without shards. So shards are no part of a plan, of a board or of its evidence: they belong to one run, and `collect` removes
them after it. The range of a shard (which of how many) is in its key: a run with another number of shards draws again what
was in shards alone, not what was put together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from harness.api.interfaces import DataBuilder
from harness.api.registry import Registry
from harness.errors import HarnessError
from harness.run.estimates.gpu import Demand, probe
from harness.run.graph import SERVED, Graph, Stage
from harness.run.records import AnswersInputs, AnswersPayload, GroupsInputs, GroupsPayload, ShardPayload
from harness.run.stages.groups import sample_request

Shards = int | Literal["auto"]  # as `run.shards`
LEAST_PROMPTS = 32  # of a shard, with `auto`: a worker loads the model for it
DRAWING = {"answers": 0.98, "groups": 0.9}  # share of a stage's weight that drawing its responses has


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

    def shards(self, wanted: Shards, workers: int) -> int:
        """Return the number of shards."""
        if wanted == "auto":
            return workers if self.prompts is None else max(1, min(workers, self.prompts // LEAST_PROMPTS))
        return wanted if self.prompts is None else min(wanted, self.prompts)


def with_shards(graph: Graph, present: Set[str], wanted: Shards, workers: int) -> Graph:
    """Return the graph with the generations cut that are to run; the graph itself where nothing is cut.

    Args:
        present: stages that need not run.
        wanted: shards of each generation.
        workers: stages at a time.
    """
    if wanted == 1 or (wanted == "auto" and workers == 1):
        return graph
    return _Cutter(graph, Registry.load()).cut(present, wanted, workers)


@dataclass
class _Cutter:
    graph: Graph
    registry: Registry
    demands: dict[str, Demand] = field(default_factory=dict)

    def cut(self, present: Set[str], wanted: Shards, workers: int) -> Graph:
        asked = {stage.key: list(self._requests(stage)) for stage in self.graph if stage.key not in present}
        # Two builders that ask one policy for samples share them: the larger request has the smaller one's.
        largest: dict[str, int] = {}
        for request in (request for requests in asked.values() for request in requests):
            largest[_place(request)] = max(request.payload.drawn.n, largest.get(_place(request), 0))
        whole = replace(self.graph, stages={})
        for stage in self.graph:
            before = list[str]()
            requests = asked.get(stage.key, [])
            for request in requests:
                count = request.shards(wanted, workers)
                sampling = {**request.payload.sampling, "n": largest[_place(request)]}
                for number in range(count) if count > 1 else ():
                    payload = request.payload.model_copy(update={"sampling": sampling, "number": number, "count": count})
                    title = f"{stage.title} · shard {number + 1} of {count}"
                    weight = DRAWING[stage.kind] * stage.weight / count / len(requests)
                    key = whole.add("shard", title, payload.as_json(), request.inputs.named(), weight=0.0)
                    # A shard of what several stages share has the work that they would have had.
                    whole.stages[key] = replace(whole.stages[key], weight=whole.stages[key].weight + weight)
                    before.append(key)
            if before:
                stage = replace(stage, after=(*stage.after, *before), weight=(1 - DRAWING[stage.kind]) * stage.weight)
            whole.stages[stage.key] = stage
        return whole

    def _requests(self, stage: Stage) -> Iterator[_Request]:
        """Yield what a stage will draw, as far as it is known before it runs."""
        if stage.kind == "answers":
            yield from self._answers(stage)
        elif stage.kind == "groups":
            yield from self._samples(stage)

    def _answers(self, stage: Stage) -> Iterator[_Request]:
        payload, inputs = AnswersPayload.of(stage), AnswersInputs.of(stage)
        if inputs.model.startswith(SERVED):
            return  # one server answers all of it
        prompts = None if payload.prompts is None else payload.prompts - payload.first
        yield _Request(ShardPayload(**payload.as_json(), number=0, count=1), inputs, prompts)

    def _samples(self, stage: Stage) -> Iterator[_Request]:
        payload, inputs = GroupsPayload.of(stage), GroupsInputs.of(stage)
        first, last = payload.examples
        for request, n in self._demand(payload).samples.items():
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
