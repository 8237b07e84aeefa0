"""What several commands take, and how a config is found and changed by it."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.errors import HarnessError, did_you_mean

ConfigArgument = Annotated[
    Path | None, typer.Argument(help="A YAML file; without one, the packaged quickstart.", show_default=False)
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
        metavar="A,B,…", help="Only these rows and the baseline, by label; or registered methods by name.", show_default=False
    ),
]
SeedsOption = Annotated[str | None, typer.Option(metavar="0,1,…", help="The seeds to repeat with.", show_default=False)]
OutOption = Annotated[Path | None, typer.Option(help="Folder of the board; runs/<name> if absent.", show_default=False)]
StoreOption = Annotated[
    Path | None, typer.Option(help="Folder of artifacts, shared by runs; $HARNESS_STORE or runs/store.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts and nothing else.")]


def packaged_config(name: str) -> Path:
    """A config that ships with the package."""
    return Path(str(resources.files("harness.configs") / f"{name}.yaml"))


def find_config(path: Path | None) -> Path:
    """The file a user means: a path, or the name of a packaged config."""
    if path is None:
        return packaged_config("quickstart")
    if not path.exists() and path.suffix == "" and len(path.parts) == 1:
        packaged = packaged_config(path.name)
        if packaged.exists():
            return packaged
        known = [file.stem for file in packaged.parent.glob("*.yaml")]
        raise HarnessError(f"no config at {path}, and no packaged config is called so: {did_you_mean(path.name, known)}")
    return path


def read_config(path: Path, sets: list[str] | None, methods: str | None, seeds: str | None) -> dict[str, Any]:
    """The raw config with all overrides applied."""
    from harness.yaml_file import load_raw, override

    raw = override(load_raw(path), sets or [])
    if methods is not None:
        names = [name.strip() for name in methods.split(",") if name.strip()]
        raw["methods"] = _chosen(raw.get("methods"), names, raw.get("baseline"))
    if seeds is not None:
        try:
            raw["seeds"] = [int(seed) for seed in seeds.split(",")]
        except ValueError:
            raise HarnessError(f"--seeds {seeds!r}: write whole numbers with commas, for example --seeds 0,1") from None
    return raw


def _chosen(entries: Any, names: list[str], baseline: Any) -> list[Any]:
    """The config's rows with these labels; a name that is no label stands for the registered method. The baseline stays."""
    from harness.yaml_file import called

    by_label = (
        {label: entry for entry in entries if isinstance(label := called(entry), str)} if isinstance(entries, list) else {}
    )
    if baseline in by_label and baseline not in names:
        names = [baseline, *names]
    return [by_label.get(name, name) for name in names]


def store_folder(given: Path | None) -> Path:
    """Where artifacts are kept: the option, $HARNESS_STORE, or runs/store."""
    return given or Path(os.environ.get("HARNESS_STORE") or Path("runs") / "store")
