"""Boards as a folder of static pages: an index over all, a page for each, and what changed since the last publication."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import yaml

from harness.board.board import Board
from harness.board.diff import changes
from harness.board.files import BOARD, SCORES, digest, examples_text, write_bytes
from harness.board.views.latex import to_latex
from harness.board.views.markdown import markdown_text, to_csv, to_markdown
from harness.board.views.page import to_html
from harness.board.views.text import one_line
from harness.errors import DataError, did_you_mean

HISTORY = "history"


WORKFLOWS = ("publish-boards.yaml", "verify-boards.yaml")


STYLE = (
    ":root{color-scheme:light dark;background:Canvas}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.4rem .6rem;border-bottom:1px solid #8886;"
    "vertical-align:top}h2{margin-top:2rem}li{overflow-wrap:anywhere}.scroll{overflow-x:auto}"
)


@dataclass(frozen=True)
class Site:
    """Files by their path under the site's folder, in the order in which they are written: the index last."""

    files: dict[str, bytes]

    def write(self, folder: Path) -> Path:
        """Each whole or not at all; everything is rendered before the first is written. Returns the index."""
        for name, content in self.files.items():
            write_bytes(folder / name, content)
        return folder / "index.html"


def build_site(boards: Sequence[Path], folder: Path, title: str = "Leaderboards") -> Site:
    """The site over these boards, and over what `folder` already holds of them: a board that changed keeps its history.

    Raises:
        DataError: a board cannot be read, or two would have one folder.
    """
    found: dict[str, tuple[Board, Path]] = {}
    for path in boards:
        board = Board.read(path)
        name = slug(board.name)
        if name in found:
            raise DataError(f"{path} and {found[name][1]} are both called {name!r}: publish them into different folders")
        found[name] = (board, path)
    files: dict[str, bytes] = {}
    lines = []
    for name, (board, path) in found.items():
        past = _history(folder / name, board)
        files |= {f"{name}/{file}": content for file, content in _board_files(board, path, past).items()}
        lines.append(_line(name, board, len(past)))
    others = sorted(_kept(folder, set(found)))
    lines += [_line(name, board, 0) for name, board in others]
    return Site({**files, "index.html": _index(title, lines).encode("utf-8")})


def slug(name: str) -> str:
    """A name as a folder: lower case, hyphens; with a hash where nothing else of it is left."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80]
    return plain or f"board-{digest(name.encode('utf-8'))[:8]}"


def workflows() -> dict[str, bytes]:
    """The workflow templates, by the path at which a repository keeps them."""
    folder = resources.files("harness.board.views.workflows")
    return {f".github/workflows/{name}": folder.joinpath(name).read_bytes() for name in WORKFLOWS}


def _board_files(board: Board, path: Path, past: Sequence[Board]) -> dict[str, bytes]:
    """A board's own files, its renderings, the boards before it and what changed between them."""
    source = path if path.is_dir() else path.parent
    files = {board.examples: examples_text(board.example_rows).encode("utf-8")} if board.example_rows else {}
    if (source / SCORES).is_file():
        files[SCORES] = (source / SCORES).read_bytes()
    files |= {f"{HISTORY}/{_stamp(old)}.json": old.to_json().encode("utf-8") for old in past}
    rendered = {"board.md": to_markdown(board), "board.csv": to_csv(board), "board.tex": to_latex(board)}
    rendered["history.html"] = _changes_page(board, [board, *reversed(past)])
    rendered[BOARD] = board.to_json()
    rendered["index.html"] = to_html(board, board.example_rows)
    return files | {name: text.encode("utf-8") for name, text in rendered.items()}


def _history(folder: Path, board: Board) -> list[Board]:
    """What was published before, oldest first, and without this very board."""
    known = [Board.read(path) for path in sorted((folder / HISTORY).glob("*.json"))]
    if (folder / BOARD).is_file():
        known.append(Board.read(folder / BOARD))
    distinct = {_stamp(old): old for old in known if _stamp(old) != _stamp(board)}
    return sorted(distinct.values(), key=lambda old: (old.created, _stamp(old)))


def _stamp(board: Board) -> str:
    """When it was made, and what it holds, as a file name."""
    return f"{re.sub(r'[^0-9]', '', board.created)[:14] or '0'}-{digest(board.to_json().encode('utf-8'))[:8]}"


def _kept(folder: Path, published: set[str]) -> list[tuple[str, Board]]:
    """Boards that an earlier publication left in the folder."""
    places = (path.parent.name for path in folder.glob(f"*/{BOARD}"))
    return [(name, Board.read(folder / name)) for name in places if name not in published]


def _line(name: str, board: Board, versions: int) -> str:
    rows = len(board.ranked)
    cells = [
        f'<a href="{name}/index.html">{_text(board.name)}</a>',
        _text(board.summary),
        f"{rows} ranked rows",
        _text(board.created[:10] or "published"),
        f'<a href="{name}/history.html">{versions} earlier</a>' if versions else "first",
    ]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _index(title: str, lines: Sequence[str]) -> str:
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("board", "in one sentence", "rows", "made", "versions"))
    table = f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    return _page(title, f"<h1>{_text(title)}</h1>{table}")


def _changes_page(board: Board, newest_first: Sequence[Board]) -> str:
    """Between any two publications that follow each other."""
    parts = [f'<h1>{_text(board.name)}: what changed</h1><p><a href="index.html">the board</a></p>']
    for new, old in pairwise(newest_first):
        parts.append(f"<h2>{_text(old.created or 'before')} → {_text(new.created or 'now')}</h2>")
        found = changes(old, new)
        parts += [
            f"<h3>{_text(title)}</h3><ul>{''.join(f'<li>{_text(str(change))}</li>' for change in listed)}</ul>"
            for title, listed in found.sections()
        ]
        parts += [] if found else ["<p>No difference in settings, rows or primary scores.</p>"]
    if len(newest_first) == 1:
        parts.append("<p>This is the first publication.</p>")
    return _page(f"{board.name}: what changed", "".join(parts))


def _page(title: str, body: str) -> str:
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def _text(text: str) -> str:
    return html.escape(one_line(text))


def site_card(boards: Sequence[Board], kind: Literal["space", "dataset"], title: str) -> str:
    """The README.md of a repository that holds a site. A data set shows the scores per example of each board as a table."""
    if kind == "space":
        head: dict[str, Any] = {"title": one_line(title), "sdk": "static", "app_file": "index.html", "pinned": False}
    else:
        files = [(slug(board.name), f"{slug(board.name)}/{SCORES}") for board in boards if SCORES in (board.files or {})]
        head = {"pretty_name": one_line(title), "tags": ["leaderboard", "alignment", "evaluation"]}
        if files:
            head["configs"] = [{"config_name": name, "data_files": path} for name, path in files]
    lines = [
        f"- [{markdown_text(board.name)}]({slug(board.name)}/board.md): {markdown_text(board.summary)}" for board in boards
    ]
    return f"---\n{yaml.safe_dump(head, sort_keys=True)}---\n\n# {markdown_text(title)}\n\n" + "\n".join(lines) + "\n"


def model_metadata(board: Board, row: str, model: str) -> dict[str, Any]:
    """One row's scores as the `model-index` of a model's card, by huggingface_hub's own writer.

    Raises:
        DataError: the board has no such row, or it has no scores.
    """
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    entry = board.row(row)
    if entry is None:
        raise DataError(f"row = {row!r}: the board {board.name} has none; {did_you_mean(row, [r.method for r in board.rows])}")
    if not entry.scores or entry.is_published:
        raise DataError(f"row = {row!r}: it has no scores that were measured here")
    source = board.config.get("source")
    data = source.get("name", "data") if isinstance(source, dict) else str(source or "data")
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=slug(str(data)),
            dataset_name=f"{one_line(str(data))} ({one_line(board.name)})",
            metric_type=metric.key,
            metric_name=one_line(board.short_name(metric)),
            metric_value=round(entry.scores[metric.key].mean, 6),
        )
        for metric in board.metrics
        if metric.key in entry.scores
    ]
    return {"model-index": eval_results_to_model_index(model, results)}
