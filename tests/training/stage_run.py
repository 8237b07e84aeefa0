"""One train stage of SimPO, a step between two checkpoints; as a process of its own, it kills itself at a step.

python stage_run.py STORE CHECKPOINT STEP
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from trl_twin import preference_groups

from harness.api.registry import Registry
from harness.models.checkpoint import Checkpoint
from harness.run.graph import CHECKPOINT, Graph
from harness.run.stages import run_stage
from harness.run.stages.context import Context, Report
from harness.store import Artifact, Store

GROUPS = "a" * 32


def run(folder: Path, checkpoint: Path, report: Report) -> Artifact:
    """Make the stage in a store, from whatever is there of it."""
    store = Store(folder)
    context = Context(store, Registry.load(), {"tiny": Checkpoint(str(checkpoint)).as_dict()}, report, checkpoint_minutes=0)
    if not store.holds(GROUPS):
        with store.draft("groups", GROUPS) as draft:
            draft.write_lines("groups.jsonl", [asdict(group) for group in preference_groups(10)])
    version = context.registry.get("objective", "simpo").component.version
    objective = {"name": "simpo", "version": version, "fields": {}}
    payload = {"objective": objective, "settings": {"prompts_per_batch": 2, "learning_rate": 0.01}, "seed": 0}
    graph = Graph()
    key = graph.add("train", "train", payload, {"groups": GROUPS, "model": f"{CHECKPOINT}tiny"})
    store.sweep()
    run_stage(graph.stages[key], context)
    return store.open(key)


def _kill(done: int, total: int, note: str) -> None:
    if done == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), _kill)
