"""Tell where a mistake in a config was made: in an option of the command line, or on a line of a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from harness.config.file import called, chosen_rows, load_raw, override
from harness.config.inherit import EXTENDS, find_parent
from harness.config.strict_yaml import compose
from harness.errors import ConfigError, HarnessError, Problem


@dataclass(frozen=True)
class Origins:
    """The file and the options that a config was made from.

    Attributes:
        sets: the assignments of `--set`.
        methods, seeds: the texts of these options; None where they were not given.
    """

    path: Path
    sets: Sequence[str] = ()
    methods: str | None = None
    seeds: str | None = None

    @contextmanager
    def named(self) -> Iterator[None]:
        """Add to each problem of a `ConfigError` where it comes from."""
        try:
            yield
        except ConfigError as error:
            try:
                origins = [self.of(problem) for problem in error.problems]
            except (HarnessError, yaml.YAMLError):  # a file that was changed meanwhile
                raise error from None
            options = [origin.startswith("--") for origin in origins]
            where = "the options" if all(options) else f"{self.path} and the options" if any(options) else str(self.path)
            raise ConfigError(error.problems, where, origins) from None

    def of(self, problem: Problem) -> str:
        """Return `--set …`, `--methods …`, `--seeds …`, `line 3` or `parent.yaml, line 3`; "" where nothing can be told."""
        parts = problem.field.split(".")
        if self.seeds is not None and parts[0] == "seeds":
            return f"--seeds {self.seeds}"
        if self.methods is not None and parts[0] == "methods" and (parts := self._in_file(parts)) == []:
            return f"--methods {self.methods}"
        line = self._line(parts)
        for assignment in reversed(self.sets):
            path = self._canonical(assignment.partition("=")[0].strip().split("."))
            inside = path[: len(parts)] == parts and line == ""  # `--set budgt.prompts=3` makes the unknown section
            if parts[: len(path)] == path or inside:
                return f"--set {assignment}"
        return line

    @cached_property
    def _changed(self) -> Mapping[str, Any]:
        return override(load_raw(self.path), self.sets)

    def _in_file(self, parts: Sequence[str]) -> list[str]:
        """Return a field of a row with the row's number in the file; nothing where the option brought the row."""
        entries = self._changed.get("methods")
        names = [name.strip() for name in (self.methods or "").split(",") if name.strip()]
        chosen = chosen_rows(entries, names, self._changed.get("baseline"))
        if len(parts) < 2 or not parts[1].isdecimal() or int(parts[1]) >= len(chosen) or not isinstance(entries, list):
            return []
        row = chosen[int(parts[1])]
        number = next((number for number, entry in enumerate(entries) if called(entry) == called(row)), None)
        return [] if number is None else ["methods", str(number), *parts[2:]]

    def _canonical(self, parts: Sequence[str]) -> list[str]:
        """Return a path with the numbers of list items in place of their names, as problems have it."""
        node: Any = self._changed
        path = []
        for part in parts:
            if isinstance(node, list) and not part.isdecimal():
                part = next((str(number) for number, item in enumerate(node) if called(item) == part), part)
            path.append(part)
            if isinstance(node, list):
                node = node[int(part)] if part.isdecimal() and int(part) < len(node) else None
            else:
                node = node.get(part) if isinstance(node, dict) else None
        return path

    def _line(self, parts: Sequence[str]) -> str:
        """Return the line of a field, or of the nearest thing around it, in the file or in one that it extends."""
        best: tuple[int, Path, int] = (0, self.path, 0)
        for file, root in self._files:
            match = _locate(root, parts)
            if match.depth > best[0]:
                best = (match.depth, file, match.line)
            if match.is_final:
                break
        depth, file, line = best
        if not depth:
            return ""
        return f"line {line}" if file == self.path else f"{file}, line {line}"

    @cached_property
    def _files(self) -> list[tuple[Path, yaml.Node]]:
        """The config's file and those that it extends, each with its nodes."""
        files: list[tuple[Path, yaml.Node]] = []
        path: Path | None = self.path
        while path is not None and path not in (known for known, _ in files):
            root = compose(path)
            if root is None:
                break
            files.append((path, root))
            parent = next((value.value for key, value in root.value if key.value == EXTENDS), None)
            path = find_parent(parent, path, str(path)) if isinstance(parent, str) else None
        return files


@dataclass
class Match:
    """The part of a path that a file has: its length, the line of its end from 1, and whether parents are not asked."""

    depth: int
    line: int
    is_final: bool = False


def _locate(root: yaml.Node, parts: Sequence[str]) -> Match:
    """Find as much of a path as a file has."""
    node, match = root, Match(0, root.start_mark.line + 1)
    while match.depth < len(parts):
        match.is_final |= isinstance(node, yaml.SequenceNode)  # a child's list replaces its parent's
        step = _child(node, parts[match.depth :])
        if step is None:
            return match
        node, taken, match.line = step
        match.depth += taken
    match.is_final = True
    return match


def _child(node: yaml.Node, parts: Sequence[str]) -> tuple[yaml.Node, int, int] | None:
    """Return a node under the first of these parts, how many of them its key takes, and its line."""
    if isinstance(node, yaml.SequenceNode):
        if not parts[0].isdecimal() or int(parts[0]) >= len(node.value):
            return None
        item = node.value[int(parts[0])]
        return item, 1, item.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            # A key may hold dots itself, as `objective.beta` of a sweep does.
            names = str(key.value).split(".")
            if list(parts[: len(names)]) == names:
                return value, len(names), key.start_mark.line + 1
    return None
