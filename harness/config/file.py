"""A YAML file -> the raw mapping that `config.validate` checks, with `--set` changes applied."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from harness.api.limits import parse_yaml
from harness.config.inherit import copied, inherit
from harness.config.strict_yaml import RawConfig, read_yaml
from harness.errors import HarnessError, did_you_mean


def load_raw(path: Path) -> RawConfig:
    """A config file as a mapping, with the parents that it `extends` merged under it.

    Raises:
        HarnessError: no such file, not YAML (names line and column), not a mapping, or a parent is.
    """
    return inherit(read_yaml(path), path)


def override(raw: Mapping[str, Any], assignments: Sequence[str]) -> RawConfig:
    """Apply `--set key.path=value` assignments; values are YAML. Items of lists go by number or by name.

    Raises:
        HarnessError: an assignment without `=`, or through something that is no section.
    """
    changed = {key: copied(item) for key, item in raw.items()}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        *parents, last = parts = path.strip().split(".")
        if not equals or not all(parts):
            raise HarnessError(f"--set {assignment!r}: write it as key=value, for example --set budget.prompts=200")
        node: Any = changed
        for part in parents:
            node = _descend(node, part, assignment)
        try:
            value = parse_yaml(text)
        except yaml.YAMLError as error:
            raise HarnessError(f"--set {assignment!r}: {text!r} is not a YAML value") from error
        node[_index(node, last, assignment) if isinstance(node, list) else last] = value
    return changed


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
    """Return the name of an item of `methods` or `evaluators`: its label, method or name."""
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


def packaged_config(name: str) -> Path:
    """A config that ships with the package."""
    return Path(str(resources.files("harness.configs") / f"{name}.yaml"))


def find_config(path: Path | None) -> Path:
    """The file a user means: a path, or the name of a packaged config; without one, the quickstart."""
    if path is None:
        return packaged_config("quickstart")
    if not path.is_file() and path.suffix == "" and len(path.parts) == 1:
        packaged = packaged_config(path.name)
        if packaged.exists():  # a folder here may have the name of a packaged config, as that of its board does
            return packaged
        if path.exists():
            return path
        known = [file.stem for file in packaged.parent.glob("*.yaml")]
        raise HarnessError(f"no config at {path}, and no packaged config is called so: {did_you_mean(path.name, known)}")
    return path


def chosen_rows(entries: Any, names: Sequence[str], baseline: Any) -> list[Any]:
    """The config's rows with these labels; a name that is no label stands for the registered method. The baseline stays.

    `dpo@2` is the row of round 2 of `dpo`, whichever of its rounds the config lists.
    """
    by_label = (
        {label: entry for entry in entries if isinstance(label := called(entry), str)} if isinstance(entries, list) else {}
    )
    if isinstance(baseline, str) and baseline not in names:
        series, number = _round_of(baseline)
        if baseline in by_label or (number is not None and series in by_label and series not in names):
            names = [baseline, *names]
    return [_chosen_row(name, by_label) for name in names]


def _chosen_row(name: str, by_label: Mapping[str, Any]) -> Any:
    series, number = _round_of(name)
    if name in by_label or number is None:
        return by_label.get(name, name)
    entry = by_label.get(series, series)
    return {**(entry if isinstance(entry, dict) else {"method": entry}), "rows": [number]}


def _round_of(label: str) -> tuple[str, int | None]:
    """Split the label of a round's row, such as `dpo@2`; the number is None for any other label."""
    match = re.fullmatch(r"(.+)@([0-9]{1,9})", label)
    return (match[1], int(match[2])) if match else (label, None)
