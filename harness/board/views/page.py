"""The board as one HTML file that works from disk: no network, no script but its own, every text escaped."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup, escape

from harness.board.board import Board, ExampleRow, RowEntry, write_text
from harness.board.views import figures as charts
from harness.board.views import figures as curves
from harness.board.views import figures as frontier
from harness.board.views import figures as sweeps
from harness.board.views import provenance, text
from harness.board.views.markdown import to_csv, to_markdown
from harness.board.views.text import one_line, shortened, visible

PLAIN = 1 << 19  # characters; more are packed
EMBEDDED = 24 << 20  # characters in the page at most; all examples are in the file beside it
BLOCK_EXAMPLES, BLOCK_CHARACTERS = 200, 1 << 20
LABEL = 80  # characters of a row's name in the menus


# Characters of a text, of one in a table's cell, and of a name, that a page shows outside the viewer and the provenance.
LONGEST, BRIEFEST, LONGEST_NAME = 2000, 200, 80


SCRIPTS = ("tables.js", "figures.js", "rows.js", "examples.js", "theme.js")


def to_html(board: Board, examples: Sequence[ExampleRow]) -> str:
    """One self-contained page. Scripts and styles are allowed by their hash alone, so that nothing else runs in it."""
    style, script = _web("style.css"), "\n".join(_web(name) for name in SCRIPTS)
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_web),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters |= {
        **{"number": text.number, "signed": text.signed, "duration": text.duration, "count": text.count},
        **{"p_value": text.p_value, "share": _share, "tree": _tree, "named": _named, "brief": _brief, "short": text.shortened},
    }
    return environment.get_template("template.html").render(
        board=board,
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
        answer=board.answer,
        facts=_facts(board),
        made_of=provenance.made_of,
        numbers=embedded(provenance.numbers(board)),
        budgets=sorted({key for row in board.rows for key in row.budget}),
        viewer=viewer(board, examples),
        **_figures(board),
    )


def _figures(board: Board) -> dict[str, Any]:
    """The drawings, by where the page shows them; each a list of titles and drawings, of which one is shown at a time."""

    def of_metrics(draw: Any, metrics: Any) -> list[Any]:
        return [(metric, drawn) for metric in metrics if (drawn := draw(board, metric)) is not None]

    others = [metric for metric in board.metrics if metric not in board.primary]
    return {
        "noisy": any(board.noise_floor(metric.key) for metric in board.metrics),
        "contests": [metric.key for metric in board.metrics if board.analysis and metric.key in board.analysis.wins],
        "forests": of_metrics(charts.forest, (*board.primary, *others)),
        "ranks": of_metrics(charts.ranks, board.primary),
        "frontiers": list(frontier.frontiers(board)),
        "sweeps": list(sweeps.figures(board)),
        "training": curves.training(board),
    }


def write_all(board: Board, examples: Sequence[ExampleRow], folder: Path) -> Path:
    """Write `board.json` and `examples.jsonl`, and what is rendered from them. Returns the path of the page."""
    board.with_examples(examples).write(folder)
    return render_all(board, examples, folder)


def render_all(board: Board, examples: Sequence[ExampleRow], folder: Path) -> Path:
    """Write `board.md`, `board.csv` and `index.html`, each whole or not at all. Returns the path of the page."""
    folder = Path(folder)
    write_text(folder / "board.md", to_markdown(board))
    write_text(folder / "board.csv", to_csv(board))
    return write_text(folder / "index.html", to_html(board, examples))


def _web(name: str) -> str:
    return resources.files("harness.board.views.web").joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """A content security policy that names the two inlined texts by hash."""
    styles, scripts = (b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (style, script))
    allowed = f"style-src 'sha256-{styles}'; script-src 'sha256-{scripts}'"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _finalize(value: Any) -> Any:
    """What has no shape of its own is written out wherever the template prints text, and no text makes the page unreadable."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    rest = len(value) - LONGEST
    return text.visible(value) if rest <= 0 else f"{text.visible(value[:LONGEST])} … ({rest:,} more characters in board.json)"


def _named(name: str) -> Markup:
    """The name of a row or a metric, which may be broken after its parts rather than anywhere."""
    return Markup(re.sub(r"(?<=[/_=])(?=[^/_=])|(?=\[)", "<wbr>", str(escape(text.shortened(name, LONGEST_NAME)))))


def _brief(value: str) -> str:
    return text.one_line(value) if len(value) <= BRIEFEST else f"{text.one_line(value[:BRIEFEST])}…"


def _share(value: float) -> str:
    """A share as percent, without calling a rare thing impossible or a frequent one certain."""
    return "<1%" if 0 < value < 0.005 else ">99%" if 0.995 < value < 1 else f"{value:.0%}"


def _tree(value: Any) -> Markup:
    """As YAML, in full."""
    return escape(text.visible(yaml.safe_dump(text.plain(value), allow_unicode=True, sort_keys=True, width=100)))


def _facts(board: Board) -> list[tuple[str, str]]:
    """What was held equal and what was compared, as far as the board knows."""
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
            ("Work", f"{stages[1]:,} of {stages[0]:,} stages ran" + (f", {text.duration(saved)} saved" if saved else ""))
        )
    facts += [(name.capitalize(), value) for name, _, value in map(_parted, text.data_lines(board.sharing.get("data", {})))]
    facts += [("Chat template", _template(board)), ("Precision", provenance.board_precision(board))]
    return [(name, value) for name, value in facts if value]


def _parted(line: str) -> tuple[str, str, str]:
    return line.partition(": ")


def _template(board: Board) -> str:
    """The beginning of the hash of the template that every prompt was written with."""
    models = [row.provenance.get("model") for row in board.rows]
    hashes = {str(model.get("chat_template_sha256") or "") for model in models if isinstance(model, Mapping)}
    return ", ".join(f"sha256 {digest[:12]}" for digest in sorted(hashes - {""}))


def _prompts(board: Board) -> str:
    """How many prompts the first primary metric was taken on."""
    key = board.primary[0].key if board.primary else ""
    return f"{max((row.scores[key].n for row in board.rows if key in row.scores), default=0):,}"


def _model(config: Mapping[str, Any]) -> str:
    """The starting model as the config names it, wherever in the `model` section it does."""
    model = config.get("model")
    if isinstance(model, Mapping):
        if model.get("scratch"):
            return "made from the training text"
        model = next((model[key] for key in ("name", "path", "start", "id") if model.get(key)), None)
    return str(model) if model else ""


def _budget(board: Board) -> str:
    budget = board.config.get("budget")
    if isinstance(budget, Mapping):
        return ", ".join(
            f"{text.count(v) if isinstance(v, int | float) else v} {k}" for k, v in budget.items() if v is not None
        )
    row: RowEntry | None = board.row(board.baseline)
    return ", ".join(f"{text.count(value)} {key}" for key, value in row.budget.items()) if row else ""


@dataclass(frozen=True)
class Viewer:
    """What the page carries.

    Attributes:
        head: labels, which two are shown first, how many examples there are, and where each block begins.
        blocks: each a JSON list of examples, or a JSON text that holds such a list as deflated, base64 UTF-8.
        shown: how many examples the blocks hold; of `available`.
    """

    head: Markup
    blocks: tuple[Markup, ...]
    shown: int
    available: int


def viewer(board: Board, examples: Sequence[ExampleRow]) -> Viewer | None:
    """The first examples, as many as a page can carry; everything that has no shape is written out. None without any."""
    if not examples:
        return None
    labels = _labels(board, examples)
    blocks: list[Markup] = []
    starts: list[int] = []
    size = shown = 0
    packed = _large(examples)
    for count, block in _blocks(examples, labels):
        written = embedded(_packed(block) if packed else json.loads(block))
        if size + len(written) > EMBEDDED and blocks:
            break
        blocks.append(written)
        starts.append(shown)
        size, shown = size + len(written), shown + count
    ranked = [row.method for row in board.ranked if row.method != board.baseline]
    first = [labels.index(label) for label in (board.baseline, *ranked, *labels) if label in labels]
    head = {"labels": [shortened(label, LABEL) for label in labels], "first": first[:2], "starts": starts, "shown": shown}
    return Viewer(embedded(head), tuple(blocks), shown, len(examples))


def embedded(value: Any) -> Markup:
    """JSON that can stand inside a script element: no `<`, `>` or `&` is left in it."""
    content = json.dumps(value, ensure_ascii=True, sort_keys=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        content = content.replace(character, f"\\u{ord(character):04x}")
    return Markup(content)


def _labels(board: Board, examples: Sequence[ExampleRow]) -> list[str]:
    """The rows that answered, in the board's order."""
    answered = {label for example in examples for label in example.answers}
    order = [row.method for row in board.rows if row.method in answered]
    return [*order, *sorted(answered - set(order))]


def _large(examples: Sequence[ExampleRow]) -> bool:
    size = 0
    for example in examples:
        size += len(example.prompt) + sum(len(answer) for answer in example.answers.values())
        if size > PLAIN:
            return True
    return False


def _blocks(examples: Sequence[ExampleRow], labels: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Numbers of examples and their JSON."""
    block: list[str] = []
    size = 0
    for example in examples:
        block.append(json.dumps(_entry(example, labels), ensure_ascii=False))
        size += len(block[-1])
        if len(block) >= BLOCK_EXAMPLES or size >= BLOCK_CHARACTERS:
            yield len(block), f"[{','.join(block)}]"
            block, size = [], 0
    if block:
        yield len(block), f"[{','.join(block)}]"


def _entry(example: ExampleRow, labels: Sequence[str]) -> list[Any]:
    """Id, prompt, target, the answers in the order of the labels, and what judges said, by the label's place."""
    said = {
        str(place): [[visible(str(item.get(name) or "")) for name in ("evaluator", "verdict", "words")] for item in items]
        for place, label in enumerate(labels)
        if (items := example.judged.get(label))
    }
    target = None if example.target is None else visible(example.target)
    answers = [visible(example.answers[label]) if label in example.answers else None for label in labels]
    return [one_line(example.id), visible(example.prompt), target, answers, *([said] if said else [])]


def _packed(block: str) -> str:
    return b64encode(zlib.compress(block.encode("utf-8", "backslashreplace"), 6)).decode("ascii")
