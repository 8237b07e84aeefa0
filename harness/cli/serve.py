"""`harness serve-policy`: serve a checkpoint of a finished run by an OpenAI-compatible server."""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import complete
from harness.cli.options import JsonOption, StoreOption, store_folder
from harness.errors import HarnessError, did_you_mean

if TYPE_CHECKING:
    from harness.board.build import Board

ENGINES = ("transformers", "vllm")


def register(app: typer.Typer) -> None:
    app.command(
        name="serve-policy",
        epilog="Examples: harness serve-policy runs/quickstart dpo --port 8000  ·  "
        "harness serve-policy runs/quickstart dpo --engine vllm --python vllm-env/bin/python --dry-run",
    )(serve_policy)


def serve_policy(
    run: Annotated[Path, typer.Argument(help="A run's folder with its board.json; or a checkpoint's folder.")],
    row: Annotated[
        str | None, typer.Argument(help="The row's label on the board.", show_default=False, autocompletion=complete.rows)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the row; default: its first.", show_default=False)] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 for any free one.")] = 8000,
    engine: Annotated[str, typer.Option(help="transformers (this process) or vllm (a separate environment).")] = ENGINES[0],
    name: Annotated[str | None, typer.Option(help="The model's name at the server.", show_default=False)] = None,
    python: Annotated[str, typer.Option(help="The Python interpreter of the environment with vLLM.")] = "python",
    argument: Annotated[
        list[str] | None, typer.Option(help="One more option for vLLM's server; repeatable.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print vLLM's command and exit.")] = False,
    store: StoreOption = None,
    json_: JsonOption = False,
) -> None:
    """Serve a row's model by OpenAI's completion and chat endpoints, until interrupted.

    `--engine vllm` starts vLLM's server in place of this process. `--engine transformers` is a small server for checks and
    small models; it answers one request at a time.
    """
    from harness.models.delta_note import is_delta
    from harness.models.serve import PolicyServer, vllm_command

    if engine not in ENGINES:
        raise HarnessError(f"--engine {engine!r}: {did_you_mean(engine, ENGINES)}")
    folder, default = _checkpoint(run, row, seed, store_folder(store))
    model_name = name or default
    if engine == "vllm":
        if is_delta(folder):
            raise HarnessError(
                f"{folder} holds a difference from another model, which vLLM cannot read: `harness export` it first"
            )
        command = vllm_command(python, str(folder), model_name, str(port), ["--host", host, *(argument or [])])
        _exec(command, json_, dry_run)
        return
    with whole_checkpoint(folder, store_folder(store), store_folder(store) / "engines") as whole:
        policy = PolicyServer.of(whole, model_name)
    with policy.listen(host, port) as server:
        url = f"http://{host}:{server.server_address[1]}/v1"
        typer.echo(json.dumps({"url": url, "model": model_name}) if json_ else f"{model_name} at {url}; stop it with Ctrl-C")
        sys.stdout.flush()
        server.serve_forever()


def _exec(command: list[str], json_: bool, dry_run: bool) -> None:
    """Replace this process by vLLM's server."""
    typer.echo(json.dumps({"command": command}) if json_ else shlex.join(command))
    if dry_run:
        return
    sys.stdout.flush()
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise HarnessError(f"--python {command[0]!r} cannot be run ({error.strerror}): name the interpreter of vLLM") from error


def row_checkpoint(board: Board, row: str, seed: int | None, store: Path) -> tuple[Path, str]:
    """Return the folder of a row's model, and its model name for backends.

    Raises:
        HarnessError: there is no such row or seed, or the model is not in a folder that can be had.
    """
    from harness.models.checkpoint import locate
    from harness.run.graph import CHECKPOINT, SERVED
    from harness.run.stages.context import stored_model
    from harness.run.stages.services import policy_name
    from harness.store import Store

    entry = board.row(row)
    if entry is None:
        raise HarnessError(f"no row is called {row!r}: {did_you_mean(row, [entry.method for entry in board.rows])}")
    models = dict(entry.provenance.get("models", {}))
    chosen = str(seed) if seed is not None else next(iter(models), "")
    if chosen not in models:
        raise HarnessError(f"--seed {chosen}: the row {row!r} has {', '.join(models) or 'no finished model'}")
    reference = str(models[chosen])
    if entry.is_as_it_is:
        where = "only its server has it" if reference.startswith(SERVED) else "take it from where the config has it"
        raise HarnessError(f"the row {row!r} is a model from elsewhere: {where}")
    if not reference.startswith(CHECKPOINT):
        return stored_model(Store(store), reference), policy_name(reference)
    whole = board.of_model(entry.model) if entry.model is not None else board
    section = whole.config.get("model") or {}
    checkpoint = locate(str(section.get("path")), section.get("revision"))
    if checkpoint.digest != reference.removeprefix(CHECKPOINT):
        raise HarnessError(
            f"the row {row!r} is the starting model {section.get('path')!r}, which has changed since, or which the config "
            "loads with options (adapter, template, dtype …) that only trained checkpoints store: choose a trained row"
        )
    return checkpoint.files(), policy_name(reference)


@contextmanager
def whole_checkpoint(folder: Path, store: Path, scratch: Path) -> Iterator[Path]:
    """Yield a checkpoint folder with whole weights: itself, or what a delta stands for, until the block ends.

    Args:
        scratch: the folder in which that is written.
    """
    from harness.models.delta import rebuild
    from harness.models.delta_note import is_delta
    from harness.run.stages.context import base_folder
    from harness.store import Store

    if not is_delta(folder):
        yield folder
        return
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".whole-") as place:
        yield rebuild(folder, lambda base: base_folder(base, Store(store), {}), Path(place) / "model")


def _checkpoint(run: Path, row: str | None, seed: int | None, store: Path) -> tuple[Path, str]:
    """Return the checkpoint's folder, and the model name that backends expect."""
    from harness.board.build import Board
    from harness.models.checkpoint import checkpoint_folder, checkpoint_hash
    from harness.run.stages.services import policy_name

    if row is None and (run / "board.json").exists():
        labels = ", ".join(entry.method for entry in Board.read(run).rows)
        raise HarnessError(f"which row of {run}? Name one of: {labels}")
    if row is None:
        folder = checkpoint_folder(str(run))
        return folder, policy_name(checkpoint_hash(folder))
    return row_checkpoint(Board.read(run), row, seed, store)
