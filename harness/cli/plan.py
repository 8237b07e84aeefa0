"""`harness plan`: what a comparison would do, checked and counted, without doing it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.judge_estimate import judge_estimates
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

if TYPE_CHECKING:
    from harness.cli.gpu_report import GpuReport
    from harness.types import Dataset, Example


def register(app: typer.Typer) -> None:
    app.command(
        name="plan",
        epilog="Examples: harness plan configs/quickstart.yaml --json  ·  "
        "harness plan configs/papers/self_contrast.yaml --gpu a100-80gb",
    )(plan)


def plan(
    config: ConfigArgument = None,
    set_: SetOption = None,
    methods: MethodsOption = None,
    seeds: SeedsOption = None,
    gpu: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Estimate tokens, memory and GPU-hours on it, e.g. a100-80gb.", show_default=False),
    ] = None,
    lengths: Annotated[
        str | None,
        typer.Option(
            metavar="PROMPT/RESPONSE",
            help="Tokens of a prompt and a response for --gpu; else measured on the rows, or 256/256 without them.",
            show_default=False,
        ),
    ] = None,
    store: StoreOption = None,
    json_: JsonOption = False,
) -> None:
    """Check a config and show its stages: which rows share them, and which the store already holds.

    Works without network too: what only the hub can tell is then said to be missing, and the stages' keys are not final.
    """
    from harness.cli.gpu_report import gpu_report, parse_lengths
    from harness.cli.gpus import gpu_of
    from harness.plan import plan as build
    from harness.registry import Registry
    from harness.resolve import resolve
    from harness.store import MANIFEST, Store

    path, chosen, given = find_config(config), gpu_of(gpu) if gpu else None, parse_lengths(lengths)
    comparison = resolve(read_config(path, set_, methods, seeds), Registry.load(), str(path), offline=True)
    graph = build(comparison)
    folder = store_folder(store)
    kept = Store(folder) if folder.exists() else None
    present = {stage.key for stage in graph if kept and (kept.place(stage.key) / MANIFEST).exists()}
    requests: Counter[str] = Counter(key for row in graph.rows for key in graph.needed_by(row))
    loaded, data = _rows(comparison)
    evaluation = comparison.config.evaluation
    judges = judge_estimates(comparison, graph, present, loaded[evaluation.split][: evaluation.prompts]) if loaded else []
    report = gpu_report(comparison, graph, present, chosen, loaded, given) if chosen else None
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
        said: dict[str, Any] = {"name": comparison.config.name, "stages": stages, "data": data}
        said |= {"judges": [asdict(item) for item in judges], "unreachable": dict(comparison.unreachable)}
        typer.echo(json.dumps(said | ({"gpu": report.as_dict()} if report else {})))
        return
    _print(comparison, graph, present, requests)
    _print_lines([f"{message} (the keys of this plan are not final)" for message in comparison.unreachable.values()], "yellow")
    if data is not None:
        _print_data(data, comparison.config.budget.prompts)
    _print_lines([estimate.line() for estimate in judges], "dim")
    if report is not None:
        _print_gpu(report)


def _rows(comparison: Any) -> tuple[Dataset | None, dict[str, Any] | None]:
    """The source's rows as the `source` stage will find them, and what was left out; None where the hub is out of reach."""
    from harness.models.load import load_tokenizer
    from harness.models.prompts import ChatTemplate
    from harness.stages.screening import screen

    limits, checkpoint = comparison.config.limits, comparison.checkpoint
    if "source" in comparison.unreachable or (limits is not None and "model" in comparison.unreachable):
        return None, None
    template, loaded = None, comparison.source.load()
    if limits is not None or (checkpoint is not None and "model" not in comparison.unreachable and _system_turn(loaded)):
        template = ChatTemplate(load_tokenizer(checkpoint.files(weights=False), checkpoint.options))
    if template is not None and (example := _system_turn(loaded)) is not None:
        template.prompt_ids(example.prompt)  # one that the template refuses is told of now, and not by the first stage
    dataset, report = screen(loaded, limits, template)
    return dataset, report.as_dict()


def _system_turn(dataset: Dataset) -> Example | None:
    """The first example that begins with a system turn."""
    examples = (example for rows in dataset.splits.values() for example in rows)
    return next((example for example in examples if example.prompt.messages[0].role == "system"), None)


def _print_gpu(report: GpuReport) -> None:
    """The estimate as a table; what it rests on before, what does not fit after it."""
    from rich.console import Console
    from rich.table import Table

    _print_lines(report.head(), "dim")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("kind", "stages", "trained", "generated", "scored", "GPU-hours", "GiB"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    for work in report.works:
        tokens = [_millions(count) for count in (work.trained, work.generated, work.scored)]
        table.add_row(work.kind, str(work.stages), *tokens, f"{work.hours:,.2f}", f"{work.memory / 2**30:,.0f}")
    Console().print(table)
    _print_lines([f"{report.hours:,.1f} GPU-hours, {report.hours_left:,.1f} of them left; tokens in millions"], "bold")
    _print_lines(report.warnings(), "yellow")


def _millions(tokens: float) -> str:
    return f"{tokens / 1e6:,.1f}" if tokens else ""


def _print_lines(lines: Sequence[str], style: str) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for line in lines:
        console.print(Text(line, style=style))


def _print_data(data: dict[str, Any], budget: int) -> None:
    """Rows by split, and every reason with its count; a budget that the training rows cannot fill."""
    from harness.leaderboard.text import data_lines

    _print_lines(data_lines(data), "dim")
    if data["kept"].get("train", 0) < budget:
        said = f"budget.prompts = {budget}: only {data['kept'].get('train', 0)} training prompts are left; lower it"
        _print_lines([said], "yellow")


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
