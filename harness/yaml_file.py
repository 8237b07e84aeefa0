"""A YAML file -> the raw mapping that `config.validate` checks, with `--set` changes applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from harness.errors import HarnessError


class _StrictLoader(yaml.SafeLoader):
    """YAML without its quietest trap: a key that occurs twice, where the last one silently wins."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} occurs twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_raw(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping.

    Raises:
        HarnessError: no such file, not YAML (names line and column), or not a mapping.
    """
    text = _read(path)
    try:
        raw = yaml.load(text, _StrictLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}," if mark else ""
        problem = str(getattr(error, "problem", None) or error).split("\n")[0]
        raise HarnessError(f"{path}{where} is not valid YAML: {problem}") from error
    if not isinstance(raw, dict):
        found = {type(None): "it is empty", list: "it holds a list"}.get(type(raw), f"it holds {raw!r:.40}")
        raise HarnessError(f"{path} must hold a mapping of sections (name, source, model, methods, …), and {found}")
    return raw


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise HarnessError(f"no config at {path}: give the path of a YAML file, or nothing for the quickstart") from None
    except IsADirectoryError:
        raise HarnessError(f"the config {path} is a folder: give the path of a YAML file in it") from None
    except UnicodeDecodeError:
        raise HarnessError(f"the config {path} is not text in UTF-8: give the path of a YAML file") from None
    except OSError as error:
        raise HarnessError(f"the config {path} cannot be read: {error.strerror}") from error


def override(raw: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Apply `--set key.path=value` assignments; values are YAML. Items of lists go by number or by name.

    Raises:
        HarnessError: an assignment without `=`, or through something that is no section.
    """
    try:
        changed: dict[str, Any] = _copy(raw)
    except RecursionError:
        raise HarnessError("the config holds an anchor that contains itself: write it out") from None
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        *parents, last = parts = path.strip().split(".")
        if not equals or not all(parts):
            raise HarnessError(f"--set {assignment!r}: write it as key=value, for example --set budget.prompts=200")
        node: Any = changed
        for part in parents:
            node = _descend(node, part, assignment)
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise HarnessError(f"--set {assignment!r}: {text!r} is not a YAML value") from error
        node[_index(node, last, assignment) if isinstance(node, list) else last] = value
    return changed


def _copy(value: Any) -> Any:
    """A deep copy in which nothing is shared: an anchor used twice may be changed in one place."""
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _descend(node: Any, part: str, assignment: str) -> Any:
    """The section or list under `part`; a bare name becomes a section, an absent one is made."""
    key: Any = _index(node, part, assignment) if isinstance(node, list) else part
    child = node[key] if isinstance(node, list) else node.get(key)
    if isinstance(child, str):
        child = node[key] = {("method" if assignment.startswith("methods.") and isinstance(node, list) else "name"): child}
    elif child is None:
        child = node[key] = {}
    if not isinstance(child, dict | list):
        raise HarnessError(f"--set {assignment!r}: {part!r} is {child!r}, not a section")
    return child


def called(item: Any) -> Any:
    """What an item of `methods` or `evaluators` is called: its label, method or name."""
    if isinstance(item, dict):
        return item.get("label") or item.get("method") or item.get("name")
    return item


def _index(node: list[Any], part: str, assignment: str) -> int:
    if part.isdecimal() and int(part) < len(node):
        return int(part)
    names = [called(item) for item in node]
    if part in names:
        return names.index(part)
    known = ", ".join(name for name in names if isinstance(name, str))
    numbers = f"a number from 0 to {len(node) - 1}" if node else "nothing: the list is empty"
    raise HarnessError(f"--set {assignment!r}: {part!r} must be {numbers}" + (f", or one of {known}" if known else ""))
