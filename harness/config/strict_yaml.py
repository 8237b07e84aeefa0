"""Read a config's YAML within the limits of `api.limits`; errors name file, line and fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from harness.api.limits import LARGEST_YAML, StrictLoader, parse_yaml
from harness.errors import HarnessError

RawConfig = dict[str, Any]  # a config as its YAML says, before anything is checked


def read_yaml(path: Path) -> RawConfig:
    """A YAML file as a mapping.

    Raises:
        HarnessError: no such file, not YAML (names line and column), or not a mapping.
    """
    try:
        raw = parse_yaml(_read(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}," if mark else ""
        problem = str(getattr(error, "problem", None) or error).split("\n")[0]
        raise HarnessError(f"{path}{where} is not valid YAML: {problem}") from error
    if not isinstance(raw, dict):
        content = {type(None): "it is empty", list: "it holds a list"}.get(type(raw), f"it holds {raw!r:.40}")
        raise HarnessError(f"{path} must hold a mapping of sections (name, source, model, methods, …), and {content}")
    return raw


def compose(path: Path) -> yaml.MappingNode | None:
    """Return the nodes of a config's file, which know their lines; None where it is no mapping.

    Raises:
        HarnessError: the file cannot be read.
        yaml.YAMLError: it is not YAML.
    """
    loader = StrictLoader(_read(path))
    try:
        node = loader.get_single_node()
    finally:
        loader.dispose()
    return node if isinstance(node, yaml.MappingNode) else None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST_YAML + 1)
        if len(content) > LARGEST_YAML:
            raise HarnessError(f"the config {path} has more than {LARGEST_YAML:,} bytes: give the path of a YAML file")
        return content.decode("utf-8")
    except FileNotFoundError:
        raise HarnessError(f"no config at {path}: give the path of a YAML file, or nothing for the quickstart") from None
    except IsADirectoryError:
        raise HarnessError(f"the config {path} is a folder: give the path of a YAML file in it") from None
    except UnicodeDecodeError:
        raise HarnessError(f"the config {path} is not text in UTF-8: give the path of a YAML file") from None
    except OSError as error:
        raise HarnessError(f"the config {path} cannot be read: {error.strerror}") from error
