"""Distributions made on disk, as pip would leave them: for tests of what is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent


def write_distribution(folder: Path, name: str, code: str, entry_points: Mapping[str, str] | None = None) -> Path:
    """A distribution `name` with one module of the same name; by default that module is its plugin.

    Returns:
        `folder`, to put on the path.
    """
    module = name.replace("-", "_")
    info = folder / f"{module}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    entries = {name: module} if entry_points is None else entry_points
    (info / "entry_points.txt").write_text("[harness]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items()))
    (folder / f"{module}.py").write_text(dedent(code))
    return folder
