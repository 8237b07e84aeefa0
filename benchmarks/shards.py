"""A generation in shards on two processes against the same generation in one, one thread each.

    python benchmarks/shards.py                 # 64 prompts x 8 responses on the sandbox's base model, 5 interleaved rounds
    python benchmarks/shards.py --processes 4 --rounds 3 --out benchmarks/results/shards.json

Both sides make the artifact of one `answers` stage in a store of their own, by processes that have their libraries loaded, as
workers have. Each stage reads model and prompts anew, and the sharded side is put together at the end. In every round the
answers must be equal byte for byte. Seconds are by the wall, which other work on the machine lengthens, and of the processor:
for the shards the longest one's and the putting together.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from harness.api.registry import Registry
from harness.api.types import Example, Sampling
from harness.config import describe
from harness.models.checkpoint import Checkpoint, checkpoint_folder
from harness.run.graph import CHECKPOINT, Graph, Stage
from harness.run.shards import with_shards
from harness.run.stages import run_stage
from harness.run.stages.context import Context, quiet_libraries
from harness.sandbox import build_dataset
from harness.store import Store
from harness_plugins.backends import TransformersBackend

SOURCE, MODEL, MAX_TOKENS = "a" * 32, "model", 64


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="sandbox")
    options.add_argument("--prompts", type=int, default=64)
    options.add_argument("--samples", type=int, default=8)
    options.add_argument("--processes", type=int, default=2)
    options.add_argument("--rows", type=int, default=64, help="sequences decoded side by side")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        stores = {name: Path(folder) / name for name in ("whole", "shards")}
        for store in stores.values():
            write_source(store, given.prompts)
        rows = [measure(pool, stores, given, seed) for seed in range(given.rounds + 1)][1:]  # the first loads libraries
    answer = {
        **{name: getattr(given, name) for name in ("model", "prompts", "samples", "processes", "rows", "rounds")},
        "equal_bytes": all(row["equal"] for row in rows),
        "tokens": rows[0]["tokens"],
        "load_average": [round(load, 1) for load in os.getloadavg()],
        **{
            f"{side}_{clock}": round(median(row[side][clock] for row in rows), 2)
            for side in stores
            for clock in ("seconds", "processor_seconds")
        },
        **{
            f"ratio_{clock}": [round(value, 3) for value in sorted(row["shards"][clock] / row["whole"][clock] for row in rows)]
            for clock in ("seconds", "processor_seconds")
        },
    }
    print(json.dumps(answer))
    if given.out:
        given.out.write_text(json.dumps(answer, indent=1) + "\n")


def measure(pool: Any, stores: dict[str, Path], given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Draw one generation on both sides, in turn."""
    graph = planned(given, seed)
    cut = with_shards(graph, set(), given.processes, given.processes)
    (answers,) = graph.stages
    shards = [stage for stage in cut if stage.kind == "shard"]
    row: dict[str, Any] = {}
    for side in sorted(stores, reverse=bool(seed % 2)):
        began = time.perf_counter()
        if side == "whole":
            processor = pool.apply(make, (graph.stages[answers], stores[side], given.model))
        else:
            processor = max(pool.starmap(make, [(shard, stores[side], given.model) for shard in shards], chunksize=1))
            processor += pool.apply(make, (cut.stages[answers], stores[side], given.model))
        row[side] = {"seconds": time.perf_counter() - began, "processor_seconds": processor}
    artifacts = [Store(store).open(answers) for store in stores.values()]
    contents = [(artifact / "answers.jsonl").read_bytes() for artifact in artifacts]
    return {**row, "equal": contents[0] == contents[1], "tokens": artifacts[0].facts["tokens_generated"]}


def planned(given: argparse.Namespace, seed: int) -> Graph:
    """Return one `answers` stage."""
    backend = describe(TransformersBackend(rows_per_batch=given.rows, random="by_response"))
    sampling = asdict(Sampling(given.samples, 1.0, 1.0, MAX_TOKENS, seed))
    graph = Graph()
    payload = {"sampling": sampling, "split": "heldout", "prompts": given.prompts, "backend": backend}
    graph.add("answers", "answers", payload, {"source": SOURCE, "model": CHECKPOINT + MODEL})
    return graph


def write_source(folder: Path, prompts: int) -> None:
    """Write the prompts as a source's stage does."""
    examples: Sequence[Example] = build_dataset({"sft": 1, "train": 1, "tuning": 0, "heldout": prompts}, 0.12, 0)["heldout"]
    with Store(folder).draft("source", SOURCE) as draft:
        draft.write_lines("heldout.jsonl", [asdict(example) for example in examples])
        draft.facts.update({"splits": {"heldout": len(examples)}, "dropped": {}})


def make(stage: Stage, folder: Path, model: str) -> float:
    """Make a stage in this process; return the seconds of its processor."""
    began = time.process_time()
    run_stage(stage, made_context(folder, model))
    return time.process_time() - began


@cache
def made_context(folder: Path, model: str) -> Context:
    """Return the context of all stages that this process makes in a store."""
    quiet_libraries()
    checkpoints = {MODEL: Checkpoint(str(checkpoint_folder(model))).as_dict()}
    return Context(Store(folder), Registry.load(), checkpoints, lambda done, total, note: None)


if __name__ == "__main__":
    main()
