"""Boards as a static site: an index, a page for each board, and a history of its changes; and cards for the hub."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote

import yaml
from markupsafe import Markup

from harness.board.board import ONE_SEED, Board
from harness.board.diff import changes
from harness.board.files import BOARD, EVIDENCE, SCORES, STATES, digest, examples_text, write_bytes
from harness.board.signatures import SIGNATURE, signature_of
from harness.board.views.latex import to_latex
from harness.board.views.markdown import markdown_text, to_csv, to_markdown
from harness.board.views.page import content_policy, model_pages, templates, to_html, web_file
from harness.board.views.text import one_line
from harness.errors import DataError, did_you_mean

HISTORY = "history"
MARKER = ".harness-site"  # in a folder that `harness publish` made
# Words of an index of boards, and of no other page: of version 0.1.0, and of today.
INDEX_ONLY = ('role="region" aria-label="Boards"', '<div class="boards">')
WORKFLOWS = ("publish-boards.yaml", "verify-boards.yaml")


@dataclass(frozen=True)
class Site:
    """The files by their path in the site's folder, in the order in which they are written: the index last."""

    files: dict[str, bytes]

    def write(self, folder: Path) -> Path:
        """Write the files, each whole or not at all; return the path of the index.

        Raises:
            DataError: one would be written through a link.
        """
        for name in self.files:
            for place in (folder / part for part in (name, *(parent.as_posix() for parent in PurePosixPath(name).parents))):
                if place != folder and place.is_symlink():
                    raise DataError(f"{place} is a link, which leads out of the site: remove it, or choose another folder")
        for name, content in self.files.items():
            write_bytes(folder / name, content)
        return folder / "index.html"

    def publish(self, folder: Path) -> Path:
        """Write the files into a folder that is the site's own, as `check_folder` says, and mark it as such."""
        check_folder(folder)
        marked = Site({MARKER: b"Files of this folder were written by `harness publish`, which replaces them.\n", **self.files})
        return marked.write(folder)


def check_folder(folder: Path) -> None:
    """Check that a site may be written to `folder`: it is empty, absent, or holds a site that was published before.

    Hidden files, such as a repository's, may lie there.

    Raises:
        DataError: it holds something else, which might be replaced.
    """
    if not os.path.lexists(folder) or (folder / MARKER).is_file():
        return
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: choose another with --to")
    files = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if files and not _is_index(folder / "index.html"):
        raise DataError(
            f"{folder} holds {files[0]!r} and no site that `harness publish` made: choose an empty folder, so that nothing of "
            "yours is replaced"
        )


def _is_index(path: Path) -> bool:
    """Return whether a file is an index of boards: sites of version 0.1.0 have no marker."""
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() and not path.is_symlink() else ""
        return any(words in text for words in INDEX_ONLY)
    except (OSError, ValueError):
        return False


def build_site(boards: Sequence[Path], folder: Path, title: str = "Leaderboards", signers: Path | None = None) -> Site:
    """Render these boards, and index the boards that `folder` already holds. A changed board keeps its earlier versions.

    Nothing is written: `Site.write` does that, after everything is rendered.

    Args:
        signers: the file of allowed signers, by whose names the index says who signed a board.

    Raises:
        DataError: a board cannot be read, its signature is none of it, or two boards have the same name.
    """
    published: dict[str, tuple[Board, Path]] = {}
    for path in boards:
        board = Board.read(path)
        name = slug(board.name)
        if name in published:
            raise DataError(f"{path} and {published[name][1]} are both called {name!r}: publish them into different folders")
        published[name] = (board, path)
    files: dict[str, bytes] = {}
    entries, signed = [], dict[str, str]()
    for name, (board, path) in published.items():
        past = _history(folder / name, board)
        files |= {f"{name}/{file}": content for file, content in _board_files(board, path, past).items()}
        entries.append((name, board, len(past)))
        if signature := signature_of(path, signers):
            signed[name] = signature.sentence
    entries += sorted(((name, board, 0) for name, board in _others(folder, set(published))), key=lambda entry: entry[0])
    for name in (name for name, _, _ in entries if name not in published):
        signed[name] = _signed_earlier(folder / name, signers)
    return Site({**files, "index.html": _index(title, entries, signed).encode("utf-8")})


def _signed_earlier(folder: Path, signers: Path | None) -> str:
    """Return who signed a board that is on the site already; the signature may be of the version before."""
    try:
        signature = signature_of(folder, signers)
    except DataError:
        return "signed before it was changed"
    return signature.sentence if signature else ""


def slug(name: str) -> str:
    """Return a name as a folder's name, in lower case with hyphens; a hash if it has no letter or digit."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80]
    return plain or f"board-{digest(name.encode('utf-8'))[:8]}"


def workflows() -> dict[str, bytes]:
    """Return the GitHub workflows by their path in a repository."""
    folder = resources.files("harness.board.views").joinpath("workflows")
    return {f".github/workflows/{name}": folder.joinpath(name).read_bytes() for name in WORKFLOWS}


def _board_files(board: Board, path: Path, past: Sequence[Board]) -> dict[str, bytes]:
    """Return a board's files, its views, its earlier versions and the page of their changes."""
    source = path if path.is_dir() else path.parent
    files = {board.examples: examples_text(board.example_rows).encode("utf-8")} if board.example_rows else {}
    files |= {name: (source / name).read_bytes() for name in (SCORES, STATES, EVIDENCE) if (source / name).is_file()}
    files |= {f"{HISTORY}/{_stamp(old)}.json": old.to_json().encode("utf-8") for old in past}
    rendered = {"board.md": to_markdown(board), "board.csv": to_csv(board), "board.tex": to_latex(board)}
    rendered["history.html"] = _history_page(board, [board, *reversed(past)])
    rendered[BOARD] = board.to_json()
    rendered |= model_pages(board)
    rendered["index.html"] = to_html(board, board.example_rows)
    files |= {name: text.encode("utf-8") for name, text in rendered.items()}
    if (source / SIGNATURE).is_file():  # of these bytes, which an earlier version may have written otherwise
        files |= {name: (source / name).read_bytes() for name in (BOARD, SIGNATURE)}
    return files


def _history(folder: Path, board: Board) -> list[Board]:
    """Return the earlier versions of a board in its folder, oldest first."""
    known = [Board.read(path) for path in sorted((folder / HISTORY).glob("*.json"))]
    if (folder / BOARD).is_file():
        known.append(Board.read(folder / BOARD))
    distinct = {_stamp(old): old for old in known if _stamp(old) != _stamp(board)}
    return sorted(distinct.values(), key=lambda old: (old.created, _stamp(old)))


def _stamp(board: Board) -> str:
    """Return a file name of the board's time and the hash of its content."""
    return f"{re.sub(r'[^0-9]', '', board.created)[:14] or '0'}-{digest(board.to_json().encode('utf-8'))[:8]}"


def _others(folder: Path, published: set[str]) -> list[tuple[str, Board]]:
    """Return the boards in the folder that are not published now."""
    names = (path.parent.name for path in folder.glob(f"*/{BOARD}"))
    return [(name, Board.read(folder / name)) for name in names if name not in published]


def write_index(folder: Path, title: str) -> None:
    """Write the index of the boards in `folder`; a board that cannot be read is left out. Another index.html stays.

    Raises:
        StoreError: the folder cannot be written.
    """
    entries = []
    for path in sorted(folder.glob(f"*/{BOARD}")):
        with suppress(DataError):
            entries.append((path.parent.name, Board.read(path, examples=False), 0))
    entries.sort(key=lambda entry: entry[1].created, reverse=True)
    if not os.path.lexists(folder / "index.html") or _is_index(folder / "index.html"):
        write_bytes(folder / "index.html", _index(title, entries).encode("utf-8"))


def _index(title: str, entries: Sequence[tuple[str, Board, int]], signed: Mapping[str, str] | None = None) -> str:
    """Return the index page.

    Args:
        entries: each board's folder, the board, and the number of its earlier versions.
        signed: folder -> who signed its board.
    """
    boards = [
        # Quoted: a name may look like an address (`javascript:…`), hold `?` or `#`, or bytes that are no text.
        {
            "folder": quote(os.fsencode(name)),
            "board": board,
            "rows": len(board.ranked),
            "earlier": earlier,
            "caveats": caveats(board),
            "signed": (signed or {}).get(name, ""),
        }
        for name, board, earlier in entries
    ]
    return _page("site_index.html", title=title, boards=boards)


def _page(template: str, **content: object) -> str:
    """Return a page of the site, in the boards' style."""
    style, script = web_file("style.css"), web_file("theme.js")
    shown = {"style": Markup(style), "script": Markup(script), "policy": content_policy(style, script)}
    return templates().get_template(template).render(**shown, **content)


def caveats(board: Board) -> list[str]:
    """Return what a reader must know before believing a board's summary: seeds, tuning, printed numbers, failures, warnings."""
    if board.is_published:
        return ["Published numbers, not measured here: no intervals, no tests."]
    failed = [row.method for row in board.rows if row.failed]
    return [
        *([ONE_SEED] if board.has_one_seed else []),
        board.tuned_alike,
        *([f"Failed rows: {', '.join(failed)}."] if failed else []),
        *board.warnings,
    ]


def _history_page(board: Board, newest_first: Sequence[Board]) -> str:
    """Return the page of changes between successive publications."""
    steps = [(old, new, changes(old, new)) for new, old in pairwise(newest_first)]
    return _page("site_history.html", title=f"{board.name}: what changed", steps=steps)


def site_card(boards: Sequence[Board], kind: Literal["space", "dataset"], title: str) -> str:
    """Return the README.md of a repository with a site. A data set's card names the scores per example of each board."""
    if kind == "space":
        head: dict[str, object] = {"title": one_line(title), "sdk": "static", "app_file": "index.html", "pinned": False}
    else:
        files = [(slug(board.name), f"{slug(board.name)}/{SCORES}") for board in boards if SCORES in (board.files or {})]
        head = {"pretty_name": one_line(title), "tags": ["leaderboard", "alignment", "evaluation"]}
        if files:
            head["configs"] = [{"config_name": name, "data_files": path} for name, path in files]
    lines = [
        f"- [{markdown_text(board.name)}]({slug(board.name)}/board.md): {markdown_text(board.summary)}" for board in boards
    ]
    return f"---\n{yaml.safe_dump(head, sort_keys=True)}---\n\n# {markdown_text(title)}\n\n" + "\n".join(lines) + "\n"


def model_metadata(board: Board, row: str, model: str) -> dict[str, object]:
    """Return one row's scores as the `model-index` of a model's card, in the form of huggingface_hub.

    Raises:
        DataError: the board has no such row, or the row has no measured scores.
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
