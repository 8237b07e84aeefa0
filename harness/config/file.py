"""A YAML file -> the raw mapping that `config.validate` checks, with `--set` changes applied."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from harness.errors import HarnessError, did_you_mean

LARGEST_BYTES = 1_000_000  # of a config; the largest here has a few thousand


DEEPEST = 50  # sections within sections


MOST_VALUES = 100_000  # once every alias is written out, as the rest of the harness sees it


class _StrictLoader(yaml.SafeLoader):
    """YAML within limits, without its quietest trap: a key that occurs twice, where the last one silently wins."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEEPEST:
            where = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"it is nested deeper than {DEEPEST} levels", where)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value; what Python cannot make of it (a date of a 13th month, a number of 5,000 digits) is said with its place."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, ArithmeticError, AttributeError, TypeError) as error:
            said = f"{str(node.value)[:40]!r} cannot be read ({str(error)[:80]}); put it in quotes if it is text"
            raise yaml.constructor.ConstructorError(None, None, said, node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
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
    try:
        raw = _parsed(_read(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}," if mark else ""
        problem = str(getattr(error, "problem", None) or error).split("\n")[0]
        raise HarnessError(f"{path}{where} is not valid YAML: {problem}") from error
    if not isinstance(raw, dict):
        found = {type(None): "it is empty", list: "it holds a list"}.get(type(raw), f"it holds {raw!r:.40}")
        raise HarnessError(f"{path} must hold a mapping of sections (name, source, model, methods, …), and {found}")
    return raw


def _parsed(text: str) -> Any:
    """The one document of a text.

    Raises:
        yaml.YAMLError: it is none, or more than a config can hold.
    """
    loader = _StrictLoader(text)
    try:
        node = loader.get_single_node()
        if node is not None and _size(node, {}) > MOST_VALUES:
            said = f"with its aliases written out it holds more than {MOST_VALUES:,} values"
            raise yaml.composer.ComposerError(None, None, said, node.start_mark)
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for. An alias counts as what it stands for, so that nine of nine of nine count as 729."""
    if id(node) not in known:
        known[id(node)] = 0  # while it is counted
        children = [child for pair in node.value for child in pair] if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + sum(_size(child, known) for child in children if isinstance(node, yaml.CollectionNode))
    elif known[id(node)] == 0:
        raise yaml.composer.ComposerError(None, None, "an anchor that contains itself: write it out", node.start_mark)
    return known[id(node)]


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST_BYTES + 1)
        if len(content) > LARGEST_BYTES:
            raise HarnessError(f"the config {path} has more than {LARGEST_BYTES:,} bytes: give the path of a YAML file")
        return content.decode("utf-8")
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
    changed = {key: _copy(item) for key, item in raw.items()}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        *parents, last = parts = path.strip().split(".")
        if not equals or not all(parts):
            raise HarnessError(f"--set {assignment!r}: write it as key=value, for example --set budget.prompts=200")
        node: Any = changed
        for part in parents:
            node = _descend(node, part, assignment)
        try:
            value = _parsed(text)
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
    if not path.exists() and path.suffix == "" and len(path.parts) == 1:
        packaged = packaged_config(path.name)
        if packaged.exists():
            return packaged
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
