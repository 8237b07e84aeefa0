"""One train stage on two processes, a step between two checkpoints; as a script, it tells their ids and kills itself.

python shared_run.py STORE CHECKPOINT STEP
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from harness.api.registry import Registry
from harness.api.types import Group, Message, Prompt, Response
from harness.models.checkpoint import locate
from harness.run.graph import CHECKPOINT, Graph
from harness.run.stages import run_stage
from harness.run.stages.context import Context, Report
from harness.store import Artifact, Store

GROUPS = "a" * 32
SETTINGS = {"prompts_per_batch": 2, "learning_rate": 0.01}  # 5 steps of 2 groups


def groups() -> list[Group]:
    """Ten, of words that the sandbox's tokenizer knows or spells."""
    return [
        Group(
            Prompt(str(number), (Message("user", f"number {number}"),)),
            Response(f"{number} {number + 1}"),
            (Response(f"{number}"), Response(f"{number + 2} {number} {number}")),
        )
        for number in range(10)
    ]


def run(folder: Path, checkpoint: Path, report: Report, changed: Mapping[str, Any]) -> Artifact:
    """Make the stage in a store, from whatever is there of it, with changed settings."""
    store = Store(folder)
    context = Context(store, Registry.load(), {"tiny": locate(str(checkpoint)).as_dict()}, report, checkpoint_minutes=0)
    if not store.holds(GROUPS):
        with store.draft("groups", GROUPS) as draft:
            draft.write_lines("groups.jsonl", [asdict(group) for group in groups()])
    version = context.registry.get("objective", "simpo").component.version
    objective = {"name": "simpo", "version": version, "fields": {}}
    payload = {"objective": objective, "settings": SETTINGS | changed, "seed": 0}
    graph = Graph()
    key = graph.add("train", "train", payload, {"groups": GROUPS, "model": f"{CHECKPOINT}tiny"})
    store.sweep()
    run_stage(graph.stages[key], context)
    return store.open(key)


def _kill(done: int, total: int, note: str) -> None:
    if done == int(sys.argv[3]):
        print(*(process.pid for process in psutil.Process().children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), _kill, {"devices": {"count": 2, "strategy": "replicated"}})
