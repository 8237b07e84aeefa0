"""A board in a notebook or a script: as a data frame, as a figure, as a cell's output."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from markupsafe import Markup

from harness.board.board import Board, MetricEntry, write_text
from harness.board.views.figures import forest, frontier
from harness.board.views.markdown import rows_by_model
from harness.board.views.text import number, one_line, signed
from harness.errors import HarnessError, did_you_mean
from harness.extras import require

if TYPE_CHECKING:
    import pandas as pd

Picture = Literal["differences", "cost"]


@dataclass(frozen=True)
class Plot:
    """A figure as SVG, which notebooks show by themselves."""

    svg: str

    def save(self, path: str | Path) -> Path:
        """Write it as an SVG file, whole or not at all; return its path."""
        return write_text(Path(path), self.svg + "\n")

    def _repr_html_(self) -> str:
        return self.svg

    def _repr_svg_(self) -> str:
        return self.svg


def to_pandas(board: Board) -> pd.DataFrame:
    """Return one line per row and metric; values that the board lacks are NaN.

    Columns: method, kind, data, objective, rounds, metric, primary, higher_is_better, mean, low, high, n, delta, delta_low,
    delta_high, p, p_adjusted (of the difference to the baseline), seconds, tokens_trained, tokens_generated, failed; and first
    the model, where the board has several starting models.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    require("pandas")
    import pandas as pd

    lines = []
    for row, model in rows_by_model(board):
        of_model = {} if model is None else {"model": model}
        of_row = {
            **of_model,
            "method": row.method,
            "kind": row.kind,
            "data": row.data,
            "objective": row.objective,
            "rounds": row.rounds,
        }
        cost = row.cost.model_dump(include={"seconds", "tokens_trained", "tokens_generated"})
        for metric in board.metrics if row.scores else ():
            if (score := row.scores.get(metric.key)) is None:
                continue
            delta = score.delta
            lines.append(
                {
                    **of_row,
                    "metric": metric.key,
                    "primary": metric.primary,
                    "higher_is_better": metric.higher_is_better,
                    **{"mean": score.mean, "low": score.low, "high": score.high, "n": score.n},
                    "delta": delta and delta.mean,
                    "delta_low": delta and delta.low,
                    "delta_high": delta and delta.high,
                    "p": delta and delta.p,
                    "p_adjusted": delta and delta.p_adjusted,
                    **cost,
                    "failed": row.failed,
                }
            )
        if not row.scores:
            lines.append({**of_row, **cost, "failed": row.failed})
    return pd.DataFrame(lines)


def plot(board: Board, metric: str | None = None, picture: Picture = "differences") -> Plot:
    """Draw a metric's differences from the baseline with their intervals, or the metric against the cost.

    Args:
        metric: its key, `<evaluator>/<metric>`; default: the first primary metric.

    Raises:
        HarnessError: the board has no such metric, or too few rows have it.
    """
    entry = _metric(board, metric)
    drawn = forest(board, entry) if picture == "differences" else frontier(board, entry)
    if drawn is None:
        raise HarnessError(f"metric = {entry.key!r}: too few rows have it for a figure; choose another")
    style = resources.files("harness.board.views").joinpath("web", "picture.css").read_text(encoding="utf-8")
    head, bracket, rest = str(drawn).partition(">")
    head = head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" class="harness-picture" width="760" ', 1)
    return Plot(f"{head}{bracket}<style>{style}</style>{rest}")


def to_notebook(board: Board) -> str:
    """Return a cell's output as HTML: one sentence, the table of primary metrics, and a figure of the first."""
    heads = Markup("").join(Markup("<th>{}</th>").format(board.short_name(metric)) for metric in board.primary)
    lines = Markup("").join(_line(board, index) for index in range(len(board.rows)))
    table = Markup("<table><thead><tr><th>method</th>{}</tr></thead><tbody>{}</tbody></table>").format(heads, lines)
    words = " ".join([board.summary, *board.first_places(), board.tuned_alike])
    sentence = Markup("<p><strong>{}</strong> {}</p>").format(one_line(board.name), one_line(words.strip()))
    try:
        picture = Markup(plot(board).svg)  # escaped where it was drawn
    except HarnessError:
        picture = Markup("")
    return str(sentence + table + picture)


def _line(board: Board, index: int) -> Markup:
    row = board.rows[index]
    cells = Markup("").join(Markup("<td>{}</td>").format(_cell(board, index, metric)) for metric in board.primary)
    name = one_line(row.method) + (f" ({row.kind})" if row.is_reference else "")
    return Markup("<tr><th>{}</th>{}</tr>").format(name, cells)


def _cell(board: Board, index: int, metric: MetricEntry) -> str:
    """Return the mean and the difference with its mark."""
    row = board.rows[index]
    if metric.key not in row.scores:
        return "failed" if row.failed else ""
    delta = row.delta(metric.key)
    difference = f" ({signed(delta.mean)} {delta.mark})".replace(" )", ")") if delta else ""
    return number(row.scores[metric.key].mean) + difference


def _metric(board: Board, key: str | None) -> MetricEntry:
    if key is None and board.primary:
        return board.primary[0]
    entry = next((metric for metric in board.metrics if metric.key == key), None)
    if entry is None:
        raise HarnessError(f"no metric is called {key!r}: {did_you_mean(str(key), [metric.key for metric in board.metrics])}")
    return entry
