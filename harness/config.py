"""A comparison as YAML -> frozen pydantic models. Schema version 1.

Loading does not fail at the first mistake: `load_raw` reads YAML, `validate` returns the models it could make and every
problem it found, each with field, value and fix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.errors import ConfigError, HarnessError, Problem, did_you_mean
from harness.interfaces import Round
from harness.models.scratch import ScratchModel
from harness.training.settings import SftSettings, TrainingSettings

SCHEMA = 1


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Named(BaseModel):
    """A component by name, and its fields: `{name: sandbox, prompts: 800}` or just `sandbox`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def fields(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


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
    data: Named | dict[str, Any] | None = Field(None, description="a builder (with `name`), or changed fields of the method's")
    objective: Named | dict[str, Any] | None = Field(None, description="an objective (with `name`), or changed fields")
    rounds: tuple[Round, ...] | None = Field(None, description="what each round changes")
    training: dict[str, Any] = Field(default_factory=dict, description="changed fields of the training section")

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value


class Config(_Section):
    """One comparison."""

    schema_version: Literal[1] = Field(SCHEMA, alias="schema", description="version of this file's format")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="names the run's folder and its board")
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


def load_raw(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping.

    Raises:
        HarnessError: no such file, not YAML (names line and column), or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise HarnessError(f"no config at {path}: give the path of a YAML file, or nothing for the quickstart") from None
    except (OSError, UnicodeDecodeError) as error:
        raise HarnessError(f"the config {path} cannot be read: {error}") from error
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise HarnessError(f"{path}{where} is not YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(raw, dict):
        raise HarnessError(f"{path} must hold a mapping of sections (name, source, model, methods, …), not {type(raw).__name__}")
    return raw


def override(raw: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Apply `--set key.path=value` assignments; values are YAML.

    Raises:
        HarnessError: an assignment without `=`, or through something that is not a mapping.
    """
    changed: dict[str, Any] = yaml.safe_load(yaml.safe_dump(dict(raw)))
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path.strip():
            raise HarnessError(f"--set {assignment!r}: write it as key=value, for example --set budget.prompts=200")
        *parents, last = path.strip().split(".")
        node: Any = changed
        for part in parents:
            node = _descend(node, part, assignment)
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise HarnessError(f"--set {assignment!r}: {text!r} is not a YAML value") from error
        if isinstance(node, list):
            node[_index(node, last, assignment)] = value
        else:
            node[last] = value
    return changed


def _descend(node: Any, part: str, assignment: str) -> Any:
    if isinstance(node, list):
        index = _index(node, part, assignment)
        if isinstance(node[index], str):
            node[index] = {("name" if assignment.startswith("evaluators") else "method"): node[index]}
        return node[index]
    if isinstance(node.get(part), str):
        node[part] = {"name": node[part]}
    child = node.setdefault(part, {})
    if child is None:
        child = node[part] = {}
    if not isinstance(child, dict | list):
        raise HarnessError(f"--set {assignment!r}: {part!r} is {child!r}, not a section")
    return child


def _index(node: list[Any], part: str, assignment: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise HarnessError(f"--set {assignment!r}: {part!r} must be a number from 0 to {len(node) - 1}")
    return int(part)


def validate(raw: Mapping[str, Any]) -> tuple[Config | None, list[Problem]]:
    """The config, or None, and every problem of its shape."""
    try:
        return Config.model_validate(dict(raw)), []
    except ValidationError as error:
        return None, problems_of(error, Config)


def problems_of(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[Problem]:
    """Pydantic's errors as problems with a fix each."""
    problems = []
    for item in error.errors(include_url=False):
        parts = [str(part) for part in item["loc"] if part not in {"Named", "dict[str,any]", "function-before[_from_string(), Named]"}]
        field = ".".join([*([prefix] if prefix else []), *parts]) or "(the whole)"
        value = item["input"] if item["type"] != "missing" else "(absent)"
        problems.append(Problem(field, value, _fix(item, model)))
    return list(dict.fromkeys(problems)) if all(_hashable(p) for p in problems) else problems


def _hashable(problem: Problem) -> bool:
    try:
        hash(problem)
    except TypeError:
        return False
    return True


def _fix(item: Any, model: type[BaseModel]) -> str:
    if item["type"] == "extra_forbidden":
        owner = _model_at(model, item["loc"][:-1])
        names = [info.alias or name for name, info in owner.model_fields.items()] if owner else []
        return f"no such field; {did_you_mean(str(item['loc'][-1]), names)}"
    if item["type"] == "missing":
        owner = _model_at(model, item["loc"][:-1])
        info = owner.model_fields.get(str(item["loc"][-1])) if owner else None
        return "this field is required" + (f": {info.description}" if info and info.description else "")
    message = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return f"it {message}" if message.startswith("should") else message


def _model_at(model: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel] | None:
    """The model class that a location points into, as far as it can be followed."""
    current: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, int) or current is None:
            continue
        info = next((f for name, f in current.model_fields.items() if part in (name, f.alias)), None)
        if info is None:
            continue
        current = _model_in(info.annotation)
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _model_in(argument)) is not None:
            return found
    return None


def raise_all(problems: Sequence[Problem], where: str) -> None:
    """`ConfigError` naming every problem, if there is any."""
    if problems:
        raise ConfigError(problems, where)
