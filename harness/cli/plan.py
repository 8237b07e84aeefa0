"""`harness plan`: what a comparison would do, checked and counted, without doing it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import typer

from harness.cli.options import (
    ConfigArgument,
    JsonOption,
    MethodsOption,
    SeedsOption,
    SetOption,
    StoreOption,
    find_config,
    read_config,
    store_folder,
)


def register(app: typer.Typer) -> None:
    app.command(name="plan", epilog="Example: harness plan configs/quickstart.yaml --json")(plan)


def plan(
    config: ConfigArgument = None,
    set_: SetOption = None,
    methods: MethodsOption = None,
    seeds: SeedsOption = None,
    store: StoreOption = None,
    json_: JsonOption = False,
) -> None:
    """Check a config and show its stages: which rows share them, and which the store already holds."""
    from harness.plan import plan as build
    from harness.registry import Registry
    from harness.resolve import resolve
    from harness.store import MANIFEST, Store

    path = find_config(config)
    comparison = resolve(read_config(path, set_, methods, seeds), Registry.load(), str(path))
    graph = build(comparison)
    folder = store_folder(store)
    kept = Store(folder) if folder.exists() else None
    present = {stage.key for stage in graph if kept and (kept.place(stage.key) / MANIFEST).exists()}
    requests: Counter[str] = Counter(key for row in graph.rows for key in graph.needed_by(row))
    if json_:
        stages = [
            {
                "key": s.key,
                "kind": s.kind,
                "title": s.title,
                "rows": requests[s.key],
                "in_store": s.key in present,
                "inputs": dict(s.inputs),
            }
            for s in graph
        ]
        typer.echo(json.dumps({"name": comparison.config.name, "stages": stages}))
        return
    _print(comparison, graph, present, requests)


def _print(comparison: Any, graph: Any, present: set[str], requests: Counter[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    config = comparison.config
    console.print(
        Text(config.name, style="bold"),
        Text(f"· {len(comparison.variants)} rows × {len(config.seeds)} seeds, baseline {config.baseline}"),
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("kind", "stages", "needed by rows", "in the store"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    for kind in dict.fromkeys(stage.kind for stage in graph):
        keys = [stage.key for stage in graph if stage.kind == kind]
        table.add_row(kind, str(len(keys)), f"{sum(requests[key] for key in keys)}×", str(sum(key in present for key in keys)))
    console.print(table)
    alone = sum(requests.values())
    console.print(
        Text(f"{len(graph)} stages serve {alone} requests; {len(graph) - len(present)} are left to run.", style="dim")
    )
