"""What rows of other tools must look like: everything that the importers compute with, checked before they do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from harness import DataError, parse_json

LARGEST = 1e100  # of a score: what can still be squared
LONGEST_SHOWN = 40  # characters of a value in a message
LARGEST_RATING = 1000  # FastChat's judges rate from 1 to 10, and FastChat takes any number


def _text(value: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("it holds half a surrogate pair, which is no text")
    return value


def _preference(value: float) -> float:
    # NaN is what pandas makes of a judgment that alpaca_eval could not read: it passes, and counts as unread
    if not (math.isnan(value) or value == 0 or 1 <= value <= 2):
        raise ValueError(
            "it should be from 1 (the first output) to 2 (the second), 0 for a tie, or null where nothing was read"
        )
    return value


def _identifier(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("it should be a whole number or a text")
    return _text(value) if isinstance(value, str) else value


def _fact(value: Any) -> Any:
    """A value that a board shows beside scores: a version, a number of shots, a limit."""
    if isinstance(value, str):
        return _text(value)
    if not (value is None or isinstance(value, bool) or (isinstance(value, int | float) and abs(value) <= LARGEST)):
        raise ValueError("it should be a finite number, a text or null")
    return value


Text = Annotated[str, AfterValidator(_text)]
Label = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_text)]
Fact = Annotated[Any, AfterValidator(_fact)]
Winner = Literal["model_1", "model_2", "tie", "error"]


class _Row(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class Annotation(_Row):
    """One row of alpaca_eval's annotations. A preference is from 1, the first output, to 2; 0 and 1.5 are ties."""

    instruction: Text
    annotator: Label
    output_1: Text
    output_2: Text
    generator_1: Label
    generator_2: Annotated[str, Field(max_length=500), AfterValidator(_text)]  # a row may be named by its file instead
    preference: Annotated[float, AfterValidator(_preference)] | None


class Judgment(_Row):
    """What single judgments of FastChat and judgments of pairs share."""

    question_id: int = Field(ge=0, lt=2**31)
    judge: list[Text] = Field(min_length=1)
    turn: Literal[1, 2]


class Single(Judgment):
    model: Label
    score: Annotated[float, Field(ge=-1, le=LARGEST_RATING, allow_inf_nan=False)]


class Pair(Judgment):
    model_1: Label
    model_2: Label
    g1_winner: Winner
    g2_winner: Winner


class _Config(_Row):
    limit: Fact = None
    num_fewshot: Fact = None


class EvalResults(_Row):
    """lm-eval's results_<date>.json. Releases before 0.4 have no `n-shot`, those before 0.4.2 no `group_subtasks`."""

    results: dict[Label, Any]
    versions: dict[str, Fact]
    shots: dict[str, Fact] | None = Field(None, alias="n-shot")
    groups: dict[Label, Any] | None = None
    group_subtasks: dict[Label, list[Label]] | None = None
    higher_is_better: dict[str, dict[str, bool | None]] | None = None
    samples: dict[str, dict[str, Any]] | None = Field(None, alias="n-samples")
    model_name: Label | None = None
    config: _Config | None = None


class Document(_Row):
    """One line of lm-eval's samples_<task>_<date>.jsonl. Releases before 0.4.7 wrote neither `filter` nor `metrics`."""

    doc_id: Annotated[Any, AfterValidator(_identifier)]
    filter: Text | None = None
    metrics: list[Text] | None = None
    doc_hash: Text | None = None


def checked(shape: type[BaseModel], row: Any, where: str, fix: str) -> Any:
    """The row as it is.

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
    """A value of a file as a message shows it, in JSON's words."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value[: LONGEST_SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def parsed(content: str | bytes, where: str, what: str) -> Any:
    """JSON of anybody.

    Raises:
        DataError: it is none, is nested too deeply, is in another encoding, or holds half a surrogate pair.
    """
    return parse_json(content, where, what, _integer)


def _integer(digits: str) -> int:
    if len(digits) > 18:
        raise ValueError(f"{digits[:20]}… has too many digits")
    return int(digits)
