"""The `judge` section: which model judges, how it is asked, and what that may cost."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, Self, TypedDict

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from harness.api.types.thoughts import DELIMITERS, Delimiters, wrong_delimiters

OPENAI = "https://api.openai.com/v1"

READING = 2  # raise it when kept answers are read by other rules: they are not asked again, and what was scored of them is
BUILDERS = "data builders"  # among judges, which are kept by evaluator, the config's own, for data builders and trainers


class PriceSection(BaseModel):
    """The judge's price in US dollars per million tokens; 0 and 0 for a model of your own."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    input: float = Field(ge=0, description="per million tokens of the question")
    output: float = Field(ge=0, description="per million tokens of the answer")


class JudgeSettings(BaseModel):
    """The model that judges, behind any OpenAI-compatible endpoint; evaluators may change fields under their own `judge`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, str_strip_whitespace=True)

    model: str = Field(min_length=1, description="the judge's name, as its server calls it")
    base_url: str = Field(OPENAI, description="the endpoint, up to and including `/v1`")
    name: str | None = Field(
        None, description="stands for `base_url` in the cache: set it if a judge may move to another address"
    )
    api_key_env: str | None = Field(
        None, description="the environment variable that holds the key; null for a server without keys"
    )
    temperature: float | None = Field(0.0, ge=0, le=2, description="null leaves it out, for models that refuse it")
    max_tokens: int = Field(2048, ge=1, description="longest answer of the judge, in tokens")
    token_limit: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="how the server calls that limit; OpenAI's reasoning models want max_completion_tokens"
    )
    seed: int | None = Field(None, description="sent along where given")
    concurrency: int = Field(16, ge=1, le=1000, description="questions under way at a time")
    timeout_seconds: float = Field(120.0, gt=0, description="for one answer; a judge that stalls longer is asked again")
    attempts: int = Field(10, ge=1, le=100, description="tries per question while the server fails or refuses for load")
    max_usd: float | None = Field(None, ge=0, description="what one run may cost, US dollars; stops before it is exceeded")
    max_calls: int | None = Field(None, ge=0, description="questions one run may ask")
    max_total_tokens: int | None = Field(None, ge=0, description="tokens one run may use, questions and answers")
    price: PriceSection | None = Field(
        None, description="the list price of `model` if absent (harness/models/judge/prices.json)"
    )
    repeats: int = Field(
        0, ge=0, le=20, description="evaluators ask some questions again so often; the board says how far verdicts agree"
    )
    repeat_share: float = Field(0.1, gt=0, le=1, description="share of the questions that are asked again")
    reasoning_delimiters: Delimiters = Field(
        DELIMITERS,
        description="pairs of strings that begin and end a judge's thoughts, which are removed before a verdict is read; "
        "[] removes none",
    )
    allow_mixed_judges: bool = Field(False, description="compare rows although another judge, or another version, marked them")

    @field_validator("base_url")
    @classmethod
    def _is_a_url(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("write a URL, as in http://localhost:8000/v1")
        if "@" in url.split("//", 1)[1].split("/", 1)[0]:
            raise ValueError("a URL with a password would be written to the board: give the key by `api_key_env`")
        return url.rstrip("/")

    @field_validator("api_key_env")
    @classmethod
    def _names_a_variable(cls, name: str | None) -> str | None:
        if name is not None and not (name.isidentifier() and name.isascii()):
            raise ValueError("write the name of an environment variable, such as OPENAI_API_KEY, and never the key itself")
        return name

    @field_validator("reasoning_delimiters")
    @classmethod
    def _delimit(cls, delimiters: Delimiters) -> Delimiters:
        if wrong := wrong_delimiters(delimiters):
            raise ValueError(wrong)
        return delimiters

    @model_validator(mode="after")
    def _the_price_is_known(self) -> Self:
        if self.max_usd is not None and self.usd is None:
            fix = "give `price: {input: …, output: …}`, US dollars per million tokens"
            raise ValueError(f"max_usd needs the price of {self.model!r}, which is not listed: {fix}")
        return self

    @property
    def usd(self) -> Price | None:
        """Return its price; None where unknown."""
        return Price(self.price.input, self.price.output) if self.price else list_price(self.model)

    @property
    def parameters(self) -> dict[str, float]:
        """Return the parameters that every question is sent with."""
        sent = {"temperature": self.temperature, self.token_limit: self.max_tokens, "seed": self.seed}
        return {name: value for name, value in sent.items() if value is not None}

    @property
    def identity(self) -> dict[str, object]:
        """Return all that decides its answers, for keys and for the board."""
        return {"model": self.model, "endpoint": self.name or self.base_url, "parameters": self.parameters}

    @property
    def reading(self) -> dict[str, object]:
        """Return how its answers are read: part of the keys of what is scored, and not of the answers' own."""
        return {"version": READING, "delimiters": [list(pair) for pair in self.reasoning_delimiters]}

    @property
    def repeating(self) -> dict[str, object]:
        """Return how questions are asked again: part of the keys of evaluations where they are, empty where they are not."""
        return {"times": self.repeats, "share": self.repeat_share} if self.repeats else {}

    def changed(self, changes: Mapping[str, Any]) -> JudgeSettings:
        """Return the same with other fields, validated."""
        return JudgeSettings.model_validate({**self.model_dump(), **changes})


def judge_of(judges: Mapping[str, Mapping[str, Any]], payload: Mapping[str, Any]) -> JudgeSettings:
    """Return the judge of a stage that asks one: its evaluator's, or the config's with its builder's or trainer's changes."""
    if "evaluator" in payload:
        name = payload["evaluator"]["name"]
        settings = [JudgeSettings.model_validate(judge) for key, judge in judges.items() if key.partition("/")[0] == name]
        # Of an evaluator listed with several judges, the payload knows the one that it asks.
        asked = [judge for judge in settings if judge.identity == payload["judge"] and judge.reading == payload["reading"]]
        return next(
            (judge for judge in asked if payload.get("repeats") == (judge.repeating if judge.repeats else None)), asked[0]
        )
    asking = payload["builder" if "builder" in payload else "trainer"]
    return JudgeSettings.model_validate(judges[BUILDERS]).changed(judge_changes(asking["fields"]))


def judge_changes(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields of the config's judge that a component changes: in its field `judge`, or in that of its reward."""
    reward = fields.get("reward")
    changes: Mapping[str, Any] = fields.get("judge") or (reward.get("judge") if isinstance(reward, Mapping) else None) or {}
    return changes


_DATED = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{4})$")


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens."""

    input: float
    output: float

    def of(self, input_tokens: int, output_tokens: int) -> float:
        """US dollars."""
        return (input_tokens * self.input + output_tokens * self.output) / 1_000_000


class PriceTable(TypedDict):
    """List prices: `models` gives each model's [input, output]."""

    date: str
    source: str
    unit: str
    models: dict[str, tuple[float, float]]


def price_table() -> PriceTable:
    """Return the list prices that this package brings along."""
    table: PriceTable = json.loads(resources.files("harness.models.judge").joinpath("prices.json").read_text(encoding="utf-8"))
    return table


@cache
def list_price(model: str) -> Price | None:
    """Return a model's list price; a dated snapshot that is not listed costs what its undated name does. None where unknown."""
    models = price_table()["models"]
    price = models.get(model) or models.get(_DATED.sub("", model))
    return Price(*price) if price else None
