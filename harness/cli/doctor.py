"""`harness doctor`: whether this machine can run a comparison, and what to mend."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

import typer

from harness.cli.options import JsonOption, StoreOption, store_folder

BROKEN = 1
NEEDED_MEMORY, NEEDED_DISK = 4 * 2**30, 2 * 2**30  # bytes, for the quickstart


@dataclass(frozen=True)
class Finding:
    """One check: what was found, and the fix where something is wrong."""

    check: str
    found: str
    fix: str | None = None


def register(app: typer.Typer) -> None:
    app.command(name="doctor", epilog="Example: harness doctor --json")(doctor)


def doctor(store: StoreOption = None, json_: JsonOption = False) -> None:
    """Check Python, libraries, plugins, memory, disk and the embedded model; exit code 1 if something must be mended."""
    checks: list[Callable[[], Finding]] = [
        _python,
        _libraries,
        _plugins,
        _sandbox,
        _memory,
        _devices,
        _engines,
        lambda: _disk(store_folder(store)),
    ]
    findings = [check() for check in checks]
    if json_:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            typer.echo(f"{'ok  ' if finding.fix is None else 'FIX '} {finding.check:<10} {finding.found}")
            if finding.fix:
                typer.echo(f"     {'':<10} {finding.fix}")
    if any(finding.fix for finding in findings):
        raise typer.Exit(BROKEN)


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Finding("python", version, None if sys.version_info >= (3, 11) else "install Python 3.11 or newer")


def _libraries() -> Finding:
    from harness.store.environment import DECIDING, versions

    found = versions()
    missing = [name for name in DECIDING if name not in found]
    text = ", ".join(f"{name} {version}" for name, version in found.items() if name != "python")
    return Finding("libraries", text, f"pip install {' '.join(missing)}" if missing else None)


def _plugins() -> Finding:
    from harness.api.registry import Registry
    from harness.errors import PluginError

    try:
        registry = Registry.load()
    except PluginError as error:
        return Finding("plugins", "broken", str(error))
    return Finding("plugins", ", ".join(f"{len(entries)} {kind}" for kind, entries in registry.entries.items()))


def _sandbox() -> Finding:
    from harness.errors import HarnessError
    from harness.models.checkpoint import SANDBOX, checkpoint_folder, checkpoint_hash

    try:
        return Finding("sandbox", f"base model {checkpoint_hash(checkpoint_folder(SANDBOX))[:12]}")
    except HarnessError as error:
        return Finding("sandbox", "absent", f"{error}; reinstall the package, or make it with: harness sandbox train")


def _memory() -> Finding:
    import psutil

    free = psutil.virtual_memory().available
    fix = "free some memory, or run with --workers 1" if free < NEEDED_MEMORY else None
    return Finding("memory", f"{free / 2**30:.1f} GiB available, {os.cpu_count()} cores", fix)


def _devices() -> Finding:
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Finding("devices", ", ".join(names) or "no GPU; the quickstart needs none")


def _engines() -> Finding:
    """What generates beside transformers; none of it is needed."""
    from importlib import metadata

    extras = {"vllm": "vllm", "sentence-transformers": "embed"}
    found, absent = [], []
    for name, extra in extras.items():
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            absent.append(f"{name} (extra {extra})")
    here = ", ".join(["transformers in process", *found])
    return Finding("engines", here + (f"; not installed, needed by some configs alone: {', '.join(absent)}" if absent else ""))


def _disk(folder: os.PathLike[str]) -> Finding:
    from pathlib import Path

    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    fix = f"free space on the disk of {place}, or choose another with --store" if free < NEEDED_DISK else None
    if not os.access(place, os.W_OK):
        fix = f"{place} cannot be written: choose another with --store"
    return Finding("disk", f"{free / 2**30:.1f} GiB free at {place}", fix)
