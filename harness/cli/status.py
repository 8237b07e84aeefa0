"""`harness status`: how a comparison is, from another terminal."""

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
    "interrupted": "interrupted; the same command goes on from there",
    "terminated": "terminated; the same command goes on from there",
    "killed": "killed: its process is gone; the same command goes on from there",
    "silent": "running on another machine when it was last heard of; nothing since",
}
WATCH_SECONDS = 2.0


def register(app: typer.Typer) -> None:
    app.command(name="status", epilog="Examples: harness status  ·  harness status runs/quickstart --watch")(status)


def status(
    folder: Annotated[
        Path | None, typer.Argument(help="A run's folder; the last run under runs/ if absent.", show_default=False)
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every two seconds until the run ends.")] = False,
    json_: JsonOption = False,
) -> None:
    """Show how far a comparison is, what runs now and what failed; works from any terminal that sees the folder."""
    from harness.run.executors.journal import read_status

    place = folder or _latest()
    while True:
        said = read_status(place)
        typer.echo(json.dumps(said) if json_ else _shown(said, place))
        if not watch or said["state"] not in RUNNING:
            return
        time.sleep(WATCH_SECONDS)


def _latest() -> Path:
    """The folder under runs/ that was written last."""
    from harness.errors import HarnessError

    found = sorted(Path("runs").glob("*/status.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise HarnessError("no run under runs/: give the folder of a run, for example: harness status my/run")
    return found[-1].parent


def _shown(said: dict[str, Any], folder: Path) -> str:
    from harness.board.views.text import visible

    left = f", about {_clock(said['seconds_left'])} left" if "seconds_left" in said else ""
    lines = [
        f"{said['name']} · {ENDINGS.get(said['state'], said['state'])} · {folder}",
        f"{said['done']:,} of {said['stages']:,} stages done, {said['cached']:,} were in the store{left}; "
        f"began {said['began']}, last heard {said['updated']}",
    ]
    for stage in said["running"]:
        share = f" {100 * stage['done'] // stage['total']}%" if stage.get("total") else ""
        note = f" · {stage['note']}" if stage.get("note") else ""
        attempt = f" · attempt {stage['attempt']}" if stage.get("attempt", 1) > 1 else ""
        lines.append(f"  {stage['title']}{share}{note}{attempt} · since {stage['since']}")
    lines += [f"  failed: {failed['title']}: {failed['reason']}" for failed in said["failed"]]
    if said.get("note"):
        lines.append(f"  {said['note']}")
    return "\n".join(visible(line) for line in lines)


def _clock(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
