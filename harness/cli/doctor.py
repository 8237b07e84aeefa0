"""`harness doctor`: check whether this machine can run a comparison, and name fixes."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

import typer

from harness.cli.options import JsonOption, StoreOption, store_folder
from harness.extras import install, is_installed

BROKEN = 1
NEEDED_MEMORY, NEEDED_DISK = 4 * 2**30, 2 * 2**30  # bytes, for the quickstart


@dataclass(frozen=True)
class Check:
    """The result of one check; `fix` is None if nothing is wrong."""

    check: str
    found: str
    fix: str | None = None


def register(app: typer.Typer) -> None:
    app.command(name="doctor", epilog="Example: harness doctor --json")(doctor)


def doctor(store: StoreOption = None, json_: JsonOption = False) -> None:
    """Check Python, libraries, plugins, memory, disk and the embedded model; exit code 1 if something needs a fix."""
    checks: list[Callable[[], Check]] = [
        _python,
        _libraries,
        _plugins,
        _sandbox,
        _memory,
        _devices,
        _engines,
        lambda: _disk(store_folder(store)),
    ]
    results = [run() for run in checks]
    if json_:
        typer.echo(json.dumps([asdict(result) for result in results]))
    else:
        for result in results:
            typer.echo(f"{'ok  ' if result.fix is None else 'FIX '} {result.check:<10} {result.found}")
            if result.fix:
                typer.echo(f"     {'':<10} {result.fix}")
    if any(result.fix for result in results):
        raise typer.Exit(BROKEN)


def _python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Check("python", version, None if sys.version_info >= (3, 11) else "install Python 3.11 or newer")


def _libraries() -> Check:
    from harness.store.environment import DECIDING, versions

    installed = versions()
    missing = any(name not in installed for name in DECIDING)
    text = ", ".join(f"{name} {version}" for name, version in installed.items() if name != "python")
    return Check("libraries", text, f"{install('torch')}, to train; boards need none of it" if missing else None)


def _plugins() -> Check:
    from harness.api.registry import Registry
    from harness.errors import PluginError

    try:
        registry = Registry.load()
    except PluginError as error:
        return Check("plugins", "broken", str(error))
    return Check("plugins", ", ".join(f"{len(entries)} {kind}" for kind, entries in registry.entries.items()))


def _sandbox() -> Check:
    from harness.errors import HarnessError
    from harness.models.checkpoint import SANDBOX, checkpoint_folder, checkpoint_hash

    try:
        return Check("sandbox", f"base model {checkpoint_hash(checkpoint_folder(SANDBOX))[:12]}")
    except HarnessError as error:
        return Check("sandbox", "absent", f"{error}; reinstall the package, or train it: harness sandbox train")


def _memory() -> Check:
    import psutil

    free = psutil.virtual_memory().available
    fix = "free some memory, or run with --workers 1" if free < NEEDED_MEMORY else None
    return Check("memory", f"{free / 2**30:.1f} GiB available, {os.cpu_count()} cores", fix)


def _devices() -> Check:
    if not is_installed("torch"):
        return Check("devices", "unknown without torch")
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Check("devices", ", ".join(names) or "no GPU; the quickstart needs none")


def _engines() -> Check:
    """Check for optional generation engines and embedders; a comparison runs without them."""
    from importlib import metadata

    extras = {"vllm": "vllm", "sentence-transformers": "embed"}
    installed, absent = [], []
    for name, extra in extras.items():
        try:
            installed.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            absent.append(f"{name} (extra {extra})")
    own = ["transformers in process"] if is_installed("transformers") else []
    missing = f"; not installed, needed by some configs only: {', '.join(absent)}" if absent else ""
    return Check("engines", ", ".join([*own, *installed] or ["none"]) + missing)


def _disk(folder: os.PathLike[str]) -> Check:
    from pathlib import Path

    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    fix = f"free space on the disk of {place}, or choose another with --store" if free < NEEDED_DISK else None
    if not os.access(place, os.W_OK):
        fix = f"{place} cannot be written: choose another with --store"
    return Check("disk", f"{free / 2**30:.1f} GiB free at {place}", fix)
