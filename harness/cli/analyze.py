"""`harness analyze`: the papers' own analyses."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import JsonOption, SeedsOption, SetOption, StoreOption, find_config, read_config, store_folder

if TYPE_CHECKING:
    from harness.analysis.catalogue import Analysis


def register(app: typer.Typer) -> None:
    app.command(
        name="analyze",
        epilog="Examples: harness analyze list  ·  harness analyze data-accuracy negatives-count  ·  "
        "harness analyze all --config my.yaml --out results",
    )(analyze)


def analyze(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Analyses by name; `all`; or `list` to show them.")],
    config: Annotated[
        Path | None,
        typer.Option(
            help="Whose source, model, settings, seeds and learning rates to use; the packaged quickstart if absent.",
            show_default=False,
        ),
    ] = None,
    set_: SetOption = None,
    seeds: SeedsOption = None,
    out: Annotated[Path, typer.Option(help="Folder in which every analysis gets one of its own.")] = Path("runs/analyses"),
    store: StoreOption = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes; one per GPU, or one per core, if absent.", show_default=False)
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Run the papers' own analyses; write a table, a figure and a page that says whether the numbers agree with the paper.

    Trained rows are comparisons through the store: what is there is not computed again, and a run that was killed goes on.
    """
    from harness.analysis.catalogue import find
    from harness.analysis.lab import Lab, Means
    from harness.analysis.page import outcome, write
    from harness.execute.machine import places, visible_gpus

    if names == ["list"]:
        _list(json_)
        return
    chosen = find(names)
    path = find_config(config)
    raw = read_config(path, set_, None, seeds)
    gpus = visible_gpus()
    results: dict[str, Any] = {}
    for analysis in chosen:
        began, folder = time.monotonic(), out / analysis.name
        means = Means(
            folder / "boards",
            store_folder(store),
            workers or places(gpus),
            gpus=gpus,
            interactive=sys.stderr.isatty() and not json_,
            secret=os.environ.get,
        )
        report = analysis.run(Lab(analysis.name, raw, str(path), means))
        results[analysis.name] = write(analysis, report, folder, _command(analysis, config, set_, seeds, out))
        if not json_:
            spent = time.monotonic() - began
            typer.echo(f"{analysis.name}: {outcome(report)} · {spent:.0f} s · {folder / 'README.md'}")
    if json_:
        typer.echo(json.dumps({"folder": str(out), "analyses": results}))


def _list(json_: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from harness.analysis.catalogue import ANALYSES

    if json_:
        typer.echo(json.dumps([_row(analysis) for analysis in ANALYSES]))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("name", "what it answers", "about"):
        table.add_column(name, no_wrap=name != "what it answers", justify="right" if name == "about" else "left")
    for row in map(_row, ANALYSES):
        origin = f"arXiv {row['arxiv']}, {row['places']} · needs {', '.join(row['needs'])}"
        what = Text.assemble(row["question"], "\n", (origin, "dim"))
        table.add_row(Text(row["name"], style="bold"), what, f"{row['minutes']:g} min")
    Console().print(table)


def _row(analysis: Analysis) -> dict[str, Any]:
    return {
        "name": analysis.name,
        "question": analysis.question,
        "paper": analysis.paper.title,
        "arxiv": analysis.paper.arxiv,
        "places": analysis.places,
        "needs": list(analysis.needs),
        "minutes": analysis.minutes,
    }


def _command(analysis: Analysis, config: Path | None, sets: list[str] | None, seeds: str | None, out: Path) -> str:
    """What makes the same files again, wherever the store is."""
    words = ["harness", "analyze", analysis.name]
    words += ["--config", str(config)] if config else []
    words += [word for assignment in sets or () for word in ("--set", assignment)]
    words += ["--seeds", seeds] if seeds else []
    return shlex.join([*words, "--out", str(out)])
