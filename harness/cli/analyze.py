"""`harness analyze`: run the analyses of papers that plugins register."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from harness.cli import complete
from harness.cli.options import (
    JsonOption,
    SeedsOption,
    SetOption,
    StoreOption,
    find_config,
    named_origins,
    read_config,
    store_folder,
)

if TYPE_CHECKING:
    from harness.api.interfaces import Analysis
    from harness.api.registry import Registry

FEATURES = ("target", "ranked", "gold", "benchmarks")


def register(app: typer.Typer) -> None:
    app.command(
        name="analyze",
        epilog="Examples: harness analyze list  ·  harness analyze data-accuracy negatives-count  ·  "
        "harness analyze all --config my.yaml --out results",
    )(analyze)


def analyze(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...", help="Analyses by name; `all`; or `list` to show them.", autocompletion=complete.analyses
        ),
    ],
    config: Annotated[
        Path | None,
        typer.Option(
            help="The config with the source, model, settings, seeds and learning rates; default: the packaged quickstart.",
            show_default=False,
        ),
    ] = None,
    set_: SetOption = None,
    seeds: SeedsOption = None,
    out: Annotated[Path, typer.Option(help="Folder that gets a folder for each analysis.")] = Path("runs/analyses"),
    store: StoreOption = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes; default: one per GPU, or one per core.", show_default=False)
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Run analyses from papers; write a table, a figure and a page with a verdict on each of the paper's claims.

    Models are trained through the store: artifacts in it are not computed again, and a killed run continues.
    """
    from harness.api.registry import Registry

    registry = Registry.load()
    if names == ["list"]:
        _list(registry, json_)
        return
    chosen = find(names, registry)
    from harness.analysis.context import AnalysisContext, AnalysisOptions
    from harness.analysis.page import outcome, write
    from harness.run.executors.local import places, visible_gpus
    from harness.run.observers import display_here

    path = find_config(config)
    raw = read_config(path, set_, None, seeds)
    gpus = visible_gpus()
    results: dict[str, object] = {}
    for analysis in chosen:
        began, folder = time.monotonic(), out / analysis.name
        options = AnalysisOptions(
            folder / "boards",
            store_folder(store),
            workers or places(gpus),
            gpus=gpus,
            display="lines" if json_ else display_here(),
            secret=os.environ.get,
        )
        with named_origins(path, set_, None, seeds):
            report = AnalysisContext(analysis.name, raw, str(path), options, registry).run(analysis)
        results[analysis.name] = write(analysis, report, folder, _command(analysis, config, set_, seeds, out))
        if not json_:
            spent = time.monotonic() - began
            typer.echo(f"{analysis.name}: {outcome(report)} · {spent:.0f} s · {folder / 'README.md'}")
    if json_:
        typer.echo(json.dumps({"folder": str(out), "analyses": results}))


def find(names: Sequence[str], registry: Registry) -> list[Analysis]:
    """Return the analyses of these names, each once; `all` stands for every analysis.

    Raises:
        PluginError: a name is unknown, or an analysis has a field without a default.
    """
    from pydantic import ValidationError

    from harness.errors import PluginError, did_you_mean

    known = registry.names("analysis")
    wanted = [name for given in names for name in (known if given == "all" else [given])]
    for name in wanted:
        if name not in known:
            raise PluginError(f"no analysis is called {name!r}: {did_you_mean(name, [*known, 'all', 'list'])}")
    analyses: list[Analysis] = []
    for name in dict.fromkeys(wanted):
        entry = registry.get("analysis", name)
        try:
            analyses.append(entry.component())
        except ValidationError as error:
            fields = ", ".join(sorted({str(item["loc"][0]) for item in error.errors() if item["loc"]}))
            raise PluginError(
                f"the analysis {name!r} of {entry.distribution} cannot be created ({fields}): give each field a default"
            ) from error
    return analyses


def _list(registry: Registry, json_: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = [_row(registry.get("analysis", name).component) for name in registry.names("analysis")]
    if json_:
        typer.echo(json.dumps(rows))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("name", "what it answers", "about"):
        table.add_column(name, no_wrap=name != "what it answers", justify="right" if name == "about" else "left")
    for row in rows:
        paper = f"arXiv {row['arxiv']}" if row["arxiv"] else row["paper"]
        origin = ", ".join(filter(None, (paper, row["places"]))) or "no paper"
        origin += f" · needs {', '.join(row['needs']) or 'only prompts'}"
        answer = Text.assemble(row["question"], "\n", (origin, "dim"))
        table.add_row(Text(row["name"], style="bold"), answer, f"{row['minutes']:g} min")
    Console().print(table)


class AnalysisSummary(TypedDict):
    """An analysis as `harness analyze list` shows it; `minutes` on one core."""

    name: str
    question: str
    paper: str
    arxiv: str
    places: str
    needs: list[str]
    minutes: float


def _row(analysis: type[Analysis]) -> AnalysisSummary:
    paper = analysis.paper
    return {
        "name": analysis.name,
        "question": analysis.question,
        "paper": paper.title if paper else "",
        "arxiv": paper.arxiv if paper else "",
        "places": paper.equations if paper else "",
        "needs": [feature for feature in FEATURES if feature in analysis.needs],
        "minutes": analysis.minutes,
    }


def _command(analysis: Analysis, config: Path | None, sets: list[str] | None, seeds: str | None, out: Path) -> str:
    """Return the command that makes the same files again; the store is left out, since it changes no result."""
    words = ["harness", "analyze", analysis.name]
    words += ["--config", str(config)] if config else []
    words += [word for assignment in sets or () for word in ("--set", assignment)]
    words += ["--seeds", seeds] if seeds else []
    return shlex.join([*words, "--out", str(out)])
