"""A board as a table in a terminal."""

from __future__ import annotations

from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.board.board import (
    ONE_SEED,
    Board,
    MetricEntry,
    RowEntry,
)
from harness.board.views.markdown import across_reading, remarks
from harness.board.views.text import duration, number, one_line, p_value, shortened, signed

STYLES = {"better": "green", "worse": "red", "different": "yellow", "unclear": "dim"}
NAME_WIDTH, SHORT_NAME_WIDTH, MEAN_WIDTH, DELTA_WIDTH, TIME_WIDTH, RECIPE_WIDTH = 28, 20, 12, 10, 9, 26
RANK_WIDTH = 8
PADDING = 3


def print_table(board: Board, console: Console, *, explain: bool = True) -> None:
    """Print the ranking within the console's width, what it says, failures and warnings.

    Args:
        explain: with how to read the table, the first place on every metric, and the shared work; without, three sentences.
    """
    console.print()
    console.print(Text(one_line(board.name), style="bold"), Text(one_line(board.description), style="dim"), sep="\n")
    if board.models:
        _print_models(board, console, explain)
        return
    layout = _layout(board, console.width)
    if board.has_one_seed:
        console.print(Text(ONE_SEED, style="bold yellow"))
    console.print(_grid(board, layout))
    console.print(Text(one_line(board.best_in_words), style="bold"))
    places = board.first_places(layout.metrics)
    for sentence in places if explain else places[:1]:
        console.print(Text(one_line(sentence)))
    if board.is_published and not explain:
        console.print(_reading(board, layout))
    else:
        console.print(Text(one_line(board.tuned_alike)))
    if explain:
        console.print(_reading(board, layout))
        if board.sharing:
            console.print(_shared(board))
    for row in board.rows:
        if row.failed:
            console.print(Text.assemble(("✗ ", "red"), (one_line(row.method), "bold"), f" failed: {one_line(row.failed)}"))
    for warning in board.warnings:
        console.print(Text.assemble(("! ", "yellow"), one_line(warning)))


def _print_models(board: Board, console: Console, explain: bool) -> None:
    """Print what carries over between starting models, and the ranking under each."""
    for label, of_model in board.by_model.items():
        console.print()
        console.print(Text.assemble("starting model ", (one_line(label), "bold cyan")))
        console.print(_grid(of_model, _layout(of_model, console.width)))
        console.print(Text(one_line(of_model.summary)))
    console.print()
    console.print(Text(one_line(board.summary), style="bold"))
    for entry in board.across.significant_reversals(board.has_one_seed) if board.across else ():
        sentence = (
            f"{entry.better} is better than {entry.worse} on {entry.metric} from {entry.left}, and worse from {entry.right}"
        )
        console.print(Text(one_line(f"{sentence} ({p_value(entry.p_adjusted)} after correction)."), style="yellow"))
    if explain:
        console.print(Text(one_line(across_reading(board)), style="dim"))
        if board.sharing:
            console.print(_shared(board))
    own = [f"{entry.label}: {text}" for entry in board.models or () for text in entry.warnings]
    failed = [f"{row.method} failed: {row.failed}" for row in board.rows if row.failed]
    for text in (*failed, *board.warnings, *own):
        console.print(Text.assemble(("! ", "yellow"), one_line(text)))


@dataclass(frozen=True)
class _Layout:
    """The columns that fit: the first metrics, and intervals, time and the rows' data and objective if there is room."""

    metrics: tuple[MetricEntry, ...]
    name: int
    intervals: bool
    time: bool
    recipe: bool


def _layout(board: Board, width: int) -> _Layout:
    """Choose the columns. Names are shortened if that makes room for one more metric."""
    longest = max((len(one_line(row.method)) for row in board.rows), default=6) + 2
    name = min(NAME_WIDTH, longest)
    metrics, spare = _fitting(board, width - RANK_WIDTH - name)
    narrow = _fitting(board, width - RANK_WIDTH - min(SHORT_NAME_WIDTH, longest))
    if len(narrow[0]) > len(metrics) or spare < 0:
        (metrics, spare), name = narrow, min(SHORT_NAME_WIDTH, longest)
    time = spare >= TIME_WIDTH + PADDING
    return _Layout(metrics, name, spare >= 0, time, time and spare >= TIME_WIDTH + RECIPE_WIDTH + 2 * PADDING)


def _fitting(board: Board, width: int) -> tuple[tuple[MetricEntry, ...], int]:
    """Return as many metrics as fit, at least one, and the width that remains (negative if the one does not fit)."""
    metrics: list[MetricEntry] = []
    for metric in board.primary:
        needed = max(MEAN_WIDTH, len(board.short_name(metric)) + 2) + DELTA_WIDTH + 2 * PADDING
        if metrics and needed > width:
            break
        metrics.append(metric)
        width -= needed
    return tuple(metrics), width


def _grid(board: Board, layout: _Layout) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", padding=(0, 1))
    grid.add_column("", justify="right", style="dim", width=2)
    grid.add_column("method", width=layout.name, overflow="ellipsis", no_wrap=True)
    if layout.recipe:
        grid.add_column("data → objective", style="dim", max_width=RECIPE_WIDTH, overflow="ellipsis", no_wrap=True)
    for metric in layout.metrics:
        grid.add_column(Text(one_line(board.short_name(metric)) + _arrow(metric)), justify="right", no_wrap=True)
        grid.add_column("Δ", justify="left", no_wrap=True)
    if layout.time:
        grid.add_column("time", justify="right", style="dim", no_wrap=True)
    for place, row in enumerate(board.ranked, start=1):
        grid.add_row("✗" if row.failed else str(place), *_cells(board, row, layout))
    grid.add_section()
    for row in board.references:
        grid.add_row("", *_cells(board, row, layout), style="italic")
    return grid


def _cells(board: Board, row: RowEntry, layout: _Layout) -> list[Text]:
    cells = [_method(board, row, layout.name)]
    if layout.recipe:
        cells.append(Text(one_line(" → ".join(part for part in (row.data, row.objective) if part) or "–")))
    for metric in layout.metrics:
        cells += [_mean(row, metric, layout.intervals), _delta(board, row, metric)]
    if layout.time:
        cells.append(Text("–" if row.cost.seconds is None else duration(row.cost.seconds)))
    return cells


def _method(board: Board, row: RowEntry, width: int) -> Text:
    name = shortened(row.method, width - 2)
    if row.method == board.baseline:
        return Text(f"● {name}", style="bold cyan")
    if row.failed:
        return Text(name, style="red")
    sign = "▣ " if row.is_as_it_is else {"control": "◇ ", "null": "○ ", "published": "¶ ", "imported": "⇣ "}.get(row.kind, "")
    return Text(sign + name, style="magenta" if sign else "")


def _mean(row: RowEntry, metric: MetricEntry, intervals: bool) -> Text:
    score = row.scores.get(metric.key)
    if score is None:
        return Text("failed" if row.failed else "–", style="red" if row.failed else "dim")
    if score.low is None or score.high is None or not intervals:
        return Text(number(score.mean))
    return Text.assemble(number(score.mean), (f" ±{number((score.high - score.low) / 2)}", "dim"))


def _delta(board: Board, row: RowEntry, metric: MetricEntry) -> Text:
    delta = row.delta(metric.key)
    if delta is None:
        return Text("baseline" if row.method == board.baseline else "", style="cyan")
    return Text(f"{signed(delta.mean)} {delta.mark}".rstrip(), style=STYLES[delta.verdict(metric)])


def _reading(board: Board, layout: _Layout) -> Text:
    if board.is_published:
        return Text("Published numbers, not measured here: no intervals, no tests.", style="dim")
    sentence = (
        f"Means ± half a {board.statistics.level:.0%} interval; Δ against the baseline ●. "
        "*, **, ***: p < 0.05, 0.01, 0.001 after correction, where the interval excludes 0 too."
    )
    kinds = {row.kind for row in board.rows}
    floors = [(board.short_name(m), board.noise_floor(m.key)) for m in layout.metrics]
    noise = ", ".join(f"{name} {number(floor)}" for name, floor in floors if floor is not None)
    if noise and board.methods < 2:
        sentence += f" ≈: less than a change of seeds alone could show ({noise}), at the bound of the null row's ○ interval."
    if "control" in kinds:
        sentence += " ◇: a control, which may use what the others may not."
    if kinds & {"checkpoint", "served"}:
        sentence += " ▣: a model from elsewhere, evaluated once as it is: no training seeds, and its cost is not measured here."
    if "published" in kinds:
        sentence += " ¶: published numbers, not measured here."
    hidden = len(board.primary) - len(layout.metrics)
    if hidden:
        sentence += f" {hidden} more primary {'metric' if hidden == 1 else 'metrics'} in board.md."
    sentence += "".join(f" {remark}" for remark in remarks(board))
    return Text(one_line(sentence), style="dim")


def _shared(board: Board) -> Text:
    sharing = board.sharing
    # Artifacts, not stages: samples and similarities that stages ask for are artifacts too.
    sentence = (
        f"The rows needed {sharing.get('stages_requested', '?')} artifacts: the run made {sharing.get('stages_run', '?')}"
    )
    if "stages_reused" in sharing:
        sentence += f"; {sharing['stages_reused']} were shared between rows or taken from the store"
    saved = sharing.get("seconds_saved")
    if isinstance(saved, int | float) and saved > 0:
        sentence += f", which saved {duration(saved)}"
    return Text(one_line(sentence) + ".", style="dim")


def _arrow(metric: MetricEntry) -> str:
    return {True: " ↑", False: " ↓", None: ""}[metric.higher_is_better]
