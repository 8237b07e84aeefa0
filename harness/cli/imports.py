"""`harness import`: put results of other tools on a board."""

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
    out: Annotated[Path, typer.Option(help="Folder of the board; rows are added if it has one.")] = Path("runs/imported"),
    baseline: Annotated[
        str | None,
        typer.Option(help="The row to compare with; default: the board's baseline, or the first row.", show_default=False),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="Rename a row; repeatable.", show_default=False)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Set a field of the importer; repeatable.", show_default=False),
    ] = None,
    allow_mixed_judges: Annotated[
        bool, typer.Option(help="Compare rows even if different judges, or versions of a judge, scored them.")
    ] = False,
    examples: Annotated[bool, typer.Option(help="Show prompts and answers; without them, the board has numbers only.")] = True,
    json_: JsonOption = False,
) -> None:
    """Put results of alpaca_eval, lm-eval or FastChat on a board: rows of kind `imported`, compared example by example.

    Repeat it with another tool and the same --out to put all on one board; with a run's folder as --out, the rows join
    the rows measured there. Results without scores per example become rows of kind `published`, which are not compared.
    """
    from harness.board.files import BOARD
    from harness.board.imports import ImportRequest, import_rows
    from harness.board.views.page import write_all

    tool = tool.replace("-", "_")
    importer = _importer(tool, set_ or [])
    imported = list(importer.read(paths))
    labels = _labels(label or [], {item.label for item in imported})
    created = datetime.now(UTC).isoformat(timespec="seconds")
    request = ImportRequest(tool, paths, created, labels, baseline, allow_mixed_judges, examples)
    board = import_rows(imported, request, out.resolve().name, out if (out / BOARD).exists() else None)
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
    """Return the new label of each renamed row, from `OLD=NEW` pairs."""
    from harness.errors import HarnessError, did_you_mean

    labels = {}
    for text in given:
        old, equals, new = text.partition("=")
        if not equals or not new:
            raise HarnessError(f"--label {text!r}: write OLD=NEW")
        if old not in known:
            raise HarnessError(f"--label {text!r}: the files have no row {old!r}: {did_you_mean(old, sorted(known))}")
        labels[old] = new
    return labels
