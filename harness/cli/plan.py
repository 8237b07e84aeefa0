"""`harness plan`: check a config and count its stages without running them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import (
    ConfigArgument,
    JsonOption,
    MethodsOption,
    SeedsOption,
    SetOption,
    StoreOption,
    find_config,
    named_origins,
    read_config,
    store_folder,
)

if TYPE_CHECKING:
    from harness.config.schema import Config
    from harness.run.estimates.gpu import GpuReport
    from harness.run.estimates.plan import PlanReport


def register(app: typer.Typer) -> None:
    app.command(
        name="plan",
        epilog="Examples: harness plan configs/quickstart.yaml --json  ·  "
        "harness plan configs/papers/self_contrast.yaml --gpu a100-80gb  ·  harness plan my.yaml --resolved",
    )(plan)


def plan(
    config: ConfigArgument = None,
    set_: SetOption = None,
    methods: MethodsOption = None,
    seeds: SeedsOption = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Estimate tokens, memory and GPU-hours on this GPU, e.g. a100-80gb.", show_default=False
        ),
    ] = None,
    lengths: Annotated[
        str | None,
        typer.Option(
            metavar="PROMPT/RESPONSE",
            help="Tokens of a prompt and a response for --gpu; default: measured on the data, or 256/256 without data.",
            show_default=False,
        ),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Measure this machine first, in about a minute: this and later plans take its rates."),
    ] = False,
    resolved: Annotated[
        bool,
        typer.Option("--resolved", help="Print the whole config instead: parents merged, sweeps and defaults written out."),
    ] = False,
    store: StoreOption = None,
    json_: JsonOption = False,
) -> None:
    """Check a config and show its stages: which rows share them, and which the store already holds.

    Without a network, the plan names what only the hub can answer, and its keys are not final.
    """
    from harness.api.registry import Registry
    from harness.config import resolve_each, resolved_configs
    from harness.models.fetched import cache_folder
    from harness.run.estimates.gpu import gpu_of, parse_lengths
    from harness.run.estimates.measured import Calibration
    from harness.run.estimates.plan import plan_report, reports_of_models
    from harness.run.executors.local import places, visible_gpus

    path, chosen, given = find_config(config), gpu_of(gpu) if gpu else None, parse_lengths(lengths)
    raw = read_config(path, set_, methods, seeds)
    with named_origins(path, set_, methods, seeds):
        comparisons = resolve_each(raw, Registry.load(), str(path), offline=True)
        if resolved:
            _print_config(resolved_configs(comparisons), json_)
            return
        folder, gpus = store_folder(store), visible_gpus()
        cores, calibration = 0 if gpus else places(gpus), Calibration(cache_folder(os.environ), measure)
        reports = [
            plan_report(comparison, folder, chosen, given, str(path), os.environ, cores, places(gpus), calibration)
            for comparison in comparisons
        ]
    if json_:
        typer.echo(json.dumps(reports[0].as_dict() if len(reports) == 1 else reports_of_models(reports)))
        return
    for report in reports:
        print_plan(report)
    if len(reports) > 1:
        counts = reports_of_models(reports)["together"]
        assert isinstance(counts, dict)
        _print_lines([f"together {counts['stages']:,} stages, of which {counts['remaining']:,} remain to run"], "bold")


def _print_config(config: Mapping[str, object], json_: bool) -> None:
    import yaml

    if json_:
        typer.echo(json.dumps(config))
    else:
        # None: the innermost sections and lists on one line each, as in the packaged configs.
        typer.echo(yaml.safe_dump(config, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120), nl=False)


def print_plan(report: PlanReport) -> None:
    """Print the stages by kind, then what is missing, the data, the judges, the disk and the GPU estimate."""
    from harness.config.checks import unused_settings

    comparison = report.comparison
    _print_stages(report)
    _print_lines(report.family_lines(), "dim")
    if report.trials is not None:
        _print_lines([report.trials.line()], "bold")
        _print_lines([f"trials: {estimate.line()}" for estimate in report.trials.judges], "dim")
    _print_lines([report.warning_of_one_seed] if report.warning_of_one_seed else [], "yellow")
    _print_lines(unused_settings(comparison), "yellow")
    unchecked = comparison.unchecked
    _print_lines([f"not checked: {place}: {reason}" for place, reason in unchecked.items()], "yellow")
    if unchecked:
        _print_lines(["without these packages, the keys of this plan are not final, and it says nothing of time"], "yellow")
    if report.data is not None:
        _print_data(report)
    _print_lines([row.line() for row in report.elsewhere], "dim")
    _print_lines([report.states.line()] if report.states else [], "dim")
    _print_lines([estimate.line() for estimate in report.judges], "dim")
    if report.disk is not None and report.disk.peak:
        _print_lines([report.disk.line(report.free)], "yellow" if report.disk.peak > report.free else "dim")
    if report.gpu is not None:
        _print_gpu(report.gpu)
    _print_lines([report.spread.line()] if report.spread else [], "dim")
    if report.most is not None:
        _print_range(report, report.most)
    _print_lacking(report)


def _print_lacking(report: PlanReport) -> None:
    """Print one list of what this machine lacks, last, where it is seen."""
    if not report.lacking:
        return
    keys = " (the keys of this plan are not final)" if report.comparison.unreachable or report.comparison.missing else ""
    things = f"{len(report.lacking)} thing{'s' * (len(report.lacking) > 1)}"
    head = f"This machine lacks {things}, without which `harness compare` refuses to start{keys}:"
    _print_lines([head, *(f"- {message}" for message in report.lacking)], "yellow")


def _print_stages(report: PlanReport) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    graph, present, requests, config = report.graph, report.present, report.requests, report.comparison.config
    start = report.comparison.start
    console.print(
        Text(config.name, style="bold"),
        *([Text(f"· starting model {start}", style="cyan")] if start else []),
        Text(f"· {len(report.comparison.rows)} rows × {_seeds(config)} seeds, baseline {config.baseline}"),
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("kind", "stages", "needed by rows", "in the store"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    for kind in dict.fromkeys(stage.kind for stage in graph):
        keys = [stage.key for stage in graph if stage.kind == kind]
        table.add_row(kind, str(len(keys)), f"{sum(requests[key] for key in keys)}×", str(sum(key in present for key in keys)))
    console.print(table)
    alone = sum(requests.values())
    remain = f"{len(graph)} stages serve {alone} requests; {len(graph) - len(present)} remain to run"
    console.print(Text(f"{remain}{f', {report.cpu.line()}' if report.cpu else ''}.", style="dim"))
    _print_rows(report)


def _print_rows(report: PlanReport) -> None:
    """Print what each row takes as if it ran alone."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from harness.board.views.text import shortened

    table = Table(box=None, pad_edge=False, header_style="dim")
    names = ("row", "kind", "trainings", "stages", "to run", *(("GPU-hours",) if report.gpu else ()))
    for name in names:
        table.add_column(name, justify="left" if name in ("row", "kind") else "right")
    for row in report.rows:
        cells = [str(row.trainings), str(row.stages), str(row.waiting)]
        hours = [] if row.gpu_hours is None else [f"{row.gpu_hours:,.2f}"]
        table.add_row(Text(shortened(row.label, 40)), row.kind, *cells, *hours)
    Console().print(table)


def _seeds(config: Config) -> str:
    least, most = len(config.first_seeds), len(config.possible_seeds)
    return str(least) if config.adds_seeds is None else f"{least} to {most}"


def _print_range(least: PlanReport, most: PlanReport) -> None:
    """Print what the seeds or prompts cost that are added where they decide: the least, planned above, and the most."""
    config = least.comparison.config
    ranges = [
        f"{least.graph.trainings:,} to {most.graph.trainings:,} trainings",
        f"{len(least.graph):,} to {len(most.graph):,} stages",
    ]
    if least.gpu and most.gpu:
        ranges.append(f"{least.gpu.hours:,.1f} to {most.gpu.hours:,.1f} GPU-hours")
    added, count = "seeds", _seeds(config)
    if not config.adds_seeds:
        added, count = "prompts", f"{config.evaluation.first_prompts:,} to {config.evaluation.most:,}"
    _print_lines([f"{count} {added} a row, added where they decide: {', '.join(ranges)}"], "bold")
    judges = [f"with all {added}: {estimate.line()}" for estimate in most.judges]
    _print_lines(judges, "dim")


def _print_data(report: PlanReport) -> None:
    """Print the kept rows by split and the dropped ones by reason; warn of fewer evaluated prompts than the config asks for."""
    from harness.board.views.text import data_lines
    from harness.run.stages.benchmarks import overlap_warnings
    from harness.run.stages.screening import fewer_than_asked

    if report.data is None:
        return
    counts = report.data.counts()
    _print_lines(data_lines(counts.as_json()), "dim")
    if report.data.pairs:
        _print_lines(["`harness plan --json` lists them with the evaluated prompts they match, under data.pairs"], "dim")
    dropped = report.comparison.config.evaluation.contaminated == "drop"
    warnings = overlap_warnings(counts.benchmarks, dropped)
    _print_lines([*fewer_than_asked(report.comparison, counts), *warnings], "yellow")


def _print_gpu(report: GpuReport) -> None:
    """Print the estimate as a table, with its assumptions above and warnings below."""
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
    _print_lines([f"{report.hours:,.1f} GPU-hours, {report.hours_left:,.1f} of them remaining; tokens in millions"], "bold")
    _print_lines(report.warnings(), "yellow")


def _millions(tokens: float) -> str:
    return f"{tokens / 1e6:,.1f}" if tokens else ""


def _print_lines(lines: Sequence[str], style: str) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for line in lines:
        console.print(Text(line, style=style))
