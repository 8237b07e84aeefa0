"""A board as Markdown and as CSV, and the remarks that all text views share. Every text is escaped for its format."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence

from harness.board.board import (
    Board,
    MetricEntry,
    RowEntry,
)
from harness.board.views.text import count, duration, number, one_line, shortened, signed

LEADERS = 3  # rows that are named with how often they are first
UNTRAINED = "not trained"

COLUMNS = (
    *("method", "kind", "data", "objective", "rounds", "metric", "primary", "higher_is_better", "mean", "low", "high", "n"),
    *("seeds", "delta_mean", "delta_low", "delta_high", "p", "p_adjusted", "below_noise", "failed"),
)


def to_markdown(board: Board) -> str:
    """Return the ranking, the reference rows, all metrics, costs and warnings."""
    parts = [
        f"# {markdown_text(board.name)}",
        markdown_text(board.description),
        f"**{markdown_text(board.summary)}**",
        "\n".join(f"- {markdown_text(sentence)}" for sentence in board.first_places()),
        _ranking(board),
        _reading(board),
        "## All metrics",
        _all_metrics(board),
        "\n".join(f"- {markdown_text(metric.key)}: {markdown_text(metric.description)}" for metric in board.metrics),
        "## Cost and budget",
        _costs(board),
    ]
    failed = [row for row in board.rows if row.failed]
    if failed:
        parts += ["## Failed", "\n".join(f"- {markdown_text(row.method)}: {markdown_text(row.failed or '')}" for row in failed)]
    if board.warnings:
        parts += ["## Warnings", "\n".join(f"- {markdown_text(warning)}" for warning in board.warnings)]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_csv(board: Board) -> str:
    """Return one line per row and metric; a failed row has one line with its reason."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in board.rows:
        start = [csv_text(row.method), row.kind, csv_text(row.data or ""), csv_text(row.objective or ""), row.rounds]
        if not row.scores:
            writer.writerow([*start, *[""] * (len(COLUMNS) - len(start) - 1), csv_text(row.failed or "")])
        for metric in board.metrics:
            if metric.key in row.scores:
                writer.writerow([*start, *_csv_score(row, metric), ""])
    return out.getvalue()


def _csv_score(row: RowEntry, metric: MetricEntry) -> list[object]:
    score, delta = row.scores[metric.key], row.delta(metric.key)
    gaps: list[object] = [""] * 6
    if delta is not None:
        gaps = [delta.mean, delta.low, delta.high, delta.p, delta.p_adjusted, True if delta.below_noise else ""]
    bounds = ["" if bound is None else bound for bound in (score.low, score.high)]
    seeds = len(score.per_seed)
    direction = "" if metric.higher_is_better is None else metric.higher_is_better
    return [csv_text(metric.key), metric.primary, direction, score.mean, *bounds, score.n, seeds, *gaps]


def csv_text(text: str) -> str:
    """Return one line that no spreadsheet takes for a formula."""
    shown = one_line(text)
    return f"'{shown}" if shown.lstrip()[:1] in tuple("=+-@＝＋－＠") else shown


def markdown_text(text: str) -> str:
    """Return one line in which nothing is markup: neither Markdown nor HTML, inside a table or at the start of a line."""
    shown = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", one_line(text))
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("@", "&#64;"), ("://", "&#58;//")):
        shown = shown.replace(character, entity)
    return re.sub(r"^(\s*(?:\d+(?=[.)](?:\s|$)))?)([-+.)=])", r"\1\\\2", shown)


def _ranking(board: Board) -> str:
    """Return the table of primary metrics with intervals and differences; reference rows are below, in italics."""
    first = board.first_place(board.primary[0].key) if board.primary else None
    heads = ["rank" if first else "", "method", "made of"]
    for metric in board.primary:
        heads += [f"{markdown_text(board.short_name(metric))} {_arrow(metric)}".strip(), "Δ"]
    lines = []
    for place, row in enumerate(board.ranked, start=1):
        kind = f" ({row.kind})" if row.is_as_it_is else ""
        low, high = first.ranks.get(row.method, (0, 0)) if first else (0, 0)
        lines.append(
            [
                "–" if row.failed else f"{place} ({low}–{high})" if low else str(place),
                _method(board, row) + kind,
                *_primary_cells(board, row),
            ]
        )
    lines += [["", f"*{_method(board, row)}* ({row.kind})", *_primary_cells(board, row)] for row in board.references]
    return _table([*heads, "time"], lines, left=3)


def _primary_cells(board: Board, row: RowEntry) -> list[str]:
    cells = [markdown_text(" → ".join(part for part in (row.data, row.objective) if part) or "–")]
    for metric in board.primary:
        cells += [_mean(row, metric), _delta(row, metric)]
    return [*cells, _seconds(row) or "–"]


def _seconds(row: RowEntry) -> str | None:
    """Return the time of a row's making; None where there was nothing to make."""
    if row.cost.seconds is None:
        return "not measured here" if row.is_as_it_is else None
    return duration(row.cost.seconds)


def _all_metrics(board: Board) -> str:
    heads = ["method", *(f"{markdown_text(metric.key)} {_arrow(metric)}".strip() for metric in board.metrics)]
    return _table(heads, [[_method(board, row), *(_mean(row, metric) for metric in board.metrics)] for row in board.rows])


def _costs(board: Board) -> str:
    used = sorted({key for row in board.rows for key in row.budget})
    judged = any(row.cost.judge_tokens is not None for row in board.rows)
    lines = []
    for row in board.rows:
        cost = row.cost
        taken = [_seconds(row)]
        taken += [None if tokens is None else count(tokens) for tokens in (cost.tokens_trained, cost.tokens_generated)]
        if judged:
            taken.append(None if cost.judge_tokens is None else count(cost.judge_tokens))
            taken.append(None if cost.usd is None else f"{cost.usd:.2f}")
        budget = [count(row.budget[key]) if key in row.budget else None for key in used]
        lines.append([_method(board, row), *("–" if cell is None else cell for cell in (*taken, *budget))])
    heads = ["method", "time", "tokens trained", "tokens generated", *(["judge tokens", "judge US$"] if judged else [])]
    return _table([*heads, *(markdown_text(key) for key in used)], lines)


def _reading(board: Board) -> str:
    if board.is_published:
        return "Published numbers, not measured here: no intervals, no tests."
    floors = [(metric, board.noise_floor(metric.key)) for metric in board.primary]
    noise = ", ".join(f"{markdown_text(board.short_name(m))} {number(floor)}" for m, floor in floors if floor is not None)
    floor = f"; ≈: smaller than what a change of seeds alone could show, at the bound of its interval ({noise})"
    if board.methods > 1:
        noise, floor = "", ""
    over = "prompts" if board.has_one_seed else "seeds and prompts"
    return (
        f"Means over {over} with {board.statistics.level:.0%} intervals; Δ is the difference from "
        f"{markdown_text(board.baseline)}. \\*, \\*\\*, \\*\\*\\*: p < 0.05, 0.01, 0.001 after correction "
        f"({markdown_text(board.statistics.correction)}), where the interval excludes 0 too"
        + (floor if noise else "")
        + ". Time: a seed's data, reference and training beyond the shared starting model, in full even where shared."
        + "".join(f" {markdown_text(remark)}" for remark in remarks(board))
    )


def _method(board: Board, row: RowEntry) -> str:
    name = markdown_text(row.method)
    return f"**{name}** (baseline)" if row.method == board.baseline else name


def _mean(row: RowEntry, metric: MetricEntry) -> str:
    score = row.scores.get(metric.key)
    if score is None:
        return "failed" if row.failed else "–"
    if score.low is None or score.high is None:
        return number(score.mean)
    return f"{number(score.mean)} [{number(score.low)}, {number(score.high)}]"


def _delta(row: RowEntry, metric: MetricEntry) -> str:
    delta = row.delta(metric.key)
    if delta is None:
        return "–"
    return signed(delta.mean) + delta.mark.replace("*", "\\*")


def _arrow(metric: MetricEntry) -> str:
    return {True: "↑", False: "↓", None: ""}[metric.higher_is_better]


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a table; the first `left` columns are aligned left, the others right."""
    rule = ["---" if index < left else "---:" for index in range(len(heads))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *lines))


def remarks(board: Board) -> list[str]:
    """Return sentences on correction, added seeds, ranks, the smallest detectable difference, judges and precision.

    An older board lacks some of them.
    """
    judges = [entry.sentence for entry in board.statistics.judges or ()]
    sentences = (
        _noise(board),
        _families(board),
        *equivalence(board),
        _seeds(board),
        _ranks(board),
        _detectable(board),
        *judges,
        _precision(board),
        _other_data(board),
    )
    return [sentence for sentence in sentences if sentence]


def _other_data(board: Board) -> str:
    deltas = [score.delta for row in board.rows for score in row.scores.values()]
    marked = any(delta is not None and delta.other_data for delta in deltas)
    return f"†: trained on other data than {board.baseline}." if marked else ""


def _noise(board: Board) -> str:
    """Return the noise floors of the primary metrics with their own intervals."""
    known = [(metric, entry) for metric in board.primary if (entry := board.noise_entry(metric.key))]
    if not known:
        return ""
    sizes = [(metric, number(board.noise_floor(metric.key) or 0.0), entry) for metric, entry in known]
    listed = [f"{board.short_name(m)} {size} ({number(entry.low)} to {number(entry.high)})" for m, size, entry in sizes]
    share = f"{known[0][1].probability:.0%}"
    return f"The noise floor (a change of seeds alone stays below it {share} of the time), known to 95%: {', '.join(listed)}."


def _families(board: Board) -> str:
    families = board.statistics.families
    if not families:
        return ""
    parts = [f"{family.tests} tests of {family.name}" for family in families]
    origin = ""
    if board.methods > 3:
        chosen = (
            "declared in the config" if board.statistics.declared else "each evaluator's own, since the config declares none"
        )
        origin = f" The primary metrics are {chosen}."
    return f"Corrected together: {'; apart from them '.join(parts)}.{origin}"


def equivalence(board: Board) -> list[str]:
    """Return the rows that are practically equal to the baseline, by metric with a margin."""
    sentences = []
    for metric in board.metrics:
        margin = (board.statistics.equivalent_within or {}).get(metric.key)
        deltas = [(row, delta) for row in board.rows if (delta := row.delta(metric.key))]
        if margin is None or not deltas:
            continue
        equal = [row.method for row, delta in deltas if delta.is_equivalent]
        within = f"on {board.short_name(metric)}, within ±{number(margin)}"
        if board.has_one_seed:
            sentences.append(f"Practical equality {within}, is not stated: seeds were not sampled.")
        elif equal:
            sentences.append(f"≡: practically equal to {board.baseline} {within}: {', '.join(equal)}.")
        else:
            sentences.append(f"No row is shown to be practically equal to {board.baseline} {within}.")
    return sentences


def _seeds(board: Board) -> str:
    """Return what was saved by adding seeds or prompts only where they decide; on older boards which rows may be best too."""
    added = board.statistics.sequential or board.statistics.sequential_prompts
    if added is None:
        return ""
    if not added.may_be_best or board.first_places():
        return added.sentence
    return f"{added.sentence} May be the best on {board.short_name(board.primary[0])}: {', '.join(added.may_be_best)}."


def _ranks(board: Board) -> str:
    """Return the ranks that the best rows may have on the first primary metric; on older boards how often they come first."""
    place = board.first_place(board.primary[0].key) if board.primary else None
    if place is not None:
        labels = [row.method for row in board.ranked if row.method in place.ranks][:LEADERS]
        listed = ", ".join(f"{label} {' to '.join(map(str, place.ranks[label]))}" for label in labels)
        scope = ", of these trainings alone" if place.one_seed else ""
        return f"Ranks on {board.short_name(board.primary[0])} at 95%, all at once{scope}: {listed}."
    ranks = board.analysis.ranking.get(board.primary[0].key, {}) if board.analysis and board.primary else {}
    leaders = sorted(ranks.items(), key=lambda item: (-item[1].first, item[1].mean, item[0]))[:LEADERS]
    named = [f"{label} {rank.first:.0%} (rank {rank.low:.0f} to {rank.high:.0f})" for label, rank in leaders if rank.first > 0]
    return f"First on {board.short_name(board.primary[0])} over bootstrap draws: {', '.join(named)}." if named else ""


def _precision(board: Board) -> str:
    words = board_precision(board)
    return f"Precision: {words}." if words else ""


def _detectable(board: Board) -> str:
    power = board.analysis.power if board.analysis else {}
    sizes = [(m, power[m.key].detectable) for m in board.primary if m.key in power]
    seen = [f"{board.short_name(m)} {number(size) if size <= m.width else 'none that it can take'}" for m, size in sizes]
    return f"The smallest true difference that would be found four times in five: {', '.join(seen)}." if seen else ""


def precision(provenance: Mapping[str, object]) -> str:
    """Return the number types that a row was trained, stored, scored and sampled in; empty if its provenance does not say."""
    types = provenance.get("precision")
    if not isinstance(types, Mapping) or not {"training", "weights", "scoring", "generation"} <= types.keys():
        return ""
    trained = f"trained with products in {types['training']}" if types["training"] != "none" else UNTRAINED
    if "bfloat16" in types["training"]:
        trained += " (its references and refinements too)"
    rewards = f", reward models in {types['rewards']}" if "rewards" in types else ""
    return (
        f"{trained}, weights kept in {types['weights']}, log-probabilities scored in {types['scoring']}, "
        f"text generated in {types['generation']}{rewards}"
    )


def board_precision(board: Board) -> str:
    """Return `precision` of all rows, with the rows' names if they differ in more than that some were not trained."""
    rows: dict[str, list[str]] = {}
    for row in board.rows:
        if words := precision(row.provenance):
            rows.setdefault(words, []).append(shortened(row.method, 40))
    # An untrained row has no training type; it says nothing else that the trained rows do not say.
    for words in [words for words in rows if words.startswith(UNTRAINED)]:
        if any(other != words and other.endswith(words.removeprefix(UNTRAINED)) for other in rows):
            del rows[words]
    if len(rows) < 2:
        return "".join(rows)
    return "; ".join(f"{words} ({', '.join(labels)})" for words, labels in rows.items())
