"""The model of lm-eval's results, and its name on a board."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

NAMED_BY = ("peft", "delta", "pretrained", "model", "path", "engine")  # of model_args: the first that is there, as in lm-eval
SHOWN_DIGITS = 16  # of a hash on boards


def model_of(content: Mapping[str, Any]) -> str:
    """A model's whole name, with its revision where that is not the main one."""
    config = content.get("config") or {}
    name = str(content.get("model_name") or _by_arguments(config.get("model_args")) or config.get("model") or "model")
    name = name.rstrip("/") or name
    revision = config.get("model_revision")
    return name if revision in (None, "", "main") else f"{name}@{revision}"


def _by_arguments(arguments: Any) -> str | None:
    """Find the model's name in results from before lm-eval wrote it."""
    if isinstance(arguments, str):
        arguments = dict(pair.partition("=")[::2] for pair in arguments.split(","))
    given = arguments if isinstance(arguments, Mapping) else {}
    return next((str(given[name]) for name in NAMED_BY if given.get(name)), None)


def short_names(models: Iterable[str]) -> dict[str, str]:
    """Whole name -> label: of a path its last part, with as many folders before it as tell it from the others."""
    parts = {name: Path(name).parts if name.startswith((".", "/")) else (name,) for name in models}
    kept = dict.fromkeys(parts, 1)
    while True:
        labels = {name: "/".join(parts[name][-number:]) for name, number in kept.items()}
        taken = list(labels.values())
        alike = [name for name, label in labels.items() if taken.count(label) > 1 and kept[name] < len(parts[name])]
        if not alike:
            return labels
        kept |= {name: kept[name] + 1 for name in alike}


def digest(name: str) -> str:
    """Return a short hash of a whole name, which may hold folders that nobody else should read."""
    return hashlib.sha256(name.encode()).hexdigest()[:SHOWN_DIGITS]
