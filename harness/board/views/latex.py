"""A board as a LaTeX table of the primary metrics, with booktabs."""

from __future__ import annotations

from harness.board.board import ONE_SEED, Board, MetricEntry, RowEntry
from harness.board.views.markdown import remarks
from harness.board.views.text import number, one_line

ESCAPED = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{character: f"{{{character}}}" for character in "[]*"},  # after a line break, LaTeX would read them as its options
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"},
    **{
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        "−": "$-$",
        "≈": r"$\approx$",
        "≡": r"$\equiv$",
        "±": r"$\pm$",
        "…": r"\ldots{}",
    },
}


def to_latex(board: Board) -> str:
    """Return means with half an interval and differences with their marks; the best mean of each column is bold."""
    if board.models:  # a table for each starting model
        named = {label: f"{board.name}, starting model {label}" for label in board.by_model}
        tables = [to_latex(part.model_copy(update={"name": named[label]})) for label, part in board.by_model.items()]
        return "\n".join(tables)
    metrics = board.primary
    head = " & ".join(["method", *(f"{latex_text(board.short_name(m))}{_arrow(m)} & $\\Delta$" for m in metrics)])
    lines = [_line(board, row) for row in board.ranked]
    aside = [_line(board, row) for row in board.references]
    body = "\n".join([*lines, *([r"\midrule", *aside] if aside else [])])
    return (
        "% needs \\usepackage{booktabs}, and \\usepackage[T1]{fontenc}\n"
        f"\\begin{{table}}\n\\centering\n\\caption{{{_caption(board)}}}\n"
        f"\\begin{{tabular}}{{l{'rr' * len(metrics)}}}\n\\toprule\n{head} \\\\\n\\midrule\n{body}\n\\bottomrule\n"
        "\\end{tabular}\n\\end{table}\n"
    )


def latex_text(text: str) -> str:
    """Return one line in which nothing is a command."""
    return "".join(ESCAPED.get(character, character) for character in one_line(text))


def _line(board: Board, row: RowEntry) -> str:
    cells = [latex_text(row.method) + ("" if row.kind == "measured" else f" ({row.kind})")]
    for metric in board.primary:
        score, delta = row.scores.get(metric.key), row.delta(metric.key)
        if score is None:
            cells += ["failed" if row.failed else "--", ""]
            continue
        mean = latex_text(number(score.mean))
        mean = rf"\textbf{{{mean}}}" if row.method == _best(board, metric) else mean
        if score.low is not None and score.high is not None:
            mean += rf"\,{{\scriptsize$\pm${number((score.high - score.low) / 2)}}}"
        difference = (
            ""
            if delta is None
            else latex_text(f"{number(delta.mean)}")
            + f"$^{{{delta.mark.replace('≈', chr(92) + 'approx').replace('≡', chr(92) + 'equiv')}}}$"
        )
        cells += [mean, difference]
    return " & ".join(cells) + r" \\"


def _best(board: Board, metric: MetricEntry) -> str | None:
    scored = [(row.scores[metric.key].mean, row.method) for row in board.ranked if metric.key in row.scores]
    if not scored or metric.higher_is_better is None:
        return None
    return (max if metric.higher_is_better else min)(scored)[1]


def _caption(board: Board) -> str:
    floors = [(board.short_name(m), board.noise_floor(m.key)) for m in board.primary]
    noise = ", ".join(f"{latex_text(name)} {number(floor)}" for name, floor in floors if floor is not None)
    if board.is_published:
        return f"{latex_text(board.name)}. Published numbers, not measured here: no intervals, no tests."
    caption = (
        f"{latex_text(board.name)}. Means $\\pm$ half a {latex_text(format(board.statistics.level, '.0%'))} interval; "
        f"$\\Delta$ against {latex_text(board.baseline)}; $*$, $**$, $***$: $p < 0.05$, $0.01$, $0.001$ after correction "
        f"({latex_text(board.statistics.correction)})"
    )
    caption += f"; $\\approx$: less than a change of seeds alone could show ({noise})." if noise and board.methods < 2 else "."
    if board.has_one_seed:
        caption = f"{latex_text(ONE_SEED)} {caption}"
    return caption + "".join(f" {latex_text(remark)}" for remark in (*board.first_places(), *remarks(board)))


def _arrow(metric: MetricEntry) -> str:
    return {True: r" $\uparrow$", False: r" $\downarrow$", None: ""}[metric.higher_is_better]
