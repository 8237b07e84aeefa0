"""Shell completion of values: configs, methods, rows, metrics, components. A mistake completes nothing and prints nothing.

`harness --install-completion` sets it up for the shell. Completing imports no torch and reads no scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from harness.board.board import Board

Values = Iterable[tuple[str, str]]  # each with one line of help


def configs(incomplete: str) -> list[tuple[str, str]]:
    """Complete a config: packaged ones by name, and YAML files and folders here."""
    from importlib import resources

    packaged = Path(str(resources.files("harness.configs")))
    names = sorted((file.stem, "packaged") for file in packaged.glob("*.yaml"))
    start = Path(incomplete)
    folder = start if incomplete.endswith("/") else start.parent
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        entries = []
    prefix = "" if folder == Path() else f"{folder}/".replace("//", "/")
    files = [(f"{prefix}{entry.name}", "file") for entry in entries if entry.suffix in (".yaml", ".yml")]
    folders = [(f"{prefix}{entry.name}/", "folder") for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    return _matching([*names, *files, *folders], incomplete)


def methods(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Complete the last of a comma-separated list of rows: the config's labels, then the registered methods."""
    from harness.api.registry import Registry
    from harness.config.file import called, find_config, load_raw

    given, _, last = incomplete.rpartition(",")
    taken = set(given.split(","))

    def known() -> Values:
        labels = [called(item) for item in load_raw(find_config(_argument(ctx, "config"))).get("methods") or ()]
        yield from ((label, "row of the config") for label in labels if isinstance(label, str))
        yield from ((name, entry.summary) for name, entry in Registry.load().entries["method"].items() if name not in labels)

    values = _matching(_quietly(known), last)
    return [(f"{given},{value}" if given else value, text) for value, text in values if value not in taken]


def components(incomplete: str) -> list[tuple[str, str]]:
    """Complete the name of a registered component of any kind."""
    from harness.api.registry import Registry

    def known() -> Values:
        entries = Registry.load().entries
        return [(name, f"{kind}: {entry.summary}") for kind in entries for name, entry in sorted(entries[kind].items())]

    return _matching(_quietly(known), incomplete)


def analyses(incomplete: str) -> list[tuple[str, str]]:
    """Complete the name of an analysis, `all` or `list`."""
    from harness.api.registry import Registry

    def known() -> Values:
        entries = Registry.load().entries["analysis"]
        return [("all", "every analysis"), ("list", "show them"), *((name, item.summary) for name, item in entries.items())]

    return _matching(_quietly(known), incomplete)


def boards(incomplete: str) -> list[tuple[str, str]]:
    """Complete the folder of a board: those under `runs/` and `leaderboards/`, then folders here."""
    from harness.board.files import BOARD
    from harness.run.folders import run_folders

    def known() -> Values:
        roots = [root for root in (Path("runs"), Path("leaderboards")) if root.is_dir()]
        yield from ((str(folder), "board") for root in roots for folder in run_folders(root) if (folder / BOARD).is_file())

    folders = [(value, text) for value, text in configs(incomplete) if text == "folder"]
    return [*_matching(_quietly(known), incomplete), *folders]


def rows(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Complete a row's label on the board that the command names."""
    return _matching(_quietly(lambda: [(row.method, row.kind) for row in _board(ctx).rows]), incomplete)


def metrics(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Complete a metric's key on the board that the command names."""
    return _matching(_quietly(lambda: [(item.key, item.description) for item in _board(ctx).metrics]), incomplete)


def _board(ctx: typer.Context) -> Board:
    from harness.board.board import Board

    folder = _argument(ctx, "board", "run", "boards")
    return Board.read(folder or Path(), examples=False)


def _argument(ctx: typer.Context, *names: str) -> Path | None:
    """Return the command's first argument, by any of these names.

    After an option that lacks its value, which is being completed, arguments are not yet assigned to their names.
    """
    given = next((ctx.params[name] for name in names if ctx.params.get(name)), None) or ctx.args
    if isinstance(given, list | tuple):
        given = given[0] if given else None
    return None if given is None else Path(given)


def _quietly(values: Callable[[], Values]) -> list[tuple[str, str]]:
    """Return the values as far as they can be had: while a shell completes, no error has a place to be shown."""
    listed: list[tuple[str, str]] = []
    try:
        listed.extend(values())
    except Exception:
        return listed
    return listed


def _matching(values: Values, incomplete: str) -> list[tuple[str, str]]:
    return [(value, text) for value, text in dict(values).items() if value.startswith(incomplete)]
