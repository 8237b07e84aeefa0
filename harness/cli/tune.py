"""`harness tune`: search the settings of a config's rows, and write a config that has them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.compare import (
    AddressOption,
    ExecutorOption,
    GpusOption,
    MemoryOption,
    WorkersOption,
    choose_executor,
)
from harness.cli.options import (
    ConfigArgument,
    JsonOption,
    MethodsOption,
    MirrorOption,
    SeedsOption,
    SetOption,
    StoreOption,
    find_config,
    mirror_url,
    named_origins,
    read_config,
    store_folder,
)

if TYPE_CHECKING:
    from harness.board.entries import TuningEntry


def register(app: typer.Typer) -> None:
    app.command(
        name="tune",
        epilog="Examples: harness tune sandbox-tuned  ·  harness tune my.yaml --to chosen.yaml  ·  "
        "harness tune my.yaml --set tuning.trials=16",
    )(tune)


def tune(
    config: ConfigArgument = None,
    set_: SetOption = None,
    methods: MethodsOption = None,
    seeds: SeedsOption = None,
    to: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The config to write; default: NAME-settled.yaml here.", show_default=False),
    ] = None,
    store: StoreOption = None,
    mirror: MirrorOption = None,
    executor: ExecutorOption = "local",
    workers: WorkersOption = None,
    gpus: GpusOption = None,
    ray_address: AddressOption = None,
    ray_memory_gb: MemoryOption = 0.0,
    json_: JsonOption = False,
) -> None:
    """Search the settings of every row as the config's `tuning` says, and write a config with the chosen ones.

    Nothing is evaluated on held-out prompts. `harness compare` with the same config computes no trial again. With the config
    that this writes it runs the rows alone, and its board says that it has no search.
    """
    import yaml

    from harness.board.views.text import visible
    from harness.run.compare import RunOptions
    from harness.run.compare import tune as run
    from harness.run.observers import display_here
    from harness.store.atomic import write_atomically

    path = find_config(config)
    raw = read_config(path, set_, methods, seeds)
    chosen = choose_executor(executor, workers, gpus, ray_address, int(ray_memory_gb * 1e9))
    with named_origins(path, set_, methods, seeds):
        settled = run(
            raw,
            folder=Path("runs") / str(raw.get("name", path.stem)),
            store=store_folder(store),
            workers=chosen.workers,
            options=RunOptions(executor=chosen.make, mirror=mirror_url(mirror), display="lines" if json_ else display_here()),
            where=str(path),
            variables=os.environ,
        )
    written = to or Path(f"{settled.config['name']}.yaml")
    notes = "".join(f"# {visible(line)}\n" for line in _notes(settled.entries, path.name))
    text = yaml.safe_dump(settled.config, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    write_atomically(written, (notes + text).encode())
    if json_:
        entries = {series: entry.model_dump(mode="json") for series, entry in settled.entries.items()}
        typer.echo(json.dumps({"config": str(written), "tuning": entries}))
    else:
        typer.echo(f"{notes}Config: {written}")


def _notes(entries: Mapping[str, TuningEntry], config: str) -> Iterator[str]:
    """Yield where the settings of a config come from, a line for each row."""
    yield f"Settings chosen on the tuning split by `harness tune {config}`, {datetime.now(UTC).date().isoformat()}:"
    for series, entry in entries.items():
        if entry.default is not None:
            yield f"  {series}: its own settings ({entry.default})"
        elif entry.number is None:
            yield f"  {series}: every trial failed, so it has its own settings"
        else:
            score = entry.scores[entry.number]
            seeds = sorted({trial.seed for trial in entry.trials or ()})
            yield f"  {series}: trial {entry.number + 1} of {len(entry.scores)}, {entry.metric} {score:.4g} at seeds {seeds}"
