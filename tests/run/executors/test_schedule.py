"""The order of stages: the longest way first, shared samples one at a time, failures downwards only."""

from __future__ import annotations

import heapq
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_compare import tiny_config

from harness.api.registry import Registry
from harness.config import resolve
from harness.run.estimates.makespan import makespan
from harness.run.executors.events import EventFanout, WorkerMessage
from harness.run.executors.local import LocalExecutor
from harness.run.executors.process import Worker
from harness.run.executors.schedule import Schedule, ways_to_go
from harness.run.graph import Graph, Stage
from harness.run.plan import plan
from harness.run.shards import with_shards
from harness.run.stages.devices import visible
from harness_plugins.backends import VllmBackend, VllmServerBackend


def chain(graph: Graph, name: str, length: int, weight: float = 1.0) -> list[str]:
    keys: list[str] = []
    for number in range(length):
        inputs = {"before": keys[-1]} if keys else {}
        keys.append(graph.add("train", f"{name}{number}", {"name": name, "number": number}, inputs, weight=weight))
    return keys


def titles(schedule: Schedule) -> list[str]:
    """The order in which one worker runs all."""
    order = []
    while (stage := schedule.take()) is not None:
        order.append(stage.title)
        schedule.finish(stage, None)
    return order


def test_the_longest_way_goes_first() -> None:
    graph = Graph()
    chain(graph, "short", 2)
    chain(graph, "long", 4)
    chain(graph, "heavy", 1, weight=9)
    assert titles(Schedule(graph, set()))[:3] == ["heavy0", "long0", "long1"]


def test_stages_that_share_samples_run_one_at_a_time() -> None:
    graph = Graph()
    keys = [graph.add("groups", str(number), {"n": number}, {}, shares="samples m") for number in range(2)]
    other = graph.add("groups", "other", {"n": 2}, {}, shares="samples n")
    schedule = Schedule(graph, set())
    taken = [schedule.take() for _ in range(3)]
    assert taken[2] is None
    running = next(stage for stage in taken if stage is not None and stage.key in keys)
    assert {stage.key for stage in taken if stage is not None} == {running.key, other}
    schedule.finish(running, None)
    (second,) = set(keys) - {running.key}
    assert schedule.take() == graph.stages[second]


def test_a_failure_skips_what_needs_it_and_nothing_else() -> None:
    graph = Graph()
    left, right = chain(graph, "left", 3), chain(graph, "right", 2)
    both = graph.add("evaluate", "both", {}, {"a": left[-1], "b": right[-1]})
    schedule = Schedule(graph, set())
    while (stage := schedule.take()) is not None:
        schedule.finish(stage, "no" if stage.key == left[1] else None)
    assert schedule.done
    assert schedule.outcome.failed == {left[1]: "no"}
    assert schedule.outcome.skipped == {left[2]: left[1], both: left[1]}
    assert schedule.outcome.ran == {left[0], *right}


def test_what_is_present_is_not_run() -> None:
    graph = Graph()
    keys = chain(graph, "a", 3)
    assert titles(Schedule(graph, {keys[0], keys[2]})) == ["a1"]


def test_a_killed_stage_has_two_attempts() -> None:
    graph = Graph()
    (key,) = chain(graph, "a", 1)
    schedule = Schedule(graph, set())
    assert schedule.take() == graph.stages[key]
    assert schedule.again(graph.stages[key])
    assert schedule.take() == graph.stages[key]
    assert not schedule.again(graph.stages[key])
    schedule.finish(graph.stages[key], "killed twice")
    assert schedule.done


def test_a_worker_without_a_gpu_takes_what_wants_none() -> None:
    graph = Graph()
    source = graph.add("source", "data", {}, {})
    (model,) = chain(graph, "a", 1, weight=9)
    schedule = Schedule(graph, set())
    assert schedule.take(gpu=False) == graph.stages[source]
    assert schedule.take(gpu=False) is None
    assert schedule.take() == graph.stages[model]


@settings(max_examples=50, deadline=None)
@given(
    edges=st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=60),
    shares=st.lists(st.sampled_from([None, "x", "y"]), min_size=20, max_size=20),
    workers=st.integers(1, 5),
    failing=st.sets(st.integers(0, 19), max_size=3),
)
def test_any_graph_is_run_once_parents_first(
    edges: list[tuple[int, int]], shares: list[str | None], workers: int, failing: set[int]
) -> None:
    graph = Graph()
    keys: list[str] = []
    for number in range(20):
        inputs = {str(a): keys[a] for a, b in edges if b == number and a < number}
        keys.append(graph.add("train", str(number), {"n": number}, inputs, shares=shares[number]))
    schedule, running, done = Schedule(graph, set()), list[Stage](), set[str]()
    while not schedule.done:
        while len(running) < workers and (stage := schedule.take()) is not None:
            assert stage.parents <= done
            running.append(stage)
        shared = [stage.shares for stage in running if stage.shares]
        assert len(set(shared)) == len(shared)
        stage = running.pop(0)
        schedule.finish(stage, "no" if int(stage.title) in failing else None)
        done.add(stage.key)
    outcome = schedule.outcome
    assert len(outcome.ran) + len(outcome.failed) + len(outcome.skipped) == 20
    assert set(outcome.skipped) == {
        key for key in keys if graph.ancestors(key) & outcome.failed.keys() and key not in outcome.failed
    }
    assert max(ways_to_go(graph).values()) >= 1


def mixed(graph: Graph, trainings: int, samplings: int, devices: int) -> Graph:
    """Trainings on several devices, each of two samplings, and samplings of nothing."""
    for number in range(trainings):
        drawn = {
            str(part): graph.add("groups", f"draw {number}.{part}", {"n": [number, part]}, {}, weight=3) for part in range(2)
        }
        graph.add("train", f"train {number}", {"n": number}, drawn, weight=8.0 * devices, devices=devices)
    for number in range(samplings):
        graph.add("answers", f"answer {number}", {"n": number}, {}, weight=1 + number % 3)
    return graph


@pytest.mark.parametrize("devices", [2, 4, 8, 16])
def test_no_two_stages_share_a_device(devices: int) -> None:
    """Eight workers with a made-up GPU each, handed out by the executor itself; one that asks for more than all gets all."""
    graph = mixed(Graph(), 6, 40, devices)
    executor = MadeUp(8)
    outcome = executor.run(graph, set(), EventFanout(()))
    assert outcome.ran == set(graph.stages) and not outcome.stopped
    held: list[tuple[float, float, str]] = []
    for stage, gpus, begin, end in executor.stages:
        assert len(gpus) == len(set(gpus)) == min(8, stage.devices)
        for gpu in gpus:
            assert not [other for other in held if other[2] == gpu and other[0] < end and begin < other[1]], stage.title
            held.append((begin, end, gpu))
    beside = {
        stage.kind
        for training, _, begin, end in executor.stages
        for stage, _, first, last in executor.stages
        if training.kind == "train" and stage is not training and first < end and begin < last
    }
    assert beside >= {"answers", "train"} if devices < 8 else not beside
    # What `harness plan` simulates is what the executor did.
    simulated = makespan(graph, set(), 8)
    assert simulated.length == pytest.approx(max(end for *_, end in executor.stages))
    assert simulated.busy / 8 <= simulated.bound <= simulated.length < 1.2 * simulated.bound


def test_a_stage_on_all_workers_has_the_gpus_of_no_worker_too() -> None:
    graph = Graph()
    graph.add("train", "wide", {}, {}, devices=4)
    graph.add("answers", "narrow", {}, {})
    executor = MadeUp(2, gpus=4)
    executor.run(graph, set(), EventFanout(()))
    assert {stage.title: gpus for stage, gpus, *_ in executor.stages} == {"wide": ["0", "1", "2", "3"], "narrow": ["0"]}


def test_stages_of_an_engine_on_several_gpus_have_them_for_themselves(tiny_checkpoint: Path) -> None:
    comparison = resolve(tiny_config(tiny_checkpoint), Registry.load(), "test")
    comparison = replace(comparison, backend=VllmBackend(tensor_parallel=4))
    graph = plan(comparison)
    assert {(stage.kind, stage.devices) for stage in graph} == {
        *((kind, 1) for kind in ("source", "sft", "groups", "reference", "train", "evaluate")),
        *((kind, 4) for kind in ("answers", "groups")),
    }
    assert {stage.devices for stage in graph if "preference" in stage.title and stage.kind == "groups"} == {1}
    executor, cut = MadeUp(8), with_shards(graph, set(), 2, 8)
    assert executor.run(cut, set(), EventFanout(())).ran == set(cut.stages)
    used = [(gpu, begin, end) for _, gpus, begin, end in executor.stages for gpu in gpus]
    assert {len(gpus) for stage, gpus, *_ in executor.stages if stage.kind in ("answers", "shard")} == {4}
    for gpu, begin, end in used:
        assert not [other for other in used if other[0] == gpu and other[1] < begin < other[2]]
        assert end >= begin


@pytest.mark.parametrize(
    ("arguments", "gpus"),
    [
        ((), 1),
        (("--tensor-parallel-size", "4"), 4),
        (("--tensor-parallel-size=4", "--max-model-len", "4096"), 4),
        (("-tp", "2", "--pipeline_parallel_size", "2"), 4),
        (("--tensor-parallel-size", "8", "-tp", "2"), 2),
    ],
)
def test_a_server_spans_the_gpus_that_its_arguments_give(arguments: tuple[str, ...], gpus: int) -> None:
    assert VllmServerBackend(arguments=arguments).gpus() == gpus


def test_an_engine_sees_all_gpus_of_its_stage_and_the_process_its_own_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(RuntimeError), visible(["3", "5"]):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,5"
        raise RuntimeError
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"


class MadeUp(LocalExecutor):
    """Workers that compute nothing, in simulated time: a stage takes its weight over its devices."""

    def __init__(self, workers: int, gpus: int | None = None) -> None:
        super().__init__(workers, {}, Path("unused"), gpus=[str(number) for number in range(gpus or workers)])
        self.clock = 0.0
        self.stages: list[tuple[Stage, list[str], float, float]] = []
        self.ends: list[tuple[float, int, Worker]] = []

    def _worker(self, number: int) -> Worker:
        worker = Mock(Worker, number=number, gpu=self.gpus[number], stage=None, ready=True, began=0.0)

        def give(stage: Stage, gpus: list[str]) -> None:
            worker.stage, end = stage, self.clock + stage.weight / min(stage.devices, self.width())
            self.stages.append((stage, gpus, self.clock, end))
            heapq.heappush(self.ends, (end, len(self.stages), worker))

        worker.give = give
        return worker

    def _heard(self, workers: Sequence[Worker]) -> tuple[Worker | None, WorkerMessage | None]:
        self.clock, _, worker = heapq.heappop(self.ends)
        return worker, {"event": "finished", "error": None}
