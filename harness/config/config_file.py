"""Which config is meant, and the raw mapping with its changes applied: for the command line and for scripts alike."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, did_you_mean


def packaged_config(name: str) -> Path:
    """A config that ships with the package."""
    return Path(str(resources.files("harness.configs") / f"{name}.yaml"))


def find_config(path: Path | None) -> Path:
    """The file a user means: a path, or the name of a packaged config; without one, the quickstart."""
    if path is None:
        return packaged_config("quickstart")
    if not path.exists() and path.suffix == "" and len(path.parts) == 1:
        packaged = packaged_config(path.name)
        if packaged.exists():
            return packaged
        known = [file.stem for file in packaged.parent.glob("*.yaml")]
        raise HarnessError(f"no config at {path}, and no packaged config is called so: {did_you_mean(path.name, known)}")
    return path


def chosen_rows(entries: Any, names: Sequence[str], baseline: Any) -> list[Any]:
    """The config's rows with these labels; a name that is no label stands for the registered method. The baseline stays."""
    from harness.config.file import called

    by_label = (
        {label: entry for entry in entries if isinstance(label := called(entry), str)} if isinstance(entries, list) else {}
    )
    if baseline in by_label and baseline not in names:
        names = [baseline, *names]
    return [by_label.get(name, name) for name in names]
