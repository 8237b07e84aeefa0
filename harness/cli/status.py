"""`harness status`: show a comparison's progress from another terminal."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.options import JsonOption

RUNNING = ("running", "silent")
ENDINGS = {
    "running": "running",
    "finished": "finished",
    "failed": "failed",
    "interrupted": "interrupted; the same command continues it",
    "terminated": "terminated; the same command continues it",
    "killed": "killed: its process is gone; the same command continues it",
    "silent": "running on another machine, but without a heartbeat lately",
}
WATCH_SECONDS = 2.0


def register(app: typer.Typer) -> None:
    app.command(name="status", epilog="Examples: harness status  ·  harness status runs/quickstart --watch")(status)


def status(
    folder: Annotated[
        Path | None, typer.Argument(help="A run's folder; default: the latest under runs/.", show_default=False)
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Repeat every two seconds until the run ends.")] = False,
    json_: JsonOption = False,
) -> None:
    """Show a comparison's progress: what is done, what runs now and what failed; from any terminal that sees the folder."""
    from harness.run.executors.journal import read_status

    place = folder or _latest()
    while True:
        state = read_status(place)
        typer.echo(json.dumps(state) if json_ else _text(state, place))
        if not watch or state["state"] not in RUNNING:
            return
        time.sleep(WATCH_SECONDS)


def _latest() -> Path:
    """Return the folder under runs/ that was written last."""
    from harness.errors import HarnessError

    files = sorted(Path("runs").glob("*/status.json"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise HarnessError("no run under runs/: give the folder of a run, for example: harness status my/run")
    return files[-1].parent


def _text(state: dict[str, Any], folder: Path) -> str:
    from harness.board.views.text import visible

    remaining = f", about {_clock(state['seconds_left'])} left" if "seconds_left" in state else ""
    lines = [
        f"{state['name']} · {ENDINGS.get(state['state'], state['state'])} · {folder}",
        f"{state['done']:,} of {state['stages']:,} stages done, {state['cached']:,} were in the store{remaining}; "
        f"began {state['began']}, last heard {state['updated']}",
    ]
    for stage in state["running"]:
        share = f" {100 * stage['done'] // stage['total']}%" if stage.get("total") else ""
        note = f" · {stage['note']}" if stage.get("note") else ""
        attempt = f" · attempt {stage['attempt']}" if stage.get("attempt", 1) > 1 else ""
        lines.append(f"  {stage['title']}{share}{note}{attempt} · since {stage['since']}")
    lines += [f"  failed: {failed['title']}: {failed['reason']}" for failed in state["failed"]]
    if state.get("note"):
        lines.append(f"  {state['note']}")
    return "\n".join(visible(line) for line in lines)


def _clock(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
