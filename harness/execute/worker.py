"""A worker process: stages in on standard input, events out on standard output, as JSON lines.

Whatever a library prints goes to standard error, which the parent keeps in a log. When standard input ends, the parent is
gone, and so is the worker: at once, also in the middle of a stage.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
import traceback
from pathlib import Path
from typing import IO, Any

from harness.errors import HarnessError
from harness.graph import Stage
from harness.registry import Registry
from harness.stages import run_stage
from harness.stages.context import Context
from harness.store import Store


def main() -> None:
    """Run stages until the parent sends an empty message or closes the pipe."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    inbox: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(inbox,), daemon=True).start()
    settings = inbox.get()
    quiet_libraries()
    context = Context(
        Store(Path(settings["store"])), Registry.load(), settings["checkpoints"], lambda *progress: _progress(out, *progress)
    )
    while message := inbox.get():
        _send(out, {"event": "finished", "error": attempt(Stage(**message), context)})


def attempt(stage: Stage, context: Context) -> str | None:
    """Run a stage; the reason in one line if it failed. The traceback goes to standard error."""
    try:
        run_stage(stage, context)
    except HarnessError as error:
        return str(error)
    except Exception as error:  # a plugin or a library failed: the stage fails, the run goes on
        print(f"--- {stage.title}", file=sys.stderr)
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    return None


def quiet_libraries() -> None:
    """One thread, deterministic algorithms, no bars and no chatter from the libraries."""
    import datasets
    import torch
    import transformers

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)


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
