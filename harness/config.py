"""A comparison as frozen pydantic models. Schema version 1.

Nothing here fails at the first mistake: `validate` returns the config, or every problem it found, each with field, value
and fix.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from harness.errors import ConfigError, Problem
from harness.interfaces import Round
from harness.models.scratch import ScratchModel
from harness.problems import QUOTE_NULL, problems_of
from harness.training.settings import SftSettings, TrainingSettings

LARGEST_SEED = 2**31 - 1


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, str_strip_whitespace=True)


class Part(BaseModel):
    """A method's builder or objective: another one (with `name`), or changed fields of its own (without)."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def fields(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Named(Part):
    """A component by name, and its fields: `{name: sandbox, train: 800}` or just `sandbox`."""

    name: str


class ModelSection(_Section):
    """The model every method starts from: a checkpoint folder, or one made from the source's own text."""

    path: str | None = Field(None, description="'sandbox', or a local folder with safetensors and a chat template")
    scratch: ScratchModel | None = Field(None, description="make a tokenizer and a small Llama from the source's training text")

    @model_validator(mode="after")
    def _one(self) -> ModelSection:
        if (self.path is None) == (self.scratch is None):
            raise ValueError("give exactly one of `path` and `scratch`")
        return self


class Budget(_Section):
    """What every method gets, and no more."""

    prompts: int = Field(800, ge=1, description="training prompts per method, over all its rounds; each is seen `epochs` times")


class GenerationSection(_Section):
    """How policies generate while data is built."""

    backend: Named = Field(Named(name="transformers"), description="a generation backend")
    max_tokens: int = Field(64, ge=1, le=8192, description="longest sample, in tokens")


class EvaluationSection(_Section):
    """What every row is evaluated on."""

    split: Literal["heldout", "tuning"] = Field("heldout", description="which prompts; `tuning` is for choosing settings")
    prompts: int | None = Field(None, ge=1, description="the first n of the split; all of them if absent")


class MethodEntry(_Section):
    """One row: a registered method with changes, or a builder and an objective of your choice."""

    method: str | None = Field(None, description="a registered method")
    label: str | None = Field(None, description="the row's name on the board; the method's name if absent")
    data: Part | None = Field(None, description="a builder (with `name`), or changed fields of the method's")
    objective: Part | None = Field(None, description="an objective (with `name`), or changed fields")
    rounds: tuple[Round, ...] | None = Field(None, min_length=1, description="what each round changes")
    training: dict[str, Any] = Field(default_factory=dict, description="changed fields of the training section")

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        if value is None:
            raise ValueError(QUOTE_NULL)
        if not isinstance(value, str | dict | MethodEntry):
            raise ValueError("write a method's name, or a section with `method` and what to change")
        return {"method": value} if isinstance(value, str) else value


class Config(_Section):
    """One comparison."""

    schema_version: Literal[1] = Field(1, alias="schema", description="version of this file's format")
    name: str = Field(description="names the run's folder and its board")
    description: str = Field("", description="one paragraph for the board's head")
    source: Named = Field(description="where prompts, targets and preferences come from")
    model: ModelSection = Field(description="the model every method starts from")
    sft: SftSettings | None = Field(SftSettings(), description="supervised fine-tuning before all methods; null to skip it")
    training: TrainingSettings = Field(TrainingSettings(), description="defaults of every method's training")
    budget: Budget = Field(Budget(), description="what every method gets")
    generation: GenerationSection = Field(GenerationSection(), description="how policies generate while data is built")
    methods: tuple[MethodEntry, ...] = Field(min_length=1, description="the rows")
    evaluation: EvaluationSection = Field(EvaluationSection(), description="what every row is evaluated on")
    evaluators: tuple[Named, ...] = Field(min_length=1, description="how every row is evaluated")
    seeds: tuple[int, ...] = Field((0, 1), min_length=1, description="the whole comparison is repeated with each")
    baseline: str = Field(description="the label of the row that all others are compared with")

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError("it names a folder: write it with letters, digits and . _ - only, a letter or digit first")
        return name

    @field_validator("seeds")
    @classmethod
    def _seeds_are_distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if min(seeds) < 0 or max(seeds) > LARGEST_SEED:
            raise ValueError(f"seeds should be from 0 to {LARGEST_SEED:,}")
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed occurs twice, and would count the same run twice: leave one of them out")
        return seeds


def validate(raw: Mapping[str, Any]) -> tuple[Config | None, list[Problem]]:
    """The config, or None, and every problem of its shape."""
    infinite = list(_infinite(raw, ()))
    try:
        config = Config.model_validate(dict(raw))
    except ValidationError as error:
        found = problems_of(error, Config)
        return None, found + [problem for problem in infinite if problem.field not in {other.field for other in found}]
    return (None if infinite else config), infinite


def _infinite(value: Any, path: tuple[str, ...]) -> Iterator[Problem]:
    """YAML's .inf and .nan, which no setting takes and no key can hold, wherever they are."""
    if isinstance(value, float) and not math.isfinite(value):
        yield Problem(".".join(path), value, "it should be a finite number")
    children = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from _infinite(child, (*path, str(key)))


def raise_all(problems: Sequence[Problem], where: str) -> None:
    """`ConfigError` naming every problem, if there is any."""
    if problems:
        raise ConfigError(problems, where)
