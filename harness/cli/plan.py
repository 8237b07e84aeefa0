"""`harness plan`: what a comparison would do, checked and counted, without doing it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import typer

from harness.cli.judge_estimate import JudgeEstimate, judge_estimates
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
    loaded = comparison.source.load()
    data = _screening(comparison, loaded)
    evaluation = comparison.config.evaluation
    judges = judge_estimates(comparison, graph, present, loaded[evaluation.split][: evaluation.prompts])
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
        typer.echo(
            json.dumps(
                {"name": comparison.config.name, "stages": stages, "data": data, "judges": [asdict(item) for item in judges]}
            )
        )
        return
    _print(comparison, graph, present, requests)
    _print_data(data, comparison.config.budget.prompts)
    _print_judges(judges)


def _screening(comparison: Any, loaded: Any) -> dict[str, Any]:
    """What the source gives and what is left out, as the `source` stage will find it; reads the rows, trains nothing."""
    from harness.models.load import load_tokenizer
    from harness.models.prompts import ChatTemplate
    from harness.stages.screening import screen

    limits, checkpoint = comparison.config.limits, comparison.checkpoint
    template = None
    if limits is not None:
        template = ChatTemplate(load_tokenizer(checkpoint.files(weights=False), checkpoint.options))
    return screen(loaded, limits, template)[1].as_dict()


def _print_data(data: dict[str, Any], budget: int) -> None:
    """Rows by split, and every reason with its count; a budget that the training rows cannot fill."""
    from rich.console import Console
    from rich.text import Text

    from harness.leaderboard.text import data_lines

    console = Console()
    for line in data_lines(data):
        console.print(Text(line, style="dim"))
    if data["kept"].get("train", 0) < budget:
        said = f"budget.prompts = {budget}: only {data['kept'].get('train', 0)} training prompts are left; lower it"
        console.print(Text(said, style="yellow"))


def _print_judges(estimates: Sequence[JudgeEstimate]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for estimate in estimates:
        console.print(Text(estimate.line(), style="dim"))


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
