"""A board as one HTML file that works from disk: no network, no script but its own, every text escaped."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup, escape

from harness.board.board import ONE_SEED, Board, ExampleRow, MetricEntry, RowEntry, write_text
from harness.board.by_model import SEPARATOR
from harness.board.facts import Provenance
from harness.board.views import figures, svg, text
from harness.board.views.markdown import across_reading, board_precision, equivalence, precision, to_csv, to_markdown
from harness.board.views.tuning import expected_figure, no_expected_best, sensitivity, tuning_lines
from harness.board.views.viewer import LONGEST_NAME, Scored, embedded, viewer

# The most characters of a text, of a table's cell and of a name, outside the viewer and the provenance.
LONGEST, LONGEST_CELL = 2000, 200

COLUMNS = (
    *("Metric", "Mean", "Interval", "Per seed", "n", "Δ", "Interval of Δ", "p", "p corrected", "q", "p over seeds"),
    *("Effect", "Won / tied / lost", "Smallest seen", "p equal"),
)
NOTHING = ""  # an empty cell
# Origins of the responses' token ids, as the `groups` stage counts them.
RESPONSES = {"as_sampled": "as sampled", "tokenized_again": "tokenized again", "from_dataset": "from the data"}

SCRIPTS = ("tables.js", "figures.js", "rows.js", "examples.js", "theme.js")


def to_html(board: Board, examples: Sequence[ExampleRow], scored: Scored | None = None) -> str:
    """Return one self-contained page. Its policy allows its script and style by their hashes, so that nothing else runs.

    With several starting models it is the page about all of them; `model_pages` has one for each. Rows are in the order of
    the terminal's table: those that compete, then the others.

    Args:
        scored: where the scores of the examples are, if not in the board.

    Raises:
        DataError: the file of scores is damaged.
    """
    if board.models:
        return _models_page(board)
    board = board.model_copy(update={"rows": (*board.ranked, *board.references)})
    style, script = web_file("style.css"), "\n".join(web_file(name) for name in SCRIPTS)
    return (
        templates()
        .get_template("template.html")
        .render(
            board=board,
            style=Markup(style),
            script=Markup(script),
            policy=content_policy(style, script),
            answer=board.answer,
            equivalence=equivalence(board),
            facts=_facts(board),
            made_of=made_of,
            numbers=embedded(numbers(board)),
            budgets=sorted({key for row in board.rows for key in row.budget}),
            viewer=viewer(board, examples, scored),
            **_figures(board),
        )
    )


def _models_page(board: Board) -> str:
    """Return the page of a board with several starting models: what carries over, and the ranking under each."""
    style, script = ("\n".join(map(web_file, names)) for names in (("style.css", "models.css"), ("figures.js", "theme.js")))
    parts = [
        ModelPart(entry.label, board.of_model(entry.label), _model_page(entry.label), entry.warnings)
        for entry in board.models or ()
    ]
    both = ((metric, svg.for_all_widths(partial(figures.gains, board, metric))) for metric in board.primary)
    drawn = [(metric, figure) for metric, figure in both if figure is not None]
    return (
        templates()
        .get_template("models.html")
        .render(
            board=board,
            style=Markup(style),
            script=Markup(script),
            policy=content_policy(style, script),
            facts=_facts(board),
            parts=parts,
            gains=drawn,
            reading=across_reading(board),
            one_seed=ONE_SEED,
        )
    )


@dataclass(frozen=True)
class ModelPart:
    """One of several starting models on their common page; `page` is the path of its own."""

    label: str
    board: Board
    page: str
    warnings: tuple[str, ...]


def model_pages(board: Board) -> dict[str, str]:
    """Return the page of each of several starting models by its path beside the board; none where there is only one."""
    pages = {}
    for label, of_model in board.by_model.items():
        named = of_model.model_copy(update={"name": f"{board.name} · {label}"})
        pages[_model_page(label)] = to_html(named, of_model.example_rows, Scored(board, f"{label}{SEPARATOR}"))
    return pages


def _model_page(label: str) -> str:
    """Return the path of a starting model's page; a hash keeps labels apart that differ in replaced characters alone."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", label)[:LONGEST_NAME]
    return f"models/{plain if plain == label else f'{plain}-{hashlib.sha256(label.encode()).hexdigest()[:8]}'}.html"


def templates() -> jinja2.Environment:
    """Return the environment of all HTML templates. Whatever they print is escaped: names and texts come from models."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(web_file),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters |= {
        **{"number": text.number, "signed": text.signed, "duration": text.duration, "count": text.count},
        **{"p_value": text.p_value, "share": _share, "tree": _tree, "named": _named, "brief": _brief},
        **{"short": text.shortened, "one_line": text.one_line},
    }
    return environment


def _figures(board: Board) -> dict[str, object]:
    """Return the figures by section, each a list of titles and figures, of which the page shows one at a time."""

    def of_metrics(
        draw: Callable[[Board, MetricEntry, bool], Markup | None], metrics: Sequence[MetricEntry]
    ) -> list[tuple[MetricEntry, Markup]]:
        drawings = ((metric, svg.for_all_widths(partial(draw, board, metric))) for metric in metrics)
        return [(metric, drawn) for metric, drawn in drawings if drawn is not None]

    others = [metric for metric in board.metrics if metric not in board.primary]
    return {
        "one_seed": ONE_SEED,
        "noisy": any(board.noise_floor(metric.key) for metric in board.metrics),
        "contests": [metric.key for metric in board.metrics if board.analysis and metric.key in board.analysis.wins],
        "forests": of_metrics(figures.forest, (*board.primary, *others)),
        "ranks": of_metrics(figures.ranks, board.primary),
        "frontiers": list(figures.frontiers(board)),
        "sweeps": list(figures.sweep_figures(board)),
        "learning": figures.learning(board),
        "without_states": [(row, row.without_states) for row in board.rows if row.without_states],
        "training": figures.training(board),
        "tuning": tuning_lines(board),
        "expected": svg.for_all_widths(partial(expected_figure, board)),
        "no_expected": no_expected_best(board),
        "sensitivities": sensitivity(board),
    }


def write_all(board: Board, examples: Sequence[ExampleRow], folder: Path) -> Path:
    """Write `board.json` and `examples.jsonl`, and what is rendered from them. Returns the path of the page."""
    # What was written is read again: its mappings are sorted, and `harness report` has to make the very same pages.
    return render_all(Board.read(board.with_examples(examples).write(folder)), examples, folder)


def render_all(board: Board, examples: Sequence[ExampleRow], folder: Path) -> Path:
    """Write `board.md`, `board.csv`, `index.html` and pages of starting models, each whole or not at all; return the page."""
    folder = Path(folder)
    write_text(folder / "board.md", to_markdown(board))
    write_text(folder / "board.csv", to_csv(board))
    for path, page in model_pages(board).items():
        write_text(folder / path, page)
    return write_text(folder / "index.html", to_html(board, examples))


def web_file(name: str) -> str:
    """Return a template, style or script of the pages."""
    return resources.files("harness.board.views").joinpath("web", name).read_text(encoding="utf-8")


def content_policy(style: str, script: str) -> str:
    """Return a content security policy that names the two inlined texts by hash."""
    styles, scripts = (b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (style, script))
    allowed = f"style-src 'sha256-{styles}'; script-src 'sha256-{scripts}'"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _finalize(value: object) -> object:
    """Write out invisible characters in every text that a template prints, and cut a text that would fill the page."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    rest = len(value) - LONGEST
    return text.visible(value) if rest <= 0 else f"{text.visible(value[:LONGEST])} … ({rest:,} more characters in board.json)"


def _named(name: str) -> Markup:
    """Return a name of a row or metric with line breaks allowed between its parts only."""
    return Markup(re.sub(r"(?<=[/_=])(?=[^/_=])|(?=\[)", "<wbr>", str(escape(text.shortened(name, LONGEST_NAME)))))


def _brief(value: str) -> str:
    return text.one_line(value) if len(value) <= LONGEST_CELL else f"{text.one_line(value[:LONGEST_CELL])}…"


def _share(value: float) -> str:
    """Return a share in percent; a rare event is never 0 %, a frequent one never 100 %."""
    return "<1%" if 0 < value < 0.005 else ">99%" if 0.995 < value < 1 else f"{value:.0%}"


def _tree(value: object) -> Markup:
    """Return a value as YAML, in full."""
    return escape(text.visible(yaml.safe_dump(text.plain(value), allow_unicode=True, sort_keys=True, width=100)))


def _facts(board: Board) -> list[tuple[str, str]]:
    """Return names and values of the settings that all rows share, as far as the board has them."""
    seeds = sorted({seed for row in board.rows for seed in row.seeds})
    facts = [
        ("Starting model", _model(board.config)),
        ("Baseline", board.baseline),
        ("Seeds", ", ".join(str(seed) for seed in seeds) or "–"),
        ("Prompts evaluated", _prompts(board)),
        ("Budget", _budget(board)),
    ]
    stages = board.sharing.get("stages_requested"), board.sharing.get("stages_run")
    if None not in stages:
        saved = board.sharing.get("seconds_saved")
        facts.append(
            ("Work", f"{stages[1]:,} of {stages[0]:,} artifacts made" + (f", {text.duration(saved)} saved" if saved else ""))
        )
    facts += [
        (name.capitalize(), value)
        for name, _, value in (line.partition(": ") for line in text.data_lines(board.sharing.get("data", {})))
    ]
    facts += [("Chat template", _template(board)), ("Precision", board_precision(board))]
    return [(name, value) for name, value in facts if value]


def _template(board: Board) -> str:
    """Return the start of the chat template's hash."""
    models = [row.provenance.get("model") for row in board.rows]
    hashes = {str(model.get("chat_template_sha256") or "") for model in models if isinstance(model, Mapping)}
    return ", ".join(f"sha256 {digest[:12]}" for digest in sorted(hashes - {""}))


def _prompts(board: Board) -> str:
    """Return the number of prompts that the first primary metric was measured on."""
    key = board.primary[0].key if board.primary else ""
    return f"{max((row.scores[key].n for row in board.rows if key in row.scores), default=0):,}"


def _model(config: Mapping[str, object]) -> str:
    """Return the starting model's name from the config's `model` section."""
    model = config.get("model")
    if isinstance(model, list):
        return ", ".join(str(section.get("label", "")) for section in model if isinstance(section, Mapping))
    if isinstance(model, Mapping):
        if model.get("scratch"):
            return "made from the training text"
        model = next((model[key] for key in ("name", "path", "start", "id") if model.get(key)), None)
    return str(model) if model else ""


def _budget(board: Board) -> str:
    budget = board.config.get("budget")
    if isinstance(budget, Mapping):
        amounts = [f"{text.count(value)} {unit}" for unit, value in budget.items() if isinstance(value, int | float)]
        return ", ".join(amounts) + (" in each round" if budget.get("rounds") == "repeat" else "")
    row: RowEntry | None = board.row(board.baseline)
    return ", ".join(f"{text.count(value)} {key}" for key, value in row.budget.items()) if row else ""


# The statistics and the provenance of a row


def numbers(board: Board) -> dict[str, object]:
    """Return every row's statistics as text: for each of its metrics the cells of `COLUMNS`, then the verdict."""
    return {
        "columns": COLUMNS,
        "rows": [[_cells(row, metric) for metric in board.metrics if metric.key in row.scores] for row in board.rows],
    }


def _cells(row: RowEntry, metric: MetricEntry) -> list[str]:
    score, delta = row.scores[metric.key], row.scores[metric.key].delta
    cells = [text.one_line(metric.key), text.number(score.mean), _interval(score.low, score.high)]
    cells += [", ".join(text.number(mean) for mean in score.per_seed), f"{score.n:,}"]
    if delta is None:
        return cells
    wins = delta.wins
    cells += [text.signed(delta.mean) + delta.mark, _interval(delta.low, delta.high, signed=True), _small(delta.p)]
    cells += [_small(delta.p_adjusted), _small(delta.q), _small(delta.p_seeds)]
    cells += [NOTHING if delta.effect is None else text.signed(delta.effect)]
    cells += [NOTHING if wins is None else f"{wins.won:.0%} / {wins.tied:.0%} / {wins.lost:.0%}"]
    cells += [NOTHING if delta.detectable is None else text.number(delta.detectable), _small(delta.p_equivalent)]
    return [*cells, delta.verdict(metric)]


def _interval(low: float | None, high: float | None, signed: bool = False) -> str:
    shown = text.signed if signed else text.number
    return NOTHING if low is None or high is None else f"{shown(low)} … {shown(high)}"


def _small(p: float | None) -> str:
    return NOTHING if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def made_of(board: Board, row: RowEntry) -> list[tuple[str, str]]:
    """Return names and values of what a reader needs to reproduce the row, as far as the board has it."""
    provenance = row.provenance
    facts = [
        ("Kind", row.kind),
        ("Source", _source(provenance)),
        ("Data", row.data),
        ("Objective", row.objective),
        ("Rounds", str(row.rounds) if row.rounds else None),
        ("Answers under the prefix", provenance.get("prefix")),
        ("Checkpoint", _checkpoint(provenance)),
        ("Seeds", "none sampled" if row.is_as_it_is else ", ".join(str(seed) for seed in row.seeds)),
        ("Starting model", _starting_model(provenance.get("model"))),
        ("Chat template", _digest(_item(provenance.get("model"), "chat_template_sha256"))),
        ("Data set", _digest(provenance.get("dataset"))),
        ("Models", _models(provenance.get("models"))),
        ("Judge", _judges(provenance.get("judges"))),
        ("Backend", _item(provenance.get("backend"), "name")),
        ("Groups", _groups(provenance.get("data"))),
        ("Responses", _responses(provenance.get("data"))),
        ("Precision", precision(provenance)),
        ("Written by", ", ".join(f"{'harness' if key == 'version' else key} {v}" for key, v in sorted(board.harness.items()))),
        ("Versions", _listed(board.sharing.get("versions"))),
        ("Command", board.sharing.get("command") if not row.is_published else None),
    ]
    return [(name, str(value)) for name, value in facts if value]


def _source(provenance: Mapping[str, object]) -> str:
    """Return the paper and table that published numbers come from."""
    return "; ".join(str(provenance[name]) for name in ("source", "paper", "table", "url") if provenance.get(name))


def _item(value: object, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _starting_model(model: object) -> str:
    if not isinstance(model, Mapping):
        return ""
    if model.get("scratch"):
        return "made from the training text"
    names = [str(model[key]) for key in ("name", "path", "id", "revision") if model.get(key)]
    return " ".join(names)


def _checkpoint(provenance: Provenance) -> str:
    """Return the model from elsewhere that a row is: its hub name and commit, its hash, or its name at a server."""
    served, model = provenance.get("served"), provenance.get("checkpoint")
    if served is not None:
        return f"{served.model} at {served.base_url}" if served.base_url else f"{served.model}, declared as {served.name}"
    if model is None:
        return ""
    return " ".join(filter(None, (model.hub, model.commit, _digest(model.hash))))


def _digest(value: object) -> str:
    return f"sha256 {value}" if isinstance(value, str) and value else ""


def _models(models: object) -> str:
    return ", ".join(f"seed {seed}: {key}" for seed, key in models.items()) if isinstance(models, Mapping) else ""


def _groups(data: object) -> str:
    """Return how many prompts gave a group, why others gave none, and what the builder measured, over all seeds and rounds."""
    rounds = _rounds(data)
    groups, prompts = (sum(_count(_item(facts, name)) for facts in rounds) for name in ("groups", "prompts"))
    dropped: Counter[str] = Counter()
    measured: dict[str, list[tuple[float, int]]] = defaultdict(list)  # (mean, groups)
    for facts in rounds:
        for reason, count in _items(facts, "dropped"):
            dropped[reason] += _count(count)
        for name, value in _items(facts, "means"):
            if isinstance(value, int | float):
                measured[name].append((value, _count(_item(facts, "groups"))))
    parts = [f"{groups:,} of {prompts:,} prompts"] if prompts else []
    parts += [f"{count:,} dropped: {reason}" for reason, count in sorted(dropped.items())]
    for name, values in sorted(measured.items()):
        if weight := sum(count for _, count in values):
            parts.append(f"mean {name} {text.number(sum(value * count for value, count in values) / weight)}")
    return "; ".join(parts)


def _items(value: object, name: str) -> Iterable[tuple[str, object]]:
    mapping = _item(value, name)
    return mapping.items() if isinstance(mapping, Mapping) else ()


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def _rounds(data: object) -> list[Any]:
    """Return the facts about a row's data, one for each seed and round."""
    return [facts for entry in data.values() if isinstance(entry, list) for facts in entry] if isinstance(data, Mapping) else []


def _responses(data: object) -> str:
    """Return where the ids of the trained responses come from, over all seeds and rounds."""
    counts = [count for facts in _rounds(data) if isinstance(count := _item(facts, "responses"), Mapping)]
    totals = {name: sum(n for count in counts if isinstance(n := count.get(name), int)) for name in RESPONSES}
    return ", ".join(f"{totals[name]:,} {words}" for name, words in RESPONSES.items() if totals[name])


def _judges(judges: object) -> str:
    """Return each evaluator's judge, with the versions that its server reported."""
    if not isinstance(judges, Mapping):
        return ""
    return "; ".join(f"{evaluator}: {_judge_names(judge)}" for evaluator, judge in judges.items())


def _judge_names(judge: object) -> str:
    versions = _item(judge, "versions")
    named = ", ".join(str(v) for v in versions) if isinstance(versions, Iterable) and not isinstance(versions, str) else ""
    return named or str(_item(judge, "model") or judge)


def _listed(versions: object) -> str:
    """Return versions in the order of the names, so that a board in memory and its file show the same."""
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) if isinstance(versions, Mapping) else ""
