"""One of the processes that share a stage's training: an order in on standard input, events out on standard output.

As a worker it ends at once when standard input does. The first process reports and writes; the others compute.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from harness.api.registry import Registry
from harness.errors import HarnessError, StageError, TimeOverError
from harness.run.executors.events import LiveValues, WorkerMessage
from harness.run.graph import Stage
from harness.run.stages.context import Context, quiet_libraries
from harness.run.stages.live import Live
from harness.store import ArtifactDraft, Store

PATIENCE = timedelta(hours=12)  # for the others: a process that dies ends them all long before


def main() -> None:
    """Take the order, do it with the others, say how it ended."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    inbox: queue.Queue[Mapping[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(inbox,), daemon=True).start()
    order = inbox.get()
    quiet_libraries()
    _send(out, _attempt(order, out))
    os._exit(0)  # what libraries do at the end of a process may wait for processes that are gone


def _attempt(order: Mapping[str, Any], out: IO[str]) -> WorkerMessage:
    """Run the stage, and return its facts, or the reason in one line and whether it is the harness's own."""
    draft = ArtifactDraft(Path(order["draft"]))
    try:
        _run(order, draft, out)
    except TimeOverError:
        return {"event": "stopped"}
    except HarnessError as error:
        return {"event": "finished", "error": str(error), "ours": True}
    except Exception as error:  # a plugin or a library failed
        print(f"--- {order['stage']['title']}, process {order['rank']}", file=sys.stderr)
        traceback.print_exc()
        return {"event": "finished", "error": f"{type(error).__name__}: {error}", "ours": False}
    return {
        "event": "finished",
        "error": None,
        "facts": draft.facts,
        "earlier_seconds": draft.earlier_seconds,
        "stands_for": draft.stands_for,
    }


def _run(order: Mapping[str, Any], draft: ArtifactDraft, out: IO[str]) -> None:
    from harness.run.stages import RUNNERS

    stage = Stage(**order["stage"])
    _join(order)
    context = Context(
        Store(Path(order["store"])),
        Registry.load(),
        order["checkpoints"],
        lambda *progress: _report(out, order["rank"], *progress),
        checkpoint_minutes=order["checkpoint_minutes"],
        ends_at=order["ends_at"],
        common_scratch=Path(order["scratch"]),
        live=Live(lambda values: _measured(out, order["rank"], values)),
    )
    RUNNERS[stage.kind](stage, context, draft)
    context.live.flush()


def _join(order: Mapping[str, Any]) -> None:
    """Meet the others, through a file: no port to find, and no server that others could talk to."""
    import torch
    from torch import distributed

    rank, count = order["rank"], order["count"]
    backend = "gloo"
    if torch.cuda.is_available():
        if torch.cuda.device_count() < count:
            raise StageError(
                f"training.devices.count = {count}, but {torch.cuda.device_count()} GPUs are visible to this process: "
                "lower it, or raise CUDA_VISIBLE_DEVICES"
            )
        torch.cuda.set_device(rank)
        backend = "cpu:gloo,cuda:nccl"
    meeting = Path(order["scratch"]) / "meeting"
    distributed.init_process_group(backend, init_method=f"file://{meeting}", rank=rank, world_size=count, timeout=PATIENCE)


def _listen(inbox: queue.Queue[Mapping[str, Any]]) -> None:
    for line in sys.stdin:
        inbox.put(json.loads(line))
    os._exit(1)


def _report(out: IO[str], rank: int, done: int, total: int, note: str) -> None:
    if rank == 0:
        _send(out, {"event": "progress", "done": done, "total": total, "note": note})


def _measured(out: IO[str], rank: int, values: LiveValues) -> None:
    if rank == 0:
        _send(out, {"event": "measured", "values": values})


def _send(out: IO[str], message: WorkerMessage) -> None:
    try:
        out.write(json.dumps(message) + "\n")
        out.flush()
    except BrokenPipeError:
        os._exit(1)


if __name__ == "__main__":
    main()
