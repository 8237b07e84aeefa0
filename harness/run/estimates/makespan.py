"""How long a graph takes on several devices: its stages in simulated time, in the very order that executors ask for."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace

from harness.run.executors.schedule import Schedule, wants_gpu
from harness.run.graph import SHARDS, Graph, Stage
from harness.run.shards import Shards, with_shards


@dataclass(frozen=True)
class Makespan:
    """A simulated run, in the unit of the stages' weights.

    Attributes:
        length: from the first stage's start to the last one's end.
        busy: time of devices in which a stage had them.
        longest_way: through the graph, of stages that wait for each other.
    """

    length: float
    busy: float
    longest_way: float
    devices: int

    @property
    def bound(self) -> float:
        """The least that any order takes."""
        return max(self.busy / self.devices, self.longest_way)


@dataclass(frozen=True)
class DeviceUse:
    """The time in which a stage has devices."""

    stage: Stage
    begin: float
    end: float
    devices: int


def makespan(graph: Graph, present: Set[str], devices: int) -> Makespan:
    """Simulate the stages that are not `present`.

    Args:
        graph: a stage's weight is the time that it takes on all its devices together.
    """
    uses = list(simulate(graph, present, devices))
    ends: dict[str, float] = {}
    lasts = {each.stage.key: each.end - each.begin for each in uses}
    for stage in graph:  # parents first
        before = [ends[key] for key in stage.parents | set(stage.after) if key in ends]
        ends[stage.key] = lasts.get(stage.key, 0.0) + max(before, default=0.0)
    return Makespan(
        length=max((each.end for each in uses), default=0.0),
        busy=sum(each.devices * (each.end - each.begin) for each in uses),
        longest_way=max(ends.values(), default=0.0),
        devices=devices,
    )


def simulate(graph: Graph, present: Set[str], devices: int) -> Iterator[DeviceUse]:
    """Yield the stages as they end."""
    schedule, running = Schedule(graph, set(present), devices=devices), list[tuple[float, int, DeviceUse]]()
    clock, free, count = 0.0, devices, 0
    while not schedule.done:
        while free and (stage := schedule.take(free=free)) is not None:
            needed = schedule.needed(stage)
            use = DeviceUse(stage, clock, clock + stage.weight / needed, needed)
            free, count = free - needed, count + 1
            heapq.heappush(running, (use.end, count, use))
        clock, _, use = heapq.heappop(running)
        free += use.devices
        schedule.finish(use.stage, None)
        yield use


def weighted(graph: Graph, seconds: Mapping[str, float]) -> Graph:
    """Return a graph whose stages have these weights; 0 for those without one, and for those that no device waits for."""
    stages = {
        key: replace(stage, weight=seconds.get(key, 0.0) if wants_gpu(stage) else 0.0) for key, stage in graph.stages.items()
    }
    return replace(graph, stages=stages)


@dataclass(frozen=True)
class SpreadEstimate:
    """How the stages that remain spread over devices.

    Attributes:
        cut: stages that are cut into `shards`.
        hours: from the first stage's start to the last one's end; None where the time of stages is not estimated.
        hours_whole: the same without shards.
        busy: share of the devices' time in which a stage has them.
    """

    devices: int
    cut: int
    shards: int
    hours: float | None = None
    hours_whole: float | None = None
    busy: float | None = None

    def line(self) -> str:
        """Return the estimate for people."""
        cut = f"{self.cut:,} stages in {self.shards:,} shards" if self.shards else "no stage in shards"
        if self.hours is None or self.busy is None:
            return f"{cut}, for {self.devices} workers"
        without = f" (without shards {self.hours_whole:,.1f})" if self.shards and self.hours_whole is not None else ""
        return f"on {self.devices} GPUs {self.hours:,.1f} hours{without}, {self.busy:.0%} of their time in use: {cut}"


def spread_estimate(
    graph: Graph, present: Set[str], wanted: Shards, devices: int, hours: Mapping[str, float] | None
) -> SpreadEstimate | None:
    """Return how what remains spreads over several devices; None on one, and where nothing is cut and no time is known.

    Args:
        wanted: `run.shards`.
        hours: GPU-hours of each stage.
    """
    if devices == 1 or len(present) == len(graph):
        return None
    graph = weighted(graph, hours) if hours is not None else graph
    cut = with_shards(graph, present, wanted, devices)
    shards = len(cut) - len(graph)
    stages = sum(any(cut.stages[key].kind in SHARDS for key in stage.after) for stage in cut if stage.kind not in SHARDS)
    if hours is None:
        return SpreadEstimate(devices, stages, shards) if shards else None
    spread = makespan(cut, present, devices)
    busy = spread.busy / devices / spread.length if spread.length else 0.0
    return SpreadEstimate(devices, stages, shards, spread.length, makespan(graph, present, devices).length, busy)
