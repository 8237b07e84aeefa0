"""The board as one HTML file that works from disk: no network, no script but its own, every text escaped."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from harness.leaderboard import charts, standing, text
from harness.leaderboard.render import to_csv, to_markdown
from harness.leaderboard.schema import Board, ExampleRow, RowEntry, write_text

SHOWN_EXAMPLES = 100  # in the page; all of them are in examples.jsonl


def to_html(board: Board, examples: Sequence[ExampleRow]) -> str:
    """One self-contained page. Scripts and styles are allowed by their hash alone, so that nothing else runs in it."""
    style, script = _web("style.css"), _web("script.js")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_finalize
    )
    environment.filters |= {
        **{"number": text.number, "signed": text.signed, "duration": text.duration, "count": text.count},
        **{"p_value": text.p_value, "tree": _tree},
    }
    return environment.from_string(_web("template.html")).render(
        board=board,
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
        standing=standing,
        facts=_facts(board),
        figures=[(metric, charts.forest(board, metric)) for metric in board.primary],
        scatter=charts.scatter(board, board.primary[0]) if board.primary else None,
        curves=[(row, *drawn) for row in board.rows if (drawn := charts.curve(row))],
        budgets=sorted({key for row in board.rows for key in row.budget}),
        viewer=_embedded(_viewer(board, examples)) if examples else None,
        shown=min(len(examples), SHOWN_EXAMPLES),
        available=len(examples),
    )


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
    return resources.files("harness.leaderboard.web").joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """A content security policy that names the two inlined texts by hash."""
    styles, scripts = (b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (style, script))
    allowed = f"style-src 'sha256-{styles}'; script-src 'sha256-{scripts}'"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _finalize(value: Any) -> Any:
    """What has no shape of its own is written out wherever the template prints text."""
    return text.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _tree(value: Any) -> str:
    return yaml.safe_dump(value, allow_unicode=True, sort_keys=True, width=100)


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
        facts.append(("Work", f"{stages[1]} of {stages[0]} stages ran" + (f", {text.duration(saved)} saved" if saved else "")))
    return [(name, value) for name, value in facts if value]


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


def _viewer(board: Board, examples: Sequence[ExampleRow]) -> dict[str, Any]:
    """What the examples viewer shows, with everything that has no shape written out."""
    answered = {label for example in examples for label in example.answers}
    order = [row.method for row in board.rows if row.method in answered]
    labels = [*order, *sorted(answered - set(order))]
    compared = [board.baseline, *(row.method for row in standing.ranked(board) if row.method != board.baseline), *labels]
    return {
        "labels": [text.one_line(label) for label in labels],
        "first": [labels.index(label) for label in compared if label in answered][:2],
        "examples": [
            {
                "id": text.one_line(example.id),
                "prompt": text.visible(example.prompt),
                "target": None if example.target is None else text.visible(example.target),
                "answers": [text.visible(example.answers[label]) if label in example.answers else None for label in labels],
            }
            for example in examples[:SHOWN_EXAMPLES]
        ],
    }


def _embedded(value: Any) -> Markup:
    """JSON that can stand inside a script element: no `<`, `>` or `&` is left in it."""
    content = json.dumps(value, ensure_ascii=True, sort_keys=True, allow_nan=False)
    for character in "<>&":
        content = content.replace(character, f"\\u{ord(character):04x}")
    return Markup(content)
