"""What is checked of a board from elsewhere beyond its types: everything that comparing, drawing or writing it relies on.

`config`, `sharing` and `provenance` are whatever a run had to say, so their types are open; the models here name the parts that
something reads, and let all others be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

DEEPEST = 60  # values within values: far more than a config has, and less than writing them as YAML can take
LARGEST_INTEGER, LARGEST = 2**63 - 1, 1e100  # what Parquet holds, and what can be squared and drawn


class _Open(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class _Judge(_Open):
    allow_mixed_judges: bool = False


class ConfigShape(_Open):
    """Of a board's `config`."""

    judge: _Judge | None = None
    evaluators: tuple[dict[str, Any], ...] = ()
    methods: tuple[Any, ...] = ()


class _Held(_Open):
    of: int = 0
    prompts: int = 0
    same: int = 0
    questions: int = 0


class _Benchmark(_Open):
    unknown: str | None = None
    questions: int = 0
    splits: dict[str, _Held] = {}


class _Data(_Open):
    kept: dict[str, int] = {}
    dropped: dict[str, int] = {}
    too_long: dict[str, dict[str, int]] = {}
    contaminated: dict[str, dict[str, int]] = {}
    benchmarks: dict[str, _Benchmark] = {}


class SharingShape(_Open):
    """Of a board's `sharing`."""

    seconds_saved: float | None = None
    data: _Data = _Data()


class _Judged(_Open):
    model: str = ""
    versions: tuple[str, ...] = ()


class _Facts(_Open):
    versions: dict[str, Any] | None = None
    shots: dict[str, Any] | None = None
    opponents: dict[str, Any] | None = None


class ProvenanceShape(_Open):
    """Of a row's `provenance`."""

    judges: dict[str, _Judged] = {}
    notes: dict[str, dict[str, _Facts]] = {}
    models: dict[str, Any] = {}
    precision: dict[str, str] = {}
    imported: tuple[Any, ...] = ()


def unwritable(value: Any, place: str = "", depth: int = 0) -> Iterator[str]:
    """What cannot be computed with, drawn or written again, and where it stands."""
    if depth > DEEPEST:
        yield f"{place[:100]}…: nested deeper than {DEEPEST} levels"
    elif isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            yield f"{place}: half a surrogate pair, which is no text"
    elif isinstance(value, int):
        if abs(value) > LARGEST_INTEGER:
            yield f"{place}: a number of more than 63 bits"
    elif isinstance(value, float):
        if not abs(value) <= LARGEST:
            yield f"{place} = {value}: not a finite number up to {LARGEST:g}"
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from unwritable(key, f"{place} (a key)", depth)
            yield from unwritable(child, f"{place}.{key}" if place else key, depth + 1)
    elif isinstance(value, list):
        for number, child in enumerate(value):
            yield from unwritable(child, f"{place}.{number}", depth + 1)


def twice(names: Sequence[str]) -> str | None:
    """The first name that occurs again."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]
