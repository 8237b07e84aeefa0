"""What a comparison of ten thousand stages costs before it computes anything, and how well it would be spread.

    python benchmarks/scale.py plan --rows 1250 --seeds 2
    python benchmarks/scale.py schedule --workers 500 --failures 0.02
    python benchmarks/scale.py store --artifacts 100000

`plan` resolves and plans a config of that many rows. `schedule` runs its graph in simulated time through the very `Schedule`
that executors ask: durations are the stages' weights times a random factor, an attempt is killed at random somewhere on its
way, and the makespan is held against the lower bound: the larger of all work (with what was lost) over the workers, and the
longest way through the graph. `store` makes a store of small artifacts and lists it, chooses what would go, and removes a
tenth. One JSON object a run on standard output; times by the wall and, for machines that do more beside, of the processor.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.api.registry import Registry
from harness.config import resolve
from harness.run.executors.schedule import ATTEMPTS, Schedule
from harness.run.graph import Graph, Stage
from harness.run.plan import plan
from harness.store import MANIFEST, Store
from harness.store.collect import Rules, choose, collect
from harness.store.index import IndexEntry, note

SPREAD = 0.5  # of the logarithm of a duration
MOST_LINKS = 30_000  # to one file: ext4 allows 65,000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["plan", "schedule", "store"])
    parser.add_argument("--rows", type=int, default=1250, help="rows of the board, each with its own learning rate")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=500)
    parser.add_argument("--failures", type=float, default=0.02, help="share of attempts that are killed")
    parser.add_argument("--artifacts", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="for the store; a temporary one if absent")
    options = parser.parse_args()
    if options.what == "store":
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            print(json.dumps(measure_store(Path(folder), options.artifacts)), flush=True)  # to clear up takes long as well
        return
    graph, answer = measure_plan(options.rows, options.seeds)
    if options.what == "schedule":
        answer |= simulate(graph, options.workers, options.failures, random.Random(0))
    print(json.dumps(answer))


def config(rows: int, seeds: int) -> dict[str, Any]:
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
        "methods": ["sft", *methods],
        "evaluators": ["gold_reward", "preference_accuracy"],
        "seeds": list(range(seeds)),
        "baseline": "sft",
    }


def measure_plan(rows: int, seeds: int) -> tuple[Graph, dict[str, Any]]:
    """The graph, and the seconds to check the config and to plan it."""
    registry, raw = Registry.load(), config(rows, seeds)
    clock = Clock()
    comparison = resolve(raw, registry, "benchmark")
    clock.stop("resolve")
    graph = plan(comparison)
    clock.stop("plan")
    Schedule(graph, set())
    clock.stop("schedule")
    return graph, {"rows": rows, "seeds": seeds, "stages": len(graph), **clock.seconds}


def simulate(graph: Graph, workers: int, failures: float, rng: random.Random) -> dict[str, Any]:
    """A run in simulated time, in units of a stage's weight."""
    schedule = Schedule(graph, set())
    durations = {stage.key: stage.weight * rng.lognormvariate(0, SPREAD) for stage in graph}
    ends: list[tuple[float, int, Stage, bool]] = []
    clock, busy, count, killed = 0.0, 0.0, 0, 0
    start = time.perf_counter()
    while not schedule.done:
        while len(ends) < workers and (stage := schedule.take()) is not None:
            dies = rng.random() < failures
            lasts = durations[stage.key] * (rng.random() if dies else 1.0)
            busy, count = busy + lasts, count + 1
            heapq.heappush(ends, (clock + lasts, count, stage, dies))
        clock, _, stage, died = heapq.heappop(ends)
        killed += died
        if not died:
            schedule.finish(stage, None)
        elif not schedule.again(stage):
            schedule.finish(stage, f"killed {ATTEMPTS} times")
    longest = critical_path(graph, durations)
    bound = max(busy / workers, longest)
    return {
        "workers": workers,
        "attempts": count,
        "killed": killed,
        "failed": len(schedule.outcome.failed),
        "skipped": len(schedule.outcome.skipped),
        "makespan": round(clock, 2),
        "work_over_workers": round(busy / workers, 2),
        "longest_way": round(longest, 2),
        "makespan_over_bound": round(clock / bound, 3),
        "simulation_seconds": round(time.perf_counter() - start, 2),
    }


def critical_path(graph: Graph, durations: dict[str, float]) -> float:
    """The longest way through the graph, each stage once."""
    ends: dict[str, float] = {}
    for stage in graph:  # parents first
        ends[stage.key] = durations[stage.key] + max((ends[parent] for parent in stage.parents), default=0.0)
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
