"""A method: a data builder, an objective and rounds, under one name. What a config's rows refer to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from harness.api.interfaces import Paper

GROUPED = "grouped"  # the host's own trainer, which rows have unless they name another


class Round(BaseModel):
    """The changes of one round; empty: as the method says.

    Attributes:
        data: fields of the data builder, e.g. `rejected_score`; with `name`, another builder and its fields.
        objective: the same of the objective.
        training: changed fields of the training section.
        learning_rate_factor: multiplies the method's learning rate.
        reference: the model that the objective refers to: the one this round starts from, or the one the first round did.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Mapping[str, Any] = {}
    objective: Mapping[str, Any] = {}
    training: Mapping[str, Any] = {}
    learning_rate_factor: float = 1.0
    reference: Literal["previous", "start"] = "previous"

    @field_validator("data", "objective", mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class Method(BaseModel):
    """A data builder, an objective and rounds, under one name. Any builder goes with any objective.

    Attributes:
        data: the builder's name; None for rows that are the starting model itself.
        objective: the objective's name; None likewise.
        trainer: the trainer's name; one that brings its own loss or data needs no `objective` or `data`.
        rounds: the budget is split between them; each starts from the round before, and refers to it unless it says otherwise.
        seed_offset: added to the run's seed; a null row is the baseline with other seeds.
        kind: `measured`; `control` for rows that use what a method may not (gold, more updates); `null`.
        training: defaults of the training section, e.g. `{"learning_rate": 1e-4}`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str
    data: str | None = None
    data_fields: Mapping[str, Any] = {}
    objective: str | None = None
    objective_fields: Mapping[str, Any] = {}
    trainer: str = GROUPED
    trainer_fields: Mapping[str, Any] = {}
    rounds: tuple[Round, ...] = (Round(),)
    seed_offset: int = 0
    kind: Literal["measured", "control", "null"] = "measured"
    training: Mapping[str, Any] = {}
    paper: Paper | None = None
