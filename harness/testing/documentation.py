"""Checks of any component's documentation: a name, a sentence, a description of every field, a paper if there is one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from harness.api.interfaces import Analysis, Component, DataBuilder, Evaluator, Objective, Paper, Source
from harness.api.spaces import SearchSpace, declared_spaces
from harness.testing.verdict import Advice, Fault

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_ARXIV = re.compile(r"\d{4}\.\d{4,5}")
_FEATURES: dict[type[Component], tuple[str, tuple[str, ...]]] = {
    DataBuilder: ("needs", ("target", "ranked", "gold")),
    Evaluator: ("needs", ("target", "ranked", "gold", "benchmarks")),
    Source: ("provides", ("target", "ranked", "gold", "benchmarks")),
    Analysis: ("needs", ("target", "ranked", "gold", "benchmarks")),
}


def check_spelling(name: str) -> None:
    """Check that a name reads well in YAML and on a command line."""
    if not _NAME.fullmatch(name):
        raise Fault(f"its name is {name!r}", "write small letters, digits and single underscores, a letter first")


def check_name(component: type[Component]) -> None:
    """Check a component's name, its version, and the features that it needs or provides."""
    if not issubclass(component, Analysis):  # the registry refuses an analysis's wrong name: it is a folder's, too
        check_spelling(component.name)
    for base, (variable, known) in _FEATURES.items():
        said = getattr(component, variable, ()) if issubclass(component, base) else ()
        if isinstance(said, str) or not isinstance(said, frozenset | tuple) or set(said) - set(known):
            shown = sorted(said) if isinstance(said, frozenset) else said
            raise Fault(f"{variable} is {shown!r}", f"write {variable} = frozenset({{…}}) with some of {', '.join(known)}")
    if not isinstance(component.version, int) or isinstance(component.version, bool) or component.version < 1:
        raise Fault(f"its version is {component.version!r}", "write a whole number from 1: it is part of every artifact's key")


def check_documentation(component: type[Component]) -> None:
    """Check for a docstring and a description of every field."""
    if not (component.__doc__ or "").strip():
        raise Fault("the class has no docstring", "say in one line what it computes: lists and documentation show it")
    bare = [path for path, info in fields_of(component) if not info.description]
    if bare:
        raise Fault(
            f"no description of {', '.join(bare)}", f'write {bare[0]}: … = Field(…, description="what it is, and its unit")'
        )


def check_bounds(component: type[Component]) -> None:
    """Advise on numbers without bounds, which let a typing mistake through to the compute."""
    loose = [path for path, info in fields_of(component) if info.annotation in (int, float) and not _bounds(info)]
    if loose:
        raise Advice(
            f"no bounds on {', '.join(loose)}", f"write {loose[0]}: … = Field(…, ge=…) where some values make no sense"
        )


def _bounds(info: FieldInfo) -> list[Any]:
    return [item for item in info.metadata if not isinstance(item, SearchSpace)]


def check_spaces(component: type[Component]) -> None:
    """Check that the ends of search spaces are values that their fields take; advise on an objective without any.

    A row without a space is tuned over the learning rate alone, while others search their own settings too.
    """
    spaces = declared_spaces(component)
    for name, space in spaces.items():
        for value in space.choices or (space.low, space.high):
            try:
                TypeAdapter(component.model_fields[name].rebuild_annotation()).validate_python(value)
            except ValidationError as error:
                raise Fault(
                    f"its search space of {name} has {value!r}, which the field does not take: {error.errors()[0]['msg']}",
                    "keep the space within the field's bounds",
                ) from error
    if without := [name for name, space in spaces.items() if not space.source]:
        raise Advice(f"no source of the search space of {', '.join(without)}", 'write source="where the range is from"')
    numbers = [name for name, info in component.model_fields.items() if info.annotation is float]
    if issubclass(component, Objective) and numbers and not spaces:
        raise Advice(
            f"no search space on {', '.join(numbers)}, so `tuning:` does not search them",
            f"write {numbers[0]}: Annotated[float, SearchSpace(low, high, log=True, source=…)] = Field(…)",
        )


def check_attributes(component: type[Component]) -> None:
    """Advise on a class variable or method whose name is nearly one that the host reads: it would be ignored in silence."""
    package = Component.__module__.rpartition(".")[0]  # of the classes that plugins derive from
    base = next(cls for cls in component.__mro__ if cls.__module__.rpartition(".")[0] == package)
    read = [name for name in dir(base) if not name.startswith("_") and not hasattr(BaseModel, name)]
    for cls in component.__mro__[: component.__mro__.index(base)]:
        for name, value in vars(cls).items():
            own = not name.startswith(("_", "model_")) and name not in read and name not in component.model_fields
            if own and not isinstance(value, property) and (near := get_close_matches(name, read, n=1, cutoff=0.85)):
                raise Advice(f"nothing reads its {name!r}", f"rename it if {near[0]!r} is meant")


def check_paper(paper: Paper | None) -> None:
    """Check a paper's title and its arXiv number, if one is cited."""
    if paper is None:
        raise Advice("it cites no paper", 'where there is one, write paper = Paper("title", "2305.18290", "Eq. 7")')
    if not isinstance(paper, Paper) or not paper.title.strip():
        raise Fault(f"its paper is {paper!r}", 'write paper = Paper("title", "2305.18290", "Eq. 7")')
    if paper.arxiv and not _ARXIV.fullmatch(paper.arxiv):
        raise Fault(f"the paper's arXiv number is {paper.arxiv!r}", "write it without prefix and version, as in '2305.18290'")


def check_json(component: Component) -> None:
    """Check that fields survive JSON: they are part of every key, and travel to workers that way."""
    for name in type(component).model_fields:
        try:
            json.dumps(component.model_dump(mode="json", include={name}), allow_nan=False)
        except (TypeError, ValueError) as error:  # pydantic's own is a ValueError
            said = f"its field {name!r} cannot be written as JSON: {' '.join(str(error).split())}"
            raise Fault(said, "use finite numbers, text, booleans, tuples and models of these as fields") from error
    again = type(component).model_validate_json(json.dumps(component.model_dump(mode="json"), allow_nan=False))
    if again != component:
        raise Fault(
            f"its fields change on the way through JSON: {component!r} comes back as {again!r}",
            "use numbers, text, booleans, tuples and models of these as fields",
        )


def fields_of(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every field with its dotted path, also those of models inside; tags with a single value (`kind`) are left out."""
    for name, info in model.model_fields.items():
        if get_origin(info.annotation) is Literal and len(get_args(info.annotation)) == 1:
            continue
        yield f"{path}{name}", info
        for inner in _models_in(info.annotation):
            yield from fields_of(inner, f"{path}{name}.")


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
