"""A board as Markdown and as CSV, and the remarks that all text views share. Every text is escaped for its format."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence

from harness.board.board import (
    Board,
    MetricEntry,
    RowEntry,
)
from harness.board.views.text import count, duration, number, one_line, p_value, shortened, signed
from harness.board.views.tuning import no_expected_best, tuning_lines

LEADERS = 3  # rows that are named with how often they are first
UNTRAINED = "not trained"

COLUMNS = (
    *("method", "kind", "data", "objective", "rounds", "metric", "primary", "higher_is_better", "mean", "low", "high", "n"),
    *("seeds", "delta_mean", "delta_low", "delta_high", "p", "p_adjusted", "below_noise", "failed"),
)


def to_markdown(board: Board) -> str:
    """Return the ranking, the reference rows, all metrics, costs and warnings; the tables under each of several models."""
    parts = [
        f"# {markdown_text(board.name)}",
        markdown_text(board.description),
        f"**{markdown_text(board.summary)}**",
        markdown_text(board.tuned_alike),
    ]
    if board.models:
        parts += across_in_markdown(board)
        for label, of_model in board.by_model.items():
            parts += [f"## Starting model {markdown_text(label)}", f"**{markdown_text(of_model.summary)}**"]
            parts += _tables(of_model, "###")
        own = [f"{entry.label}: {text}" for entry in board.models for text in entry.warnings]
    else:
        parts += _tables(board, "##")
        own = []
    if warnings := [*board.warnings, *own]:
        parts += ["## Warnings", "\n".join(f"- {markdown_text(warning)}" for warning in warnings)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _tables(board: Board, heading: str) -> list[str]:
    """Return the tables of rows that have one starting model, with headings of this level."""
    parts = [
        "\n".join(f"- {markdown_text(sentence)}" for sentence in board.first_places()),
        _ranking(board),
        _reading(board),
        f"{heading} All metrics",
        _all_metrics(board),
        "\n".join(f"- {markdown_text(metric.key)}: {markdown_text(metric.description)}" for metric in board.metrics),
        *_learning(board),
        f"{heading} Cost and budget",
        _costs(board),
        *_tuning(board),
    ]
    failed = [row for row in board.rows if row.failed]
    if failed:
        parts += [
            f"{heading} Failed",
            "\n".join(f"- {markdown_text(row.method)}: {markdown_text(row.failed or '')}" for row in failed),
        ]
    return parts


def across_in_markdown(board: Board) -> list[str]:
    """Return whether orders and gains carry over between starting models, a table each."""
    across = board.across
    if across is None or not (across.orders or across.gains):
        return []
    orders = [
        [
            *map(markdown_text, (entry.metric, entry.left, entry.right)),
            *(f"{number(entry.kendall)} [{number(entry.low)}, {number(entry.high)}]", number(entry.spearman)),
            *(str(entry.rows), f"{entry.same} / {entry.reversed} of {entry.pairs}", entry.verdict),
        ]
        for entry in across.orders
    ]
    heads = ["metric", "from", "to", "Kendall τ", "Spearman ρ", "rows", "pairs that keep / reverse their order", "the order"]
    gains = [
        [
            *map(markdown_text, (entry.row, entry.metric, entry.left, entry.right)),
            signed(entry.mean) + ("\\*" if entry.is_significant else ""),
            f"{signed(entry.low)} to {signed(entry.high)}",
            p_value(entry.p_adjusted),
        ]
        for entry in across.gains
    ]
    reversals = [
        [
            *map(markdown_text, (entry.better, entry.worse, entry.metric, entry.left, entry.right)),
            *(signed(entry.difference_left), signed(entry.difference_right), p_value(entry.p_adjusted)),
        ]
        for entry in across.reversals
    ]
    parts = ["## Does the ranking carry over?", *([_table(heads, orders, left=3)] if orders else [])]
    parts += [markdown_text(across_reading(board))]
    if gains:
        parts += ["### Gains over the baseline under two starting models"]
        parts += [_table(["row", "metric", "under", "minus under", "Δ of Δ", "interval", "corrected"], gains, left=4)]
    if reversals:
        heads = ["better in the first", "than", "metric", "first", "second", "difference in the first", "in the second"]
        parts += ["### Pairs of rows whose means reverse", _table([*heads, "corrected"], reversals, left=5)]
    return parts


def across_reading(board: Board) -> str:
    """Return how the numbers across starting models are meant."""
    across = board.across
    listed = "; ".join(
        f"{family.tests} {'test' if family.tests == 1 else 'tests'} of {family.name}"
        for family in (across.families if across else ())
    )
    sentence = (
        f"Rows that compete and were trained here. The interval of Kendall's τ is of the true order, from counts of pairs that "
        "keep or reverse it for sure, both counts with 95% confidence: a wide one says that seeds and prompts do not tell. "
        f"Δ of Δ: the difference from {board.baseline} under the first model minus that under the second; *: p < 0.05 after "
        "correction, and the interval excludes 0."
    )
    return sentence + (f" Corrected by Holm, each kind apart: {listed}." if listed else "")


def to_csv(board: Board) -> str:
    """Return one line per row and metric; a failed row has one line with its reason.

    With several starting models, `model` is the first column.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", *COLUMNS] if board.models else COLUMNS)
    for row, model in rows_by_model(board):
        named = [] if model is None else [csv_text(model)]
        start = [*named, csv_text(row.method), row.kind, csv_text(row.data or ""), csv_text(row.objective or ""), row.rounds]
        if not row.scores:
            writer.writerow([*start, *[""] * (len(COLUMNS) + len(named) - len(start) - 1), csv_text(row.failed or "")])
        for metric in board.metrics:
            if metric.key in row.scores:
                writer.writerow([*start, *_csv_score(row, metric), ""])
    return out.getvalue()


def rows_by_model(board: Board) -> Iterator[tuple[RowEntry, str | None]]:
    """Yield every row with its starting model's label, and its own label without it; None where all have the same model."""
    for label, of_model in board.by_model.items():
        yield from ((row, label) for row in of_model.rows)
    if not board.models:
        yield from ((row, None) for row in board.rows)


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


def _learning(board: Board) -> list[str]:
    """Return a table of learning curves for each primary metric that has some, or for the first metric that has."""
    rows = [row for row in board.rows if row.states]
    positions = sorted({state.position for row in rows for state in row.states or ()})
    shown = {key for row in rows for state in row.states or () for key in state.scores}
    metrics = [metric for metric in board.primary if metric.key in shown] or [m for m in board.metrics if m.key in shown][:1]
    parts = ["## Learning curves", "Scores at shares of each row's training, every round counted alike."] if metrics else []
    for metric in metrics:
        lines = []
        for row in rows:
            states = {state.position: state.scores.get(metric.key) for state in row.states or ()}
            points = [states.get(position) for position in positions]
            cells = [f"{number(p.mean)} [{number(p.low)}, {number(p.high)}]" if p else "–" for p in points]
            lines.append([_method(board, row), *cells, _mean(row, metric)])
        heads = [f"{markdown_text(metric.key)} {_arrow(metric)}".strip(), *(f"{position:.3g}" for position in positions), "1"]
        parts.append(_table(heads, lines))
    absent = [f"{markdown_text(row.method)}: {markdown_text(row.without_states)}" for row in board.rows if row.without_states]
    return [*parts, *([f"Without a curve: {'; '.join(absent)}."] if absent and parts else [])]


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


def _tuning(board: Board) -> list[str]:
    """Return the section on the search for settings; nothing where the board has none."""
    lines = [
        [
            _method(board, line.row),
            "; ".join(f"{markdown_text(path)} {markdown_text(value)}" for path, value in line.settings) or "–",
            markdown_text(line.trial),
            *line.scores,
            line.kept,
            *line.costs,
        ]
        for line in tuning_lines(board)
    ]
    if not lines:
        return []
    heads = [
        "method",
        "chosen settings",
        "trial",
        "tuning score",
        "evaluated",
        "optimism",
        "kept",
        "cost of tuning",
        "of a training",
    ]
    return ["## Tuning", _table(heads, lines, left=2), *_expected(board)]


def _expected(board: Board) -> list[str]:
    """Return the expected best of the first k trials as a table, or why there is none."""
    rows = [(row, row.tuning.expected) for row in board.rows if row.tuning and row.tuning.expected and not row.is_null]
    if not rows:
        return [text] if (text := no_expected_best(board)) else []
    most = max(len(points) for _, points in rows)
    cells = [
        [_method(board, row), *(f"{number(p.mean)} [{number(p.low)}, {number(p.high)}]" for p in points)]
        + ["–"] * (most - len(points))
        for row, points in rows
    ]
    text = (
        "The expected score of the best of the first k trials (Dodge et al. 2019), with intervals over which trials were drawn:"
    )
    return [text, _table(["method", *(str(k) for k in range(1, most + 1))], cells)]


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
    judges += [sentence for metric in board.primary if (sentence := _raters(board, metric))]
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


def _raters(board: Board, metric: MetricEntry) -> str:
    """Return how far evaluators that differ in their judge or reward model agree on a metric."""
    parts = []
    for pair in (board.analysis.raters or ()) if board.analysis else ():
        if pair.left == metric.key:
            shown = (("Krippendorff's α", pair.alpha), ("Spearman's ρ", pair.spearman))
            words = [
                f"{name} {number(value.mean)} ({number(value.low)} to {number(value.high)})" for name, value in shown if value
            ]
            parts.append(
                f"{pair.left} and {pair.right} agree on {pair.answers:,} answers by {' and '.join(words) or 'no measure'}"
            )
    return f"{'; '.join(parts)}." if parts else ""


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
