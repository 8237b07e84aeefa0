"""A stage as a Ray worker makes it. What it is given and what it gives back is JSON."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.run.graph import Stage

REPORT_SECONDS = 0.5  # between two reports of progress


def run_task(stage: dict[str, Any], settings: dict[str, Any], said: Any) -> dict[str, Any]:
    """In a Ray worker: make one stage; how it ended, and what it wrote to its standard streams."""
    from harness.run.executors.output import captured, tail
    from harness.run.executors.worker import attempt, make_context
    from harness.run.stages.quiet import quiet_libraries

    if apart := _apart(settings):
        return apart
    quiet_libraries()
    last = 0.0

    def report(done: int, total: int, note: str) -> None:
        nonlocal last
        if time.monotonic() - last > REPORT_SECONDS:
            last = time.monotonic()
            with contextlib.suppress(Exception):  # nobody hears it: the stage goes on
                said.put_nowait((stage["key"], done, total, note))

    with captured() as written:
        ended = attempt(Stage(**stage), lambda: make_context(settings, report))
        return {**(_apart(settings) or ended), "log": tail(written)}


def _apart(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """What ends the run where this node's store is not the one in which the run put its mark; None where it is."""
    if Path(settings["mark"]).is_dir():
        return None
    fix = "all nodes must see one folder under that path: mount it there, or give another with --store"
    return {
        "event": "unwritable",
        "error": f"the node {platform.node()} does not see the store {settings['store']} of this run; {fix}",
    }
