"""Strict YAML: a file or a text as plain values, within limits and without a key that occurs twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from harness.errors import HarnessError

RawConfig = dict[str, Any]  # a config as its YAML says, before anything is checked
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
        """A value; what Python cannot make of it (a date of a 13th month, 5,000 digits) is an error with its line."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, ArithmeticError, AttributeError, TypeError) as error:
            problem = f"{str(node.value)[:40]!r} cannot be read ({str(error)[:80]}); put it in quotes if it is text"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} occurs twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> RawConfig:
    """A YAML file as a mapping.

    Raises:
        HarnessError: no such file, not YAML (names line and column), or not a mapping.
    """
    try:
        raw = parse(_read(path))
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
    loader = _StrictLoader(_read(path))
    try:
        node = loader.get_single_node()
    finally:
        loader.dispose()
    return node if isinstance(node, yaml.MappingNode) else None


def parse(text: str) -> Any:
    """The one document of a text.

    Raises:
        yaml.YAMLError: it is none, or more than a config can hold.
    """
    loader = _StrictLoader(text)
    try:
        node = loader.get_single_node()
        if node is not None and _size(node, {}) > MOST_VALUES:
            problem = f"with its aliases written out it holds more than {MOST_VALUES:,} values"
            raise yaml.composer.ComposerError(None, None, problem, node.start_mark)
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
