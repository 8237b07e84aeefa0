"""A method entry with a `sweep` -> one entry per combination of values.

    {method: dpo, sweep: {training.learning_rate: [1.0e-4, 2.0e-4]}}

becomes two rows, `dpo[learning_rate=0.0001]` and `dpo[learning_rate=0.0002]`. It works on the raw config, so that every
problem of an expanded entry is found and named like any other.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import product
from typing import Any

from harness.errors import Problem


def expand(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """The config without sweeps, and what is wrong with them."""
    entries, problems = raw.get("methods"), list[Problem]()
    if not isinstance(entries, list):
        return dict(raw), problems
    expanded: list[Any] = []
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or "sweep" not in entry:
            expanded.append(entry)
            continue
        sweep = entry["sweep"]
        if not isinstance(sweep, dict) or not sweep or not all(isinstance(v, list) and v for v in sweep.values()):
            fix = "map fields to lists of values, as in {training.learning_rate: [1.0e-4, 2.0e-4]}"
            problems.append(Problem(f"methods.{index}.sweep", sweep, fix))
            expanded.append({name: value for name, value in entry.items() if name != "sweep"})
            continue
        expanded += [_point(entry, dict(zip(sweep, values, strict=True))) for values in product(*sweep.values())]
    return {**raw, "methods": expanded}, problems


def _point(entry: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """One combination: its values put into a copy of the entry, and named in its label."""
    point = {name: copy.deepcopy(value) for name, value in entry.items() if name != "sweep"}
    for path, value in values.items():
        *parents, last = str(path).split(".")
        node = point
        for parent in parents:
            child = node.get(parent)
            node[parent] = child = child if isinstance(child, dict) else {"name": child} if isinstance(child, str) else {}
            node = child
        node[last] = value
    named = ", ".join(f"{str(path).rpartition('.')[2]}={_short(value)}" for path, value in values.items())
    point["label"] = f"{entry.get('label') or entry.get('method') or 'method'}[{named}]"
    return point


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
