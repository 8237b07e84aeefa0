"""What rows of other tools must look like: everything that the importers compute with, checked before they do."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from harness import DataError, parse_json

LARGEST = 1e100  # of a score: what can still be squared
LARGEST_RATING = 1000  # FastChat's judges rate from 1 to 10, and FastChat takes any number


def _text(value: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("it holds half a surrogate pair, which is no text")
    return value


def _number(value: float) -> float:
    if math.isfinite(value) and abs(value) > LARGEST:
        raise ValueError(f"it should be a number up to {LARGEST:g}")
    return value


Text = Annotated[str, AfterValidator(_text)]
Label = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_text)]
Number = Annotated[float, AfterValidator(_number)]
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
    generator_2: Label
    preference: Annotated[float, Field(ge=0, le=2, allow_inf_nan=True)] | None


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


class EvalResults(_Row):
    """lm-eval's results_<date>.json."""

    results: dict[Label, Any]
    versions: dict[str, Any]
    shots: dict[str, Any] = Field(alias="n-shot")
    group_subtasks: dict[Label, list[Label]] | None = None
    higher_is_better: dict[str, dict[str, bool | None]] | None = None
    samples: dict[str, dict[str, Any]] | None = Field(None, alias="n-samples")
    model_name: Label | None = None
    config: dict[str, Any] | None = None


class Document(_Row):
    """One line of lm-eval's samples_<task>_<date>.jsonl."""

    doc_id: int | Text
    filter: Text
    metrics: list[Text]
    doc_hash: Text | None = None


def checked(shape: type[BaseModel], row: Any, where: str, fix: str) -> Any:
    """The row as it is.

    Raises:
        DataError: it is not of this shape; names the place, the field and what to give.
    """
    try:
        shape.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])[:80]
        said = f"has no {field!r}" if first["type"] == "missing" else f"{field or 'it'}: {first['msg']}"
        raise DataError(f"{where} {said}: {fix}" if isinstance(row, dict) else f"{where} is no object: {fix}") from None
    return row


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
