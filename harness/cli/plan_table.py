"""What `harness plan` says, on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.run.estimates.gpu_report import GpuReport
    from harness.run.estimates.plan import PlanReport


def print_plan(report: PlanReport) -> None:
    """Stages by kind, then what is missing, the data, the judges and the GPU."""
    comparison = report.comparison
    _print_stages(report)
    _print_lines([f"{message} (the keys of this plan are not final)" for message in comparison.unreachable.values()], "yellow")
    if report.data is not None:
        _print_data(report)
    _print_lines([estimate.line() for estimate in report.judges], "dim")
    if report.gpu is not None:
        _print_gpu(report.gpu)


def _print_stages(report: PlanReport) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    graph, present, requests, config = report.graph, report.present, report.requests, report.comparison.config
    console.print(
        Text(config.name, style="bold"),
        Text(f"· {len(report.comparison.variants)} rows × {len(config.seeds)} seeds, baseline {config.baseline}"),
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


def _print_data(report: PlanReport) -> None:
    """Rows by split, and every reason with its count; fewer evaluated prompts than the config asks for."""
    from harness.board.views.text import data_lines
    from harness.run.stages.benchmarks import overlap_warnings
    from harness.run.stages.screening import fewer_than_asked

    data = report.data or {}
    _print_lines(data_lines(data), "dim")
    if data.get("pairs"):
        _print_lines(["`harness plan --json` shows them beside the evaluated ones, under data.pairs"], "dim")
    dropped = report.comparison.config.evaluation.contaminated == "drop"
    warnings = overlap_warnings(data.get("benchmarks", {}), dropped)
    _print_lines([*fewer_than_asked(report.comparison, data), *warnings], "yellow")


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
