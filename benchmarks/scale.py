"""What a comparison of ten thousand stages costs before it computes anything, and how well it would be spread.

    python benchmarks/scale.py plan --rows 1250 --seeds 2
    python benchmarks/scale.py schedule --rows 2500 --workers 500 --losses 3 --shards 8 --devices 8
    python benchmarks/scale.py store --artifacts 100000

`plan` resolves and plans a config of that many rows. `schedule` runs its graph in simulated time through the very `Schedule`
that executors ask: durations are the stages' weights times a random factor, an attempt is killed at random somewhere on its
way, nodes are lost, and the makespan is held against the lower bound: the larger of all work (with what was lost) over the
workers there were at first, and the longest way through the graph. `store` makes a store of small artifacts and lists it,
chooses what would go, and removes a tenth. One JSON object a run on standard output; times by the wall and, for machines that
do more beside, of the processor.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.api.registry import Registry
from harness.config import resolve
from harness.run.executors.schedule import ATTEMPTS, Schedule
from harness.run.graph import Graph, Stage
from harness.run.plan import plan
from harness.run.shards import with_shards
from harness.store import MANIFEST, Store
from harness.store.collect import Rules, choose, collect
from harness.store.index import IndexEntry, note

SPREAD = 0.5  # of the logarithm of a duration
NODE = 8  # workers that are lost together
MOST_LINKS = 30_000  # to one file: ext4 allows 65,000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["plan", "schedule", "store"])
    parser.add_argument("--rows", type=int, default=1250, help="rows of the board, each with its own learning rate")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=500)
    parser.add_argument("--failures", type=float, default=0.02, help="share of attempts that are killed")
    parser.add_argument("--losses", type=int, default=0, help=f"nodes of {NODE} workers that are lost for good")
    parser.add_argument("--shards", type=int, default=1, help="of each stage that is no training")
    parser.add_argument("--devices", type=int, default=1, help="of an SFT")
    parser.add_argument("--artifacts", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="for the store; a temporary one if absent")
    options = parser.parse_args()
    if options.what == "store":
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            print(json.dumps(measure_store(Path(folder), options.artifacts)), flush=True)  # to clear up takes long as well
        return
    graph, answer = measure_plan(options.rows, options.seeds, options.devices)
    if options.what == "schedule":
        clock = Clock()
        graph = with_shards(graph, set(), options.shards, options.workers)
        clock.stop("shards")
        answer |= {"shards": len(graph) - answer["stages"], **clock.seconds}
        horizon = 0.9 * sum(stage.weight for stage in graph) / options.workers
        answer |= simulate(graph, options.workers, options.failures, random.Random(0), options.losses, horizon)
    print(json.dumps(answer))


def config(rows: int, seeds: int, devices: int = 1) -> dict[str, Any]:
    """Rows of four builders and one objective, each with a learning rate of its own."""
    builders: list[Any] = ["preference", *({"name": "self_contrast", "samples": count} for count in (8, 16, 32))]
    methods = [
        {
            "label": f"row-{number}",
            "data": builders[number % len(builders)],
            "objective": "dpo",
            "training": {"learning_rate": 1e-6 * (1 + number)},
        }
        for number in range(rows - 1)
    ]
    return {
        "name": "scale",
        "source": "sandbox",
        "model": {"path": "sandbox"},
        "sft": {"devices": devices} if devices > 1 else {},
        "generation": {"backend": {"name": "transformers", "random": "by_response"}},
        "methods": ["sft", *methods],
        "evaluators": ["gold_reward", "preference_accuracy"],
        "seeds": list(range(seeds)),
        "baseline": "sft",
    }


def measure_plan(rows: int, seeds: int, devices: int = 1) -> tuple[Graph, dict[str, Any]]:
    """The graph, and the seconds to check the config and to plan it."""
    registry, raw = Registry.load(), config(rows, seeds, devices)
    clock = Clock()
    comparison = resolve(raw, registry, "benchmark")
    clock.stop("resolve")
    graph = plan(comparison)
    clock.stop("plan")
    Schedule(graph, set())
    clock.stop("schedule")
    return graph, {"rows": rows, "seeds": seeds, "stages": len(graph), **clock.seconds}


def simulate(
    graph: Graph, workers: int, failures: float, rng: random.Random, losses: int = 0, horizon: float = 0.0
) -> dict[str, Any]:
    """A run in simulated time, in units of a stage's weight.

    Args:
        losses: nodes of `NODE` workers that are lost for good, at random times before the horizon; what runs there is killed.
    """
    schedule = Schedule(graph, set(), devices=workers)
    durations = {stage.key: stage.weight * rng.lognormvariate(0, SPREAD) for stage in graph}
    lost_at = sorted(rng.random() * horizon for _ in range(losses))
    running: dict[int, Use] = {}
    ends: list[tuple[float, int]] = []
    free, gone = set(range(workers)), set[int]()
    clock, busy, count, killed = 0.0, 0.0, 0, 0
    start = time.perf_counter()
    while not schedule.done:
        while free and (stage := schedule.take(free=len(free))) is not None:
            held = [free.pop() for _ in range(schedule.needed(stage))]
            dies = rng.random() < failures
            lasts = durations[stage.key] / len(held) * (rng.random() if dies else 1.0)
            count += 1
            running[count] = Use(stage, held, clock, dies)
            heapq.heappush(ends, (clock + lasts, count))
        lost = bool(lost_at) and lost_at[0] < ends[0][0]
        if lost:
            clock = lost_at.pop(0)
            first = rng.choice([number for number in range(0, workers, NODE) if number not in gone])
            node = set(range(first, min(first + NODE, workers)))
            gone |= node
            free -= node
            ended = [number for number, use in running.items() if node & set(use.workers)]
        else:
            clock, number = heapq.heappop(ends)
            ended = [number] if number in running else []
        for number in ended:
            use = running.pop(number)
            free |= set(use.workers) - gone
            busy += len(use.workers) * (clock - use.began)
            killed += use.dies or lost
            if lost:
                schedule.put_back(use.stage)  # the executor does not hold it against the stage
            elif not use.dies:
                schedule.finish(use.stage, None)
            elif not schedule.again(use.stage):
                schedule.finish(use.stage, f"killed {ATTEMPTS} times")
        while ends and ends[0][1] not in running:
            heapq.heappop(ends)
    longest = critical_path(graph, {stage.key: durations[stage.key] / schedule.needed(stage) for stage in graph})
    bound = max(busy / workers, longest)
    return {
        "workers": workers,
        "attempts": count,
        "killed": killed,
        "failed": len(schedule.outcome.failed),
        "skipped": len(schedule.outcome.skipped),
        "workers_lost": len(gone),
        "makespan": round(clock, 2),
        "work_over_workers": round(busy / workers, 2),
        "longest_way": round(longest, 2),
        "makespan_over_bound": round(clock / bound, 3),
        "simulation_seconds": round(time.perf_counter() - start, 2),
    }


@dataclass(frozen=True)
class Use:
    """A stage on its workers, and whether this attempt is killed by itself."""

    stage: Stage
    workers: Sequence[int]
    began: float
    dies: bool


def critical_path(graph: Graph, durations: dict[str, float]) -> float:
    """The longest way through the graph, each stage once."""
    ends: dict[str, float] = {}
    for stage in graph:  # parents first
        before = stage.parents | set(stage.after)
        ends[stage.key] = durations[stage.key] + max((ends[parent] for parent in before), default=0.0)
    return max(ends.values())


def measure_store(folder: Path, count: int) -> dict[str, Any]:
    """Seconds to list a store, to choose what would go, and to remove a tenth of it; of the clock, and of the processor."""
    store = Store(folder / "store")
    clock = Clock()
    make_store(store, count)
    clock.stop("make")
    listed = list(store.entries())
    clock.stop("list")
    needed = {entry.key for entry in listed[count // 10 :]}
    chosen = choose(store, needed, Rules(unused_seconds=0.0))
    clock.stop("choose")
    collect(store, chosen, Rules(unused_seconds=0.0))
    clock.stop("remove")
    return {"artifacts": len(listed), "removed": len(chosen.remove), **clock.seconds}


def make_store(store: Store, count: int) -> None:
    """Artifacts of a manifest alone, as the store lays them. The manifests are links to few files, which saves room and changes
    nothing: they are not read here."""
    rng = random.Random(0)
    content = json.dumps({"kind": "samples", "facts": {}, "seconds": 0.0, "files": {}})
    for number in range(count):
        key = f"{rng.getrandbits(128):032x}"
        place = store.place(key)
        place.mkdir(parents=True)
        if number % MOST_LINKS == 0:
            manifest = place / MANIFEST
            manifest.write_text(content)
        else:
            (place / MANIFEST).hardlink_to(manifest)
        note(store.root, IndexEntry(key, "samples", len(content)))


class Clock:
    """Seconds between stops, by the wall and of this process's own."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter(), time.process_time()

    def stop(self, name: str) -> None:
        now = time.perf_counter(), time.process_time()
        wall, processor = (after - before for after, before in zip(now, self._last, strict=True))
        self.seconds |= {f"{name}_seconds": round(wall, 2), f"{name}_processor_seconds": round(processor, 2)}
        self._last = now


if __name__ == "__main__":
    main()
