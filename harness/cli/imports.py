"""`harness import`: results of other tools as rows of a board."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.compare import show
from harness.cli.options import JsonOption


def register(app: typer.Typer) -> None:
    app.command(
        name="import",
        epilog="Example: harness import fastchat data/mt_bench/model_judgment/gpt-4_single.jsonl --out runs/others",
    )(import_)


def import_(
    tool: Annotated[str, typer.Argument(help="alpaca-eval, lm-eval, fastchat, or a plugin's importer.")],
    paths: Annotated[list[Path], typer.Argument(help="The tool's files or folders.", metavar="PATH…")],
    out: Annotated[Path, typer.Option(help="Folder of the board; added to where one is there.")] = Path("runs/imported"),
    baseline: Annotated[
        str | None, typer.Option(help="The row to compare with; the board's, or the first.", show_default=False)
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="Another name for a row; repeatable.", show_default=False)
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="A field of the importer.", show_default=False)
    ] = None,
    allow_mixed_judges: Annotated[
        bool, typer.Option(help="Compare rows although different judges, or versions of one, marked them.")
    ] = False,
    examples: Annotated[
        bool, typer.Option(help="Show prompts and answers; without, the board holds numbers and no text of the files.")
    ] = True,
    json_: JsonOption = False,
) -> None:
    """Put results of alpaca_eval, lm-eval or FastChat on a board: rows of kind `imported`, compared example by example.

    Run it again with another tool and the same --out to put all on one board; give a run's folder to put them beside
    what was measured there. Results without values per example become rows of kind `published`, which are not compared.
    """
    from harness.board.files import BOARD
    from harness.board.imports import ImportRequest, import_rows
    from harness.board.views.page import write_all

    tool = tool.replace("-", "_")
    importer = _importer(tool, set_ or [])
    found = list(importer.read(paths))
    labels = _labels(label or [], {item.label for item in found})
    created = datetime.now(UTC).isoformat(timespec="seconds")
    request = ImportRequest(tool, paths, created, labels, baseline, allow_mixed_judges, examples)
    board = import_rows(found, request, out.resolve().name, out if (out / BOARD).exists() else None)
    write_all(board, board.example_rows, out)
    if json_:
        typer.echo(json.dumps(board.model_dump(mode="json", by_alias=True)))
    else:
        show(board, out)


def _importer(tool: str, sets: list[str]) -> Any:
    from pydantic import ValidationError

    from harness.api.registry import Registry
    from harness.config.file import override
    from harness.errors import HarnessError

    component = Registry.load().get("importer", tool).component
    try:
        return component(**override({}, sets))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "field"
        raise HarnessError(f"--set {field}: {first['msg']}; `harness plugins show {tool}` lists the fields") from None


def _labels(given: list[str], known: set[str]) -> dict[str, str]:
    """`OLD=NEW` pairs."""
    from harness.errors import HarnessError, did_you_mean

    found = {}
    for text in given:
        old, equals, new = text.partition("=")
        if not equals or not new:
            raise HarnessError(f"--label {text!r}: write OLD=NEW")
        if old not in known:
            raise HarnessError(f"--label {text!r}: the files have no row {old!r}: {did_you_mean(old, sorted(known))}")
        found[old] = new
    return found
