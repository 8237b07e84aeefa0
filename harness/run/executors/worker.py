"""A worker process: stages in on standard input, events out on standard output, as JSON lines.

Whatever a library prints goes to standard error, which the parent keeps in a log. When standard input ends, the parent is
gone, and so is the worker: at once, also in the middle of a stage.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from harness.api.registry import Registry
from harness.config.problems import quoted
from harness.errors import HarnessError, StoreWriteError, TimeOverError
from harness.models.fetched import cache_folder, use_cache
from harness.run.executors.events import WorkerMessage
from harness.run.graph import Stage
from harness.run.stages import run_stage
from harness.run.stages.context import CHECKPOINT_MINUTES, Context, Report, quiet_libraries
from harness.run.stages.live import Live
from harness.store import Store
from harness.store.mirror import Mirror


def main() -> None:
    """Run stages until the parent sends an empty message or closes the pipe."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    inbox: queue.Queue[Mapping[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(inbox,), daemon=True).start()
    settings = inbox.get()
    if settings.get("libraries", True):
        quiet_libraries()
    live = Live(lambda values: _send(out, {"event": "measured", "values": values}))
    context = functools.cache(lambda: make_context(settings, lambda *progress: _progress(out, *progress), live))
    with contextlib.suppress(Exception):  # ahead of the first stage, which tells what fails here
        context()
    _send(out, {"event": "ready"})
    while message := inbox.get():
        _send(out, attempt(Stage(**message["stage"]), functools.partial(_granted, context, tuple(message["gpus"]))))
        free_gpu()


def _granted(context: Callable[[], Context], gpus: tuple[str, ...]) -> Context:
    """Return the worker's context with the GPUs that the next stage has."""
    return replace(context(), gpus=gpus)


def free_gpu() -> None:
    """Give the memory that PyTorch keeps for later back to the GPU: another worker's stage may use it next."""
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def make_context(settings: Mapping[str, Any], report: Report, live: Live) -> Context:
    """Make a worker's context from the executor's settings."""
    use_cache(cache_folder(os.environ))
    mirror = Mirror(settings["mirror"]) if settings.get("mirror") else None
    return Context(
        Store(Path(settings["store"]), mirror),
        Registry.load(),
        settings["checkpoints"],
        report,
        checkpoint_minutes=settings.get("checkpoint_minutes", CHECKPOINT_MINUTES),
        secret=os.environ.get,
        judges=settings.get("judges", {}),
        run=settings.get("run", "alone"),
        ends_at=settings.get("ends_at"),
        live=live,
    )


def attempt(stage: Stage, context: Callable[[], Context]) -> WorkerMessage:
    """Run a stage with the context that is made for it; how it ended, and why the mirror was left out if it was. Its title
    and a traceback go to standard error.
    """
    with contextlib.suppress(OSError):  # where the log is may be full
        print(f"--- {stage.title}", file=sys.stderr, flush=True)
    mirror: Mirror | None = None
    error: str | None = None
    try:
        ready = context()
        mirror = ready.store.mirror
        ready.live.begin()
        run_stage(stage, ready)
        ready.live.flush()
    except StoreWriteError as unwritable:  # no other stage would fare better
        return {"event": "unwritable", "error": quoted(str(unwritable))}
    except TimeOverError:
        return {"event": "stopped"}
    except HarnessError as mistake:
        error = quoted(str(mistake))
    except Exception as bug:  # a plugin or a library failed: the stage fails, the run goes on
        with contextlib.suppress(OSError):
            print(quoted(traceback.format_exc()), end="", file=sys.stderr, flush=True)
        error = quoted(f"{type(bug).__name__}: {bug} ({_where(bug)})")
    return {"event": "finished", "error": error, "mirror": quoted(mirror.failed) if mirror and mirror.failed else None}


def _where(error: Exception) -> str:
    """Return the line that raised an error, and where the traceback is."""
    *_, last = traceback.extract_tb(error.__traceback__)
    return f"{Path(last.filename).name}, line {last.lineno}; the traceback is in the run's logs"


def _listen(inbox: queue.Queue[Mapping[str, Any]]) -> None:
    for line in sys.stdin:
        inbox.put(json.loads(line))
    os._exit(1)


def _progress(out: IO[str], done: int, total: int, note: str) -> None:
    _send(out, {"event": "progress", "done": done, "total": total, "note": note})


def _send(out: IO[str], message: WorkerMessage) -> None:
    try:
        out.write(json.dumps(message) + "\n")
        out.flush()
    except BrokenPipeError:
        os._exit(1)


if __name__ == "__main__":
    main()
