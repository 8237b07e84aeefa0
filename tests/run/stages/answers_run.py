"""One answers stage of ten prompts in five batches, each kept at once; as a script, it kills itself when so many are done.

python answers_run.py STORE CHECKPOINT DONE
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.api.registry import Registry
from harness.api.types import Example, Prompt, Sampling
from harness.config import describe
from harness.models.checkpoint import Checkpoint
from harness.run.graph import CHECKPOINT, Graph
from harness.run.stages import run_stage
from harness.run.stages.context import Context, Report
from harness.store import Artifact, Store
from harness_plugins.backends import TransformersBackend

SOURCE = "a" * 32
PROMPTS = [Prompt.of(str(number), " ".join(["name a fruit ."] * (1 + number % 4))) for number in range(10)]
SAMPLING = Sampling(n=2, max_tokens=6, seed=3)


def run(folder: Path, checkpoint: Path, report: Report, minutes: float = 0, **changed: Any) -> Artifact:
    """Make the stage in a store, from whatever is there of it, with a changed sampling."""
    store = Store(folder)
    model: Mapping[str, Any] = {"tiny": Checkpoint(str(checkpoint)).as_dict()}
    context = Context(store, Registry.load(), model, report, checkpoint_minutes=minutes)
    if not store.holds(SOURCE):
        with store.draft("source", SOURCE) as draft:
            draft.write_lines("heldout.jsonl", [asdict(Example(prompt)) for prompt in PROMPTS])
            draft.facts.update({"splits": {"heldout": len(PROMPTS)}, "dropped": {}})
    sampling = asdict(SAMPLING) | changed
    backend = describe(TransformersBackend(rows_per_batch=4))
    payload = {"sampling": sampling, "split": "heldout", "prompts": None, "backend": backend}
    graph = Graph()
    key = graph.add("answers", "answers", payload, {"source": SOURCE, "model": f"{CHECKPOINT}tiny"})
    store.sweep()
    run_stage(graph.stages[key], context)
    return store.open(key)


def _kill(done: int, total: int, note: str) -> None:
    if done == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), _kill)
