"""What a judge's tokens cost: a table of list prices as data (`prices.json`, with its date and source), or the config's own."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

_DATED = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{4})$")


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens."""

    input: float
    output: float

    def of(self, input_tokens: int, output_tokens: int) -> float:
        """US dollars."""
        return (input_tokens * self.input + output_tokens * self.output) / 1_000_000


def price_table() -> dict[str, Any]:
    """The table with its `date`, `source` and `unit`."""
    table: dict[str, Any] = json.loads(resources.files("harness.models.judge").joinpath("prices.json").read_text(encoding="utf-8"))
    return table


@cache
def list_price(model: str) -> Price | None:
    """A model's list price; a dated snapshot that is not listed costs what its undated name does. None where unknown."""
    models = price_table()["models"]
    found = models.get(model) or models.get(_DATED.sub("", model))
    return Price(*found) if found else None
