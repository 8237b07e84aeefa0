"""Expand method entries that stand for several. It works on the raw config, so that every problem of an expanded
entry is found and named like any other.

A grid names several builders or objectives, each a name or a section with `name`, and means every combination:

    {data: [self_contrast, only_prompting], objective: [dpo, sr_dpo, simpo]}

becomes six rows, `self_contrast+dpo` and so on. A sweep gives fields several values:

    {method: dpo, sweep: {training.learning_rate: [1.0e-4, 2.0e-4]}}

becomes two rows, `dpo[learning_rate=0.0001]` and `dpo[learning_rate=0.0002]`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from harness.errors import Problem

_PARTS = ("data", "objective")
MOST_ROWS = 10_000  # of one comparison; more is a typing mistake, or meant to fill the memory


def expand(raw: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[Problem]]:
    """The config without grids and sweeps, and what is wrong with them."""
    entries, problems = raw.get("methods"), list[Problem]()
    if not isinstance(entries, list):
        return dict(raw), problems
    expanded: list[Any] = []
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            expanded.append(entry)
            continue
        if (count := _count(entry)) + len(expanded) > MOST_ROWS:
            fix = f"with it the comparison has {count + len(expanded):,} rows, and may have {MOST_ROWS:,}: list fewer values"
            problems.append(Problem(f"methods.{index}", "(a grid or sweep)", fix))
            continue
        for cell in _cells(entry, f"methods.{index}", problems):
            expanded += _points(cell, f"methods.{index}", problems)
    return {**raw, "methods": expanded}, problems


def _count(entry: Mapping[str, Any]) -> int:
    """How many entries one stands for, none of them made."""
    sweep = entry.get("sweep")
    listed = [entry.get(part) for part in _PARTS] + list(sweep.values() if isinstance(sweep, Mapping) else ())
    return math.prod(len(values) for values in listed if isinstance(values, list) and values)


def _cells(entry: Mapping[str, Any], field: str, problems: list[Problem]) -> Iterator[Mapping[str, Any]]:
    """An entry's grid: one entry for each combination of its builders and objectives; the entry itself if it has none."""
    listed = [part for part in _PARTS if isinstance(entry.get(part), list)]
    wrong = [part for part in listed if not entry[part] or not all(_name(item) for item in entry[part])]
    for part in wrong:
        fix = "list names, or sections with `name`, as in [self_contrast, {name: spin, temperature: 0.7}]"
        problems.append(Problem(f"{field}.{part}", entry[part], fix))
    if wrong:
        yield {name: value for name, value in entry.items() if name not in wrong}
        return
    if not listed:
        yield entry
        return
    given = entry.get("label") or entry.get("method")
    for items in product(*(entry[part] for part in listed)):
        cell = {**copy.deepcopy(entry), **dict(zip(listed, copy.deepcopy(items), strict=True))}
        names = [_label(cell[part]) for part in _PARTS if part in listed or (not given and _name(cell.get(part)))]
        cell["label"] = f"{given}[{'+'.join(names)}]" if given else "+".join(names)
        yield cell


def _points(entry: Mapping[str, Any], field: str, problems: list[Problem]) -> list[Mapping[str, Any]]:
    """An entry's sweep: one entry for each combination of values; the entry itself if it has none."""
    if "sweep" not in entry:
        return [entry]
    sweep = entry["sweep"]
    if not isinstance(sweep, dict) or not sweep or not all(isinstance(v, list) and v for v in sweep.values()):
        fix = "map fields to lists of values, as in {training.learning_rate: [1.0e-4, 2.0e-4]}"
        problems.append(Problem(f"{field}.sweep", sweep, fix))
        return [{name: value for name, value in entry.items() if name != "sweep"}]
    return [_point(entry, dict(zip(sweep, values, strict=True))) for values in product(*sweep.values())]


def _point(entry: Mapping[str, Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """One combination: its values put into a copy of the entry, and named in its label."""
    point = with_settings({name: value for name, value in entry.items() if name != "sweep"}, values)
    named = ", ".join(f"{str(path).rpartition('.')[2]}={_short(value)}" for path, value in values.items())
    point["label"] = f"{entry.get('label') or entry.get('method') or 'method'}[{named}]"
    return point


def with_settings(entry: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of an entry with the values of some settings, by their dotted path, put in."""
    changed = {name: copy.deepcopy(value) for name, value in entry.items()}
    for path, value in settings.items():
        *parents, last = str(path).split(".")
        node = changed
        for parent in parents:
            child = node.get(parent)
            node[parent] = child = child if isinstance(child, dict) else {"name": child} if isinstance(child, str) else {}
            node = child
        node[last] = value
    return changed


def _name(item: Any) -> str:
    """The component that a grid's item names; empty if it names none."""
    name = item.get("name") if isinstance(item, dict) else item
    return name if isinstance(name, str) else ""


def _label(item: Any) -> str:
    """A grid's item in a row's label: its name, and the fields it changes."""
    changed = [f"{name}={_short(value)}" for name, value in item.items() if name != "name"] if isinstance(item, dict) else []
    return _name(item) + (f"({', '.join(changed)})" if changed else "")


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
