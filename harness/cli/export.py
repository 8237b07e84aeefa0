"""`harness export`: a row's model as a plain checkpoint folder with a model card."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import complete
from harness.cli.options import JsonOption, StoreOption, store_folder
from harness.errors import HarnessError, StoreWriteError

if TYPE_CHECKING:
    from harness.board.build import Board
    from harness.board.entries import RowEntry

CARD = "README.md"


def register(app: typer.Typer) -> None:
    app.command(name="export", epilog="Examples: harness export runs/quickstart dpo --seed 0 --to dpo-model")(export)


def export(
    run: Annotated[Path, typer.Argument(help="A run's folder with its board.json.", autocompletion=complete.boards)],
    row: Annotated[str, typer.Argument(help="The row's label on the board.", autocompletion=complete.rows)],
    to: Annotated[Path, typer.Option(help="The checkpoint folder to write; it must not exist, or be empty.")],
    seed: Annotated[int | None, typer.Option(help="Seed of the row; default: its first.", show_default=False)] = None,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Write the low-rank adapter of the row's last round alone, as PEFT saves it.")
    ] = False,
    store: StoreOption = None,
    json_: JsonOption = False,
) -> None:
    """Write a row's model as a plain checkpoint folder: weights as safetensors, configuration, tokenizer, template, model card.

    Any tool that reads such folders can load it, and a row `{checkpoint: FOLDER}` has the scores of the row that it came from.
    With --adapter, so has a row `{checkpoint: {path: START, adapter: FOLDER}}` with the model that the round started from.
    """
    from harness.board.build import Board
    from harness.cli.serve import row_checkpoint, whole_checkpoint
    from harness.run.graph import ADAPTER

    board = Board.read(run)
    folder, _ = row_checkpoint(board, row, seed, store_folder(store))
    if adapter:
        folder = folder.parent / ADAPTER
        if not folder.is_dir():
            raise HarnessError(f"--adapter: the row {row!r} was trained without `lora`, and has none: leave the option out")
    entry = board.row(row)
    assert entry is not None  # `row_checkpoint` has refused any other
    chosen = str(seed) if seed is not None else next(iter(entry.provenance.models))
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise HarnessError(f"--to {to}: it is there already; name a folder that is not")
    try:
        with whole_checkpoint(folder, store_folder(store), to.parent) as whole:
            _copy(whole, to, model_card(board, entry, chosen))
    except OSError as error:
        raise StoreWriteError(f"--to {to} cannot be written ({error.strerror}): choose another folder") from error
    written = sorted(path.name for path in to.iterdir())
    typer.echo(json.dumps({"folder": str(to), "row": row, "seed": int(chosen), "files": written}) if json_ else str(to))


def _copy(folder: Path, to: Path, card: str) -> None:
    """Copy a checkpoint's files beside the target first, so that a folder of this name is whole."""
    from harness.models.checkpoint import OTHER_FORMATS

    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}-") as scratch:
        whole = Path(scratch) / "model"
        shutil.copytree(folder, whole, ignore=shutil.ignore_patterns(*OTHER_FORMATS, ".*", CARD))
        (whole / CARD).write_text(card, encoding="utf-8")
        whole.chmod(0o755)
        whole.replace(to)


def model_card(board: Board, row: RowEntry, seed: str) -> str:
    """Return a model card in the hub's format: how the model was made, and its scores on the board."""
    from harness.board.views.markdown import markdown_text
    from harness.board.views.text import number

    model = row.provenance.model
    start = (
        f"{model.hub} at commit {model.commit}" if model and model.hub else f"the model of hash {model.hash}" if model else ""
    )
    head = ["---", "library_name: transformers", "tags: [preference-optimisation]"]
    head += [f"base_model: {model.hub}"] if model and model.hub else []
    lines = [*head, "---", "", f"# {markdown_text(row.method)}, seed {seed}", ""]
    lines.append(f"Trained by the comparison {markdown_text(board.name)} of {board.created}, from {start or 'its start'}.")
    lines += ["", f"- data: {markdown_text(row.data or 'none')}", f"- objective: {markdown_text(row.objective or 'none')}"]
    lines += (
        [f"- rounds: {row.rounds}", f"- prompts: {row.budget['prompts']:g}"] if row.rounds and "prompts" in row.budget else []
    )
    lines += ["", "| metric | this seed | all seeds |", "|---|---|---|"]
    for metric in board.metrics:
        if (score := row.scores.get(metric.key)) is not None:
            by_seed = dict(zip(map(str, score.seeds or row.seeds), score.per_seed, strict=False))
            own = number(by_seed[seed]) if seed in by_seed else "–"
            lines.append(f"| {markdown_text(metric.key)} | {own} | {number(score.mean)} |")
    return "\n".join([*lines, "", "The training data may restrict how the model may be used; so may its starting model.", ""])
