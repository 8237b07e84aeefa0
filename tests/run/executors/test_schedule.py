"""The order of stages: the longest way first, shared samples one at a time, failures downwards only."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.run.executors.schedule import Schedule, ways_to_go
from harness.run.graph import Graph, Stage


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
