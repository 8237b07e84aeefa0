"""Options that several commands share, and the config, store and mirror that they choose."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import complete
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.config.strict_yaml import RawConfig

ConfigArgument = Annotated[
    Path | None,
    typer.Argument(help="A YAML file; default: the packaged quickstart.", show_default=False, autocompletion=complete.configs),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a field, e.g. --set budget.prompts=200; repeatable.", show_default=False
    ),
]
MethodsOption = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,…",
        help="Only these rows and the baseline, by label; or registered methods by name.",
        show_default=False,
        autocompletion=complete.methods,
    ),
]
SeedsOption = Annotated[str | None, typer.Option(metavar="0,1,…", help="The seeds to repeat with.", show_default=False)]
OutOption = Annotated[Path | None, typer.Option(help="Folder of the board; default: runs/<name>.", show_default=False)]
StoreOption = Annotated[
    Path | None,
    typer.Option(help="Folder of artifacts, shared by runs; default: $HARNESS_STORE or runs/store.", show_default=False),
]
MirrorOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="A remote copy of the store, e.g. s3://bucket/harness; default: $HARNESS_MIRROR.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print only JSON to standard output, for scripts.")]


def find_config(given: Path | None) -> Path:
    """Return the path of the config: the option, a packaged config of its name, or the quickstart."""
    # Imported here, since the config's modules import torch, and `harness --help` must start at once.
    from harness.config.file import find_config as find

    return find(given)


def read_config(path: Path, sets: list[str] | None, methods: str | None, seeds: str | None) -> RawConfig:
    """Return the raw config with all overrides applied."""
    from harness.config.file import chosen_rows, load_raw, override

    raw = override(load_raw(path), sets or [])
    if methods is not None:
        names = [name.strip() for name in methods.split(",") if name.strip()]
        if not names:
            raise HarnessError(f"--methods {methods!r}: name at least one row, for example --methods sft,dpo")
        raw["methods"] = chosen_rows(raw.get("methods"), names, raw.get("baseline"))
    if seeds is not None:
        try:
            raw["seeds"] = [int(seed) for seed in seeds.split(",")]
        except ValueError:
            raise HarnessError(f"--seeds {seeds!r}: write whole numbers with commas, for example --seeds 0,1") from None
    return raw


def named_origins(path: Path, sets: list[str] | None, methods: str | None, seeds: str | None) -> AbstractContextManager[None]:
    """Return a context in which problems of the config are blamed on the option or the line that they come from."""
    from harness.config.origins import Origins

    return Origins(path, sets or (), methods, seeds).named()


def store_folder(given: Path | None) -> Path:
    """Return the store's folder: the option, $HARNESS_STORE, or runs/store."""
    return given or Path(os.environ.get("HARNESS_STORE") or Path("runs") / "store")


def mirror_url(given: str | None) -> str | None:
    """Return the mirror's URL, if any: the option or $HARNESS_MIRROR. Boards name it, so a password in it is an error."""
    from harness.config.problems import hidden

    url = given or os.environ.get("HARNESS_MIRROR") or None
    if url is not None and hidden(url) != url:
        fix = "put the credentials into the variables of the mirror's client, e.g. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise HarnessError(f"the mirror {hidden(url)} holds a password, and boards name it: {fix}")
    return url
