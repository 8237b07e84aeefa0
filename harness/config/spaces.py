"""The `tuning` section of a config: how many settings each row tries, and from which search spaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    field_validator,
    model_serializer,
    model_validator,
)

from harness.api.spaces import SearchSpace
from harness.config.problems import LIST, SECTION

OFF: Literal["off"] = "off"
EVERY_ROW = "all"  # in `spaces`: for every row that has the field
_FORMS = "write a list of values, {log: [low, high]}, {range: [low, high]}, or off"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SpaceSection(_Section):
    """The search space of one setting: values, an interval, or `off` for the setting's default."""

    choices: tuple[bool | int | float | str, ...] | None = Field(None, description="the values to choose from")
    range: tuple[float, float] | None = Field(None, description="both ends of an interval")
    log: tuple[float, float] | None = Field(None, description="both ends of an interval on a logarithmic scale")
    off: Literal[True] | None = Field(None, description="not searched: the setting keeps its default")

    @model_validator(mode="before")
    @classmethod
    def _from_short(cls, value: Any) -> Any:
        if value is False or value == OFF:  # YAML reads a bare `off` as false
            return {"off": True}
        if isinstance(value, list | tuple):
            return {"choices": value}
        if not isinstance(value, Mapping | SpaceSection):
            raise ValueError(_FORMS)
        return value

    @model_validator(mode="after")
    def _is_a_space(self) -> SpaceSection:
        given = [value for value in (self.choices, self.range, self.log, self.off) if value is not None]
        if len(given) != 1:
            raise ValueError(_FORMS)
        _ = self.space
        return self

    @property
    def space(self) -> SearchSpace | None:
        """The space; None where it is off."""
        if self.off:
            return None
        if self.choices is not None:
            return SearchSpace(choices=self.choices, source="the config")
        low, high = self.log or self.range or (0.0, 0.0)
        return SearchSpace(low, high, log=self.log is not None, source="the config")

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> Any:
        if self.off:
            return OFF
        written = {name: value for name, value in handler(self).items() if value is not None}
        return written.get("choices", written)


def _form(value: Any) -> str:
    return SECTION if isinstance(value, Mapping) else LIST


RowTuning = Annotated[
    Annotated[Literal["off"], Tag(LIST)] | Annotated[dict[str, SpaceSection], Tag(SECTION)], Discriminator(_form)
]


def row_tuning(value: Any) -> Any:
    """Return a row's `tuning` for validation: `off` for the false that YAML makes of it."""
    if value is False or value == OFF:
        return OFF
    if not isinstance(value, Mapping):
        raise ValueError("write off, or a section of search spaces, as in {objective.beta: [0.01, 0.1]}")
    return value


class TuningSection(_Section):
    """The search for every row's settings on the tuning split, the same for each row; then the board, on the held-out one."""

    trials: int = Field(8, ge=1, le=10_000, description="settings that each row tries")
    metric: str | None = Field(
        None, description="decides between trials, as `evaluator/metric`; the first primary metric if absent"
    )
    sampler: Literal["random", "tpe", "grid"] = Field(
        "random",
        description="how settings are drawn, by Optuna: independently (random), by tree-structured Parzen estimators after ten "
        "random ones (tpe), or from all combinations of listed values (grid)",
    )
    seeds: tuple[int, ...] = Field((100,), min_length=1, description="seeds of every trial; none that the board uses")
    prompts: int | None = Field(None, ge=2, description="the first n of the tuning split; all of them if absent")
    spaces: dict[str, dict[str, SpaceSection]] = Field(
        default_factory=dict,
        description="search spaces by a row's label, by its method, or `all`; in place of those that components declare",
    )

    @field_validator("seeds")
    @classmethod
    def _are_distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if min(seeds) < 0 or max(seeds) > 2**31 - 1:
            raise ValueError(f"seeds should be from 0 to {2**31 - 1:,}")
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed occurs twice, and would count the same trial twice: leave one of them out")
        return seeds
