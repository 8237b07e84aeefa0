"""A new plugin package from templates: `pip install -e` it, and it can be named in every config."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from harness.api.registry import RESERVED_ANALYSIS_NAMES, Kind, Registry
from harness.errors import HarnessError, StoreError
from harness.version import __version__

ComponentKind = Literal["data-builder", "objective", "evaluator", "method", "analysis", "trainer"]

LONGEST_NAME = 40
_REGISTERS: dict[ComponentKind, tuple[Kind, ...]] = {
    "data-builder": ("data", "method"),
    "objective": ("objective", "method"),
    "evaluator": ("evaluator",),
    "method": ("data", "objective", "method"),
    "analysis": ("analysis",),
    "trainer": ("trainer", "method"),
}
KINDS: tuple[ComponentKind, ...] = tuple(_REGISTERS)


@dataclass(frozen=True)
class Scaffold:
    """A written package: its folder, and the files in it."""

    folder: Path
    files: tuple[str, ...]


def create(kind: ComponentKind, name: str, into: Path, registry: Registry) -> Scaffold:
    """Write the package `harness-<name>` into the folder `into`, whole or not at all.

    Args:
        name: of the component and its method, in small letters, digits and underscores.
        registry: whose names are taken.

    Raises:
        HarnessError: the name cannot be used, or the folder exists.
        StoreError: the folder cannot be written.
    """
    _check_name(kind, name, registry)
    folder = into / f"harness-{name.replace('_', '-')}"
    if folder.exists():
        raise HarnessError(f"{folder} exists: choose another name, or another folder with --into")
    files = render(kind, name)
    try:
        into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".harness-new-", dir=into) as beside:
            whole = Path(beside) / folder.name
            for path, text in files.items():
                (whole / path).parent.mkdir(parents=True, exist_ok=True)
                (whole / path).write_text(text, encoding="utf-8")
            whole.rename(folder)
    except OSError as error:
        raise StoreError(f"{folder} cannot be written ({error}): choose another folder with --into") from error
    return Scaffold(folder, tuple(sorted(files)))


def render(kind: ComponentKind, name: str) -> dict[str, str]:
    """Render the package's files: path -> text."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = resources.files("harness.testing.scaffold")
    environment = Environment(
        loader=FunctionLoader(lambda template: (folder / template).read_text(encoding="utf-8")),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Python, TOML and Markdown; the one value put in is a checked name
    )
    values: Mapping[str, str] = {
        "kind": kind,
        "name": name,
        "distribution": f"harness-{name.replace('_', '-')}",
        "module": f"harness_{name}",
        "cls": "".join(part.capitalize() for part in name.split("_")),
        "version": __version__,
    }
    templates = {
        "pyproject.toml": "pyproject.toml.jinja",
        "README.md": "README.md.jinja",
        f"{values['module']}.py": f"{kind.replace('-', '_')}.py.jinja",
        f"tests/test_{name}.py": "test.py.jinja",
    }
    return {path: environment.get_template(template).render(values) for path, template in templates.items()}


def _check_name(kind: ComponentKind, name: str, registry: Registry) -> None:
    """`HarnessError` where a name is no name, or is taken."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > LONGEST_NAME:
        proposal = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:LONGEST_NAME].strip("_")
        hint = f"; for example {proposal!r}" if re.fullmatch(r"[a-z][a-z0-9_]*", proposal) else ""
        raise HarnessError(
            f"{name!r} is no name for a component: write at most {LONGEST_NAME} small letters, digits and single underscores, "
            f"a letter first{hint}"
        )
    if kind == "analysis" and name in RESERVED_ANALYSIS_NAMES:
        raise HarnessError(f"`harness analyze {name}` means something else: choose another name")
    for taken in _REGISTERS[kind]:
        if name in registry.entries[taken]:
            other = registry.get(taken, name)
            raise HarnessError(
                f"the {taken} {name!r} exists already, in {other.module} of {other.distribution}: choose another name"
            )
