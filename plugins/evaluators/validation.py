"""Checks of other tools' rows: an importer computes with no value that it has not checked.

Each tool's rows are described beside their reader; here are the types that they are made of, and the errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from harness import DataError, parse_json

LARGEST = 1e100  # of a score: what can still be squared
LONGEST_SHOWN = 40  # characters of a value in a message


def whole_text(value: str) -> str:
    """Return a text as it is; ValueError if it holds half a surrogate pair, which cannot be written again."""
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("it holds half a surrogate pair, which is no text")
    return value


def _fact(value: Any) -> Any:
    """A value that a board shows beside scores: a version, a number of shots, a limit."""
    if isinstance(value, str):
        return whole_text(value)
    if not (value is None or isinstance(value, bool) or (isinstance(value, int | float) and abs(value) <= LARGEST)):
        raise ValueError("it should be a finite number, a text or null")
    return value


Text = Annotated[str, AfterValidator(whole_text)]
Label = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(whole_text)]
Fact = Annotated[Any, AfterValidator(_fact)]


class ForeignRow(BaseModel):
    """A row as another tool writes it: fields that we do not read may be anything, those that we do are not converted."""

    model_config = ConfigDict(extra="allow", strict=True)


def checked(shape: type[BaseModel], row: Any, where: str, fix: str) -> Any:
    """Return the row as it is.

    Raises:
        DataError: it is not of this shape; names the place, the field, its value and what to give.
    """
    try:
        shape.model_validate(row)
    except ValidationError as error:
        if not isinstance(row, dict):
            raise DataError(f"{where} is no object: {fix}") from None
        raise DataError(f"{where} {_wrong(error.errors(include_url=False)[0])}: {fix}") from None
    return row


def _wrong(error: Mapping[str, Any]) -> str:
    field = ".".join(str(part) for part in error["loc"])[:80] or "it"
    if error["type"] == "missing":
        return f"has no {field!r}"
    value = error["input"]
    if isinstance(value, float) and not math.isfinite(value):
        return f"{field} = {named(value)}, which is no finite number"
    return f"{field} = {named(value)}: {error['msg'].removeprefix('Value error, ')}"


def named(value: Any) -> str:
    """Return a value of a file as a message shows it, in JSON's words."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value[: LONGEST_SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def parsed(content: str | bytes, where: str, what: str) -> Any:
    """Return the value of a JSON text of unknown origin.

    Raises:
        DataError: it is none, is nested too deeply, is in another encoding, or holds half a surrogate pair.
    """
    return parse_json(content, where, what, _integer)


def _integer(digits: str) -> int:
    if len(digits) > 18:
        raise ValueError(f"{digits[:20]}… has too many digits")
    return int(digits)
