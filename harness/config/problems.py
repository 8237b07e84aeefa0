"""Problems of a config that a user can mend: pydantic's errors in words of ours, impossible values, and secrets."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.api.walk import walk
from harness.errors import Problem, did_you_mean

QUOTE_NULL = 'without quotes YAML reads null as nothing: write "null" in quotes for the row of that name'

# Tags of the two forms of a field that is a list or a section. They stand in pydantic's places, and in no place of a config.
LIST, SECTION = "<list>", "<section>"


class _Absent(str):
    """A stand-in for the value of a field that is not there; printed without quotes."""

    def __repr__(self) -> str:
        return str(self)


ABSENT = _Absent("(absent)")
LARGEST_NUMBER = 2**63 - 1  # what Parquet, NumPy and SQLite hold
_SECRET_FIELDS = frozenset(
    {
        *("api_key", "apikey", "key", "token", "api_token", "access_token", "auth_token", "hf_token", "password", "passwd"),
        *("secret", "secret_key", "authorization", "openai_api_key", "wandb_api_key", "anthropic_api_key", "credentials"),
    }
)
_SECRET = re.compile(
    r"\bsk-[\w-]{12,}|\bhf_[A-Za-z0-9]{16,}|\bgh[pousr]_[A-Za-z0-9]{16,}|\bAKIA[A-Z0-9]{16}\b|\bAIza[\w-]{30,}"
    r"|\bxox[abprs]-[\w-]{10,}|(?<=://)[^\s/@:]*:[^\s/@]+(?=@)|(?i:\bbearer\s+)[\w.~+/-]{12,}"
)


def impossible(value: Any) -> Iterator[Problem]:
    """Yield a problem for each value that no field takes and no key, path or file can hold, wherever it is in a config.

    YAML's .inf and .nan; numbers of more than 63 bits; text with a null character or half a surrogate pair.
    """
    for node in walk(value):
        item = node.value
        if isinstance(item, str):
            if odd := next((c for c in item if c == "\0" or "\ud800" <= c <= "\udfff"), None):
                # A bad key's odd character is in the field's name, too: escaped there, or no message could be written.
                field = node.field.encode("unicode_escape").decode() if node.is_key else node.field
                yield Problem(field, item[:60], f"it should be text, without {odd!a}")
        elif node.is_key:
            continue  # a key that is no text is refused with the field's name by the schema
        elif isinstance(item, float) and not math.isfinite(item):
            yield Problem(node.field, item, "it should be a finite number")
        elif isinstance(item, int) and abs(item) > LARGEST_NUMBER:
            yield Problem(node.field, _Absent("(a larger number)"), f"it should be at most {LARGEST_NUMBER}")


def secrets(value: Any) -> Iterator[Problem]:
    """Yield a problem for each value that looks like a key or a password: a config is copied into boards, logs and keys.

    The value is never part of the problem. What a field calls a secret, what services' keys look like, an address with a
    password, and a key where the name of a variable should be.
    """
    for node in walk(value):
        text = node.value
        if node.is_key or not isinstance(text, str):
            continue
        name = str(node.part).rpartition(".")[2].lower()
        unnamed = name.endswith(("_env", "_variable")) and text and not (text.isidentifier() and text.isascii())
        if unnamed or (name in _SECRET_FIELDS and text) or _SECRET.search(text):
            fix = "a config is copied into boards and logs: put the secret into an environment variable, and give its name"
            yield Problem(node.field, _Absent("(hidden)"), f"{fix} (a judge's `api_key_env`, a backend's `api_key_variable`)")


def hidden(text: str) -> str:
    """A text without the keys and passwords in it, for what is kept."""
    return _SECRET.sub("(hidden)", text)


def quoted(text: str) -> str:
    """Return a message of foreign code as boards, events and logs may quote it.

    Keys and passwords are left out; half surrogate pairs, which no file in UTF-8 holds, are written out.
    """
    return hidden(text).encode("utf-8", "backslashreplace").decode("utf-8")


def problems_of(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[Problem]:
    """Every error with its field's path in the config, its value, and what to write instead.

    Args:
        model: what was validated.
        prefix: where in the config it stands.
    """
    found: dict[tuple[str, str], Problem] = {}
    for item in error.errors(include_url=False):
        item["loc"] = tuple(part for part in item["loc"] if part not in (LIST, SECTION))
        if item["type"] == "too_short" and item["input"]:
            continue  # pydantic counts only valid items, and what is wrong with the others is said of them
        field = ".".join(str(part) for part in (*((prefix,) if prefix else ()), *item["loc"])) or "(the whole)"
        value = ABSENT if item["type"] == "missing" else item["input"]
        found.setdefault((field, repr(value)), Problem(field, value, _fix(item, model)))
    return list(found.values())


def _fix(item: Any, model: type[BaseModel]) -> str:
    owner = model_at(model, item["loc"][:-1])
    if item["type"] == "extra_forbidden":
        names = [info.alias or name for name, info in owner.model_fields.items()] if owner else []
        return f"no such field; {did_you_mean(str(item['loc'][-1]), names)}"
    if item["type"] == "missing":
        info = owner.model_fields.get(str(item["loc"][-1])) if owner else None
        return "this field is required" + (f": {info.description}" if info and info.description else "")
    return _wrong_type(item, model) or _plain(str(item["msg"]))


def _wrong_type(item: Any, model: type[BaseModel]) -> str | None:
    """The fix for a value of the wrong type, where pydantic's words would name its own classes; None for other errors."""
    kind = item["type"]
    if kind in ("model_type", "model_attributes_type"):
        expected = model_at(model, item["loc"])
        fields = [info.alias or name for name, info in expected.model_fields.items()] if expected else []
        if fields == ["name"]:
            return "write a name, or a section with a `name` and fields, as in {name: …, field: value}"
        return f"it should be a section; its fields are {', '.join(fields)}"
    if kind == "string_type":
        return QUOTE_NULL if item["input"] is None and item["loc"] == ("baseline",) else "it should be text: put it in quotes"
    return {
        "dict_type": "it should be a section of fields",
        "mapping_type": "it should be a section of fields",
        "tuple_type": "it should be a list",
        "list_type": "it should be a list",
        "too_short": "give at least one",
        "invalid_key": "the name of a field should be text",
    }.get(kind)


def _plain(message: str) -> str:
    text = message.removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")
    return f"it {text}" if text.startswith("should") else text


def model_at(model: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel] | None:
    """The model class that a location points into, as far as it can be followed."""
    current: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, int) or current is None:
            continue
        info = next((f for name, f in current.model_fields.items() if part in (name, f.alias)), None)
        if info is not None:
            current = _model_in(info.annotation)
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _model_in(argument)) is not None:
            return found
    return None
