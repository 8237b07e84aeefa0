"""Search spaces: the values among which a comparison's `tuning:` looks for a field's best, as the field declares them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel

SpaceValue = bool | int | float | str


@dataclass(frozen=True)
class SearchSpace:
    """An interval or a list of values to search, in the annotation of a component's field.

    `beta: Annotated[float, SearchSpace(0.01, 1.0, log=True, source="…")] = Field(0.1, gt=0, description="…")`

    Attributes:
        low, high: ends of the interval, both included.
        log: draw its logarithm uniformly.
        choices: the values, in place of an interval.
        source: where the range is from: the method's paper, a published grid, or an experiment.

    Raises:
        ValueError: it is neither an interval nor a list, or an empty one.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[SpaceValue, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        if self.choices:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("a search space has `choices`, or `low` and `high`: leave one of them out")
            if len(set(map(repr, self.choices))) < max(2, len(self.choices)):
                raise ValueError("list at least two values to choose from, each once")
            return
        if self.low is None or self.high is None:
            raise ValueError("a search space has `choices`, or both `low` and `high`")
        if not self.low < self.high:
            raise ValueError(f"its low end {self.low:g} should be below its high end {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"its low end is {self.low:g}: on a logarithmic scale it should be above 0")

    def __contains__(self, value: object) -> bool:
        """Whether a value can be drawn."""
        if self.choices:
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low is not None and self.high is not None and self.low <= float(value) <= self.high  # type: ignore[arg-type]

    def __str__(self) -> str:
        """Return the range in words: `0.01 to 1, log`, or `one of 0.1, 0.5`."""
        if self.choices:
            return "one of " + ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in self.choices)
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"


def declared_spaces(model: type[BaseModel]) -> Mapping[str, SearchSpace]:
    """Return the search spaces that a component's or a section's fields declare, by the field's name."""
    return {
        name: space for name, info in model.model_fields.items() for space in info.metadata if isinstance(space, SearchSpace)
    }
