"""What must be said of any component: a name, a sentence, a description of every field, a paper where there is one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from harness.interfaces import Component
from harness.testing.verdict import Advice, Fault
from harness.types import Paper

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_ARXIV = re.compile(r"\d{4}\.\d{4,5}")


def check_name(component: type[Component]) -> None:
    """A name that reads well in YAML and on a command line, and a version that keys can hold."""
    if not _NAME.fullmatch(component.name):
        raise Fault(f"its name is {component.name!r}", "write small letters, digits and single underscores, a letter first")
    if not isinstance(component.version, int) or isinstance(component.version, bool) or component.version < 1:
        raise Fault(f"its version is {component.version!r}", "write a whole number from 1: it is part of every artifact's key")


def check_documentation(component: type[Component]) -> None:
    """A first line for lists, and a description of every field."""
    if not (component.__doc__ or "").strip():
        raise Fault("the class has no docstring", "say in one line what it computes: lists and documentation show it")
    bare = [path for path, info in fields_of(component) if not info.description]
    if bare:
        raise Fault(
            f"no description of {', '.join(bare)}", f'write {bare[0]}: … = Field(…, description="what it is, and its unit")'
        )


def check_bounds(component: type[Component]) -> None:
    """Numbers without bounds let a typing mistake through to the compute."""
    loose = [path for path, info in fields_of(component) if info.annotation in (int, float) and not info.metadata]
    if loose:
        raise Advice(
            f"no bounds on {', '.join(loose)}", f"write {loose[0]}: … = Field(…, ge=…) where some values make no sense"
        )


def check_paper(paper: Paper | None) -> None:
    """A paper's title and its arXiv number, where one is cited."""
    if paper is None:
        raise Advice("it cites no paper", 'where there is one, write paper = Paper("title", "2305.18290", "Eq. 7")')
    if not isinstance(paper, Paper) or not paper.title.strip():
        raise Fault(f"its paper is {paper!r}", 'write paper = Paper("title", "2305.18290", "Eq. 7")')
    if paper.arxiv and not _ARXIV.fullmatch(paper.arxiv):
        raise Fault(f"the paper's arXiv number is {paper.arxiv!r}", "write it without prefix and version, as in '2305.18290'")


def check_json(component: Component) -> None:
    """Fields are part of every key, and travel to workers as JSON: they must come back as they went."""
    text = json.dumps(component.model_dump(mode="json"), allow_nan=False)
    again = type(component).model_validate_json(text)
    if again != component:
        raise Fault(
            f"its fields change on the way through JSON: {component!r} comes back as {again!r}",
            "use numbers, text, booleans, tuples and models of these as fields",
        )


def fields_of(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field, those of models inside included, with dotted paths; tags with a single value (`kind`) are left out."""
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
