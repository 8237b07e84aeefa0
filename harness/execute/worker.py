"""A worker process: stages in on standard input, events out on standard output, as JSON lines.

Whatever a library prints goes to standard error, which the parent keeps in a log. When standard input ends, the parent is
gone, and so is the worker: at once, also in the middle of a stage.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from harness.errors import HarnessError, StoreWriteError
from harness.graph import Stage
from harness.registry import Registry
from harness.stages import run_stage
from harness.stages.context import CHECKPOINT_MINUTES, Context, Report
from harness.stages.quiet import quiet_libraries
from harness.store import Store
from harness.store.mirror import Mirror


def main() -> None:
    """Run stages until the parent sends an empty message or closes the pipe."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    inbox: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(inbox,), daemon=True).start()
    settings = inbox.get()
    quiet_libraries()
    context = make_context(settings, lambda *progress: _progress(out, *progress))
    while message := inbox.get():
        _send(out, attempt(Stage(**message), context))


def make_context(settings: Mapping[str, Any], report: Report) -> Context:
    """A worker's means, from what the executor says."""
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
        gpus=tuple(settings.get("gpus", ())),
    )


def attempt(stage: Stage, context: Context) -> dict[str, Any]:
    """Run a stage; how it ended, with the reason in one line if it failed. Its title and a traceback go to standard error."""
    with contextlib.suppress(OSError):  # where the log is may be full
        print(f"--- {stage.title}", file=sys.stderr, flush=True)
    try:
        run_stage(stage, context)
    except StoreWriteError as error:  # no other stage would fare better
        return {"event": "unwritable", "error": str(error)}
    except HarnessError as error:
        return {"event": "finished", "error": str(error)}
    except Exception as error:  # a plugin or a library failed: the stage fails, the run goes on
        with contextlib.suppress(OSError):
            traceback.print_exc()
            sys.stderr.flush()
        return {"event": "finished", "error": f"{type(error).__name__}: {error} ({_where(error)})"}
    return {"event": "finished", "error": None}


def _where(error: Exception) -> str:
    """The line that raised it, and where the rest of the traceback is."""
    *_, last = traceback.extract_tb(error.__traceback__)
    return f"{Path(last.filename).name}, line {last.lineno}; the traceback is in the run's logs"


def _listen(inbox: queue.Queue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        inbox.put(json.loads(line))
    os._exit(1)


def _progress(out: IO[str], done: int, total: int, note: str) -> None:
    _send(out, {"event": "progress", "done": done, "total": total, "note": note})


def _send(out: IO[str], message: dict[str, Any]) -> None:
    try:
        out.write(json.dumps(message) + "\n")
        out.flush()
    except BrokenPipeError:
        os._exit(1)


if __name__ == "__main__":
    main()
