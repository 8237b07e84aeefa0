"""A comparison as frozen pydantic models. Schema version 1.

Nothing here fails at the first mistake: `validate` returns the config, or every problem it found, each with field, value
and fix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from harness.api.interfaces import BudgetUnit
from harness.api.methods import Round
from harness.api.types.thoughts import DELIMITERS, Delimiters, wrong_delimiters
from harness.config.problems import LIST, QUOTE_NULL, SECTION, impossible, problems_of
from harness.config.spaces import RowTuning, TuningSection, row_tuning
from harness.errors import ConfigError, Problem
from harness.models.judge.settings import BUILDERS, JudgeSettings
from harness.models.options import Dtype, Kept, Quantization, ScoringLayout, SystemTurns
from harness.models.reward import Reward
from harness.models.scratch import ScratchModel
from harness.training.budget import Spending
from harness.training.settings import SftSettings, TrainingSettings

LARGEST_SEED = 2**31 - 1
MOST_SEEDS = 64  # that are added one by one: each is a look at all rows
MOST_SHARDS = 4096
FEWEST_AT_FIRST = 10  # prompts: the first look tests with a variance between them
# What whoever renders a template passes itself.
_RENDERERS = frozenset({"messages", "add_generation_prompt", "bos_token", "eos_token", "loop"})


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, str_strip_whitespace=True)


class ComponentSection(BaseModel):
    """A method's builder, objective or trainer: another one (with `name`), or changed fields of its own (without)."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str | None = Field(
        None, description="another component in its place; absent: the method's own, with the fields that stand here"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def fields(self) -> Mapping[str, Any]:
        """The component's own fields, all but `name`."""
        return dict(self.model_extra or {})


class Named(ComponentSection):
    """A component by name, and its fields: `{name: sandbox, train: 800}` or just `sandbox`."""

    name: str = Field(description="the component's name, as `harness plugins list` shows it")


class EvaluatorSection(Named):
    """An evaluator by name, and its fields; `label` names it where it is listed more than once."""

    label: str | None = Field(
        None,
        exclude_if=lambda label: label is None,  # boards of configs without labels stay as they were
        description="begins the keys of its metrics on the board; the name if absent",
    )

    @field_validator("label")
    @classmethod
    def _begins_a_key(cls, label: str | None) -> str | None:
        if label is not None and (wrong := wrong_label(label)):
            raise ValueError(f"{wrong}, since the keys of its metrics begin with it")
        return label


def wrong_label(label: str) -> str | None:
    """Return why a label cannot begin a metric's key, `<label>/<metric>`; None if it can."""
    if not label or label != label.strip() or not label.isprintable():
        return "it should be text of one line, without spaces around it"
    if label == BUILDERS:
        return "it stands for the judge of data builders: choose another"
    return "it should have no `/`" if "/" in label else None


class ModelSection(_Section):
    """The model every method starts from: a checkpoint, local or the hub's, or one made from the source's own text."""

    path: str | None = Field(
        None,
        description="'sandbox', 'smollm2' (after `harness fetch smollm2`), a local checkpoint folder, or a model of the "
        "Hugging Face hub as owner/name",
    )
    revision: str | None = Field(
        None, description="a hub model's branch, tag or commit; planning pins it to the commit it stands for (main if absent)"
    )
    scratch: ScratchModel | None = Field(None, description="make a tokenizer and a small Llama from the source's training text")
    dtype: Dtype = Field(
        "auto",
        description="of weights in memory; auto: float32, but bfloat16 to generate on a GPU; scores are always float32",
    )
    storage: Kept = Field(
        "float32",
        description="of the weights that training leaves on disk. float16 and bfloat16 lose some of an update, and the board "
        "says how much; delta is float32 to the bit, kept as the compressed difference from the starting model (with `lora` as "
        "the adapters), which loading then needs",
    )
    attn_implementation: str | None = Field(
        None, description="eager, sdpa, flash_attention_2 or another that transformers knows; its own choice if absent"
    )
    scoring_layout: Literal["auto", ScoringLayout] = Field(
        "auto",
        exclude_if=lambda layout: layout == "auto",  # boards of configs without it stay as they were
        description="how answers lie while they are scored: `padded` rows, or `shared_prefix`, prompts once and no padding, "
        "where the model honours it; `auto` is shared_prefix from 50 million parameters on. They differ in the last digits",
    )
    adapter: str | None = Field(None, description="a local folder with a PEFT adapter, merged into the weights when loaded")
    quantization: Quantization | None = Field(
        None, description="4bit: NF4 weights by bitsandbytes (QLoRA); needs a CUDA device, and training through adapters"
    )
    trust_remote_code: bool = Field(False, description="run code that comes with the checkpoint")
    chat_template: str | None = Field(
        None,
        description="in place of the checkpoint's own, and needed where it has none: zephyr, openchat, llama-2 or another name "
        "of FastChat's, or the path of a .jinja file",
    )
    add_tokens: tuple[str, ...] = Field(
        (),
        exclude_if=lambda tokens: not tokens,  # boards of configs without it stay as they were
        description="special tokens to add that the chat template needs, such as OpenChat's <|end_of_turn|> on Mistral; their "
        "embeddings begin as the mean of all others",
    )
    system_turns: SystemTurns = Field(
        "error",
        description="error, or merge them into the first user turn, where the template refuses system turns; empty: write an "
        "empty one where a dialogue has none, as Zephyr was tuned",
    )
    chat_template_kwargs: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="arguments of the chat template, such as enable_thinking: false (Qwen3) or a date; it must use each",
    )

    @model_validator(mode="after")
    def _one(self) -> ModelSection:
        if (self.path is None) == (self.scratch is None):
            raise ValueError("give exactly one of `path` and `scratch`")
        if self.scratch is not None and (extra := sorted(self.model_fields_set - {"path", "scratch"})):
            raise ValueError(f"`{extra[0]}` is for a model by `path`: leave it out with `scratch`")
        for name in self.chat_template_kwargs:
            if not name.isidentifier() or not name.isascii() or name in _RENDERERS:
                raise ValueError(f"`chat_template_kwargs.{name}`: it is no name that an argument of a template can have")
        if any(not token.strip() for token in self.add_tokens) or len(set(self.add_tokens)) < len(self.add_tokens):
            raise ValueError("`add_tokens` should list each token once, and none that is blank")
        if self.add_tokens and (other := next((name for name in ("quantization", "adapter") if getattr(self, name)), None)):
            raise ValueError(f"`add_tokens` changes the embeddings, which `{other}` takes as they are: leave one of them out")
        if self.quantization is not None and self.adapter is not None:
            raise ValueError("an adapter cannot be merged into 4-bit weights: merge it first, or leave `quantization` out")
        return self


class Limits(_Section):
    """Longest examples, in tokens of the starting model's chat template; longer ones are left out whole, and counted."""

    max_prompt_tokens: int | None = Field(None, ge=1, description="of the prompt, up to what opens the answer")
    max_response_tokens: int | None = Field(None, ge=1, description="of the longest response: the target or any ranked one")
    max_tokens: int | None = Field(None, ge=2, description="of the prompt and the longest response together")


class Budget(_Section):
    """The same amount for every method: prompts alone, or prompts to draw on and one limit on the training with them."""

    prompts: int = Field(
        800,
        ge=1,
        description="training prompts per method; each is seen `epochs` times unless a limit follows",
    )
    rounds: Literal["share", "repeat"] = Field(
        "share", description="each round of a method gets an equal part of the budget (share), or all of it again (repeat)"
    )
    pairs: int | None = Field(
        None,
        ge=1,
        description="chosen-rejected pairs trained on, over as many passes as it takes; a lone response counts as one",
    )
    tokens: int | None = Field(
        None, ge=1, description="tokens trained on, over as many passes as it takes; each response counts with its own prompt"
    )
    updates: int | None = Field(None, ge=1, description="optimiser steps, over as many passes as it takes")
    generated: int | None = Field(
        None,
        ge=1,
        exclude_if=lambda amount: amount is None,  # boards of configs without it stay as they were
        description="tokens that a policy generates while it is trained, over as many passes as it takes; for online trainers",
    )

    @model_validator(mode="after")
    def _one_limit(self) -> Budget:
        given = [unit for unit in get_args(BudgetUnit) if getattr(self, unit) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are two limits: a comparison has one budget, so leave all but one out")
        return self

    @property
    def limit(self) -> Spending | None:
        """The limit that ends a method's training; None where the number of prompts does."""
        units: tuple[BudgetUnit, ...] = get_args(BudgetUnit)
        return next((Spending(unit, amount) for unit in units if (amount := getattr(self, unit)) is not None), None)

    def part(self, amount: int, number: int, rounds: int) -> tuple[int, int]:
        """Return which part of an amount round `number` of `rounds` gets: from, to."""
        if self.rounds == "repeat":
            return 0, amount
        return (amount * number) // rounds, (amount * (number + 1)) // rounds

    def changed(self, changes: Budget) -> Budget:
        """Return this budget with the fields that another one sets. A limit in another unit takes the place of this one's."""
        given = changes.model_fields_set
        kept = {name: getattr(self, name) for name in self.model_fields_set - given}
        if changes.limit is not None:
            kept = {name: value for name, value in kept.items() if name in ("prompts", "rounds")}
        return Budget(**kept, **{name: getattr(changes, name) for name in given})


class GenerationSection(_Section):
    """How policies generate while data is built."""

    backend: Named = Field(
        Named(name="transformers"), description="a generation backend, or `auto`; fields without a name are of transformers"
    )
    max_tokens: int = Field(64, ge=1, le=8192, description="longest sample, in tokens")


class ResponseSection(_Section):
    """How evaluators read the thoughts in a policy's answers; `response_stats` counts their tokens apart."""

    thinking: Literal["keep", "strip"] = Field(
        "keep", description="whether judges, reward models and gold read an answer with its thoughts (keep) or without (strip)"
    )
    delimiters: Delimiters = Field(DELIMITERS, min_length=1, description="pairs of strings that begin and end thoughts")

    @field_validator("delimiters")
    @classmethod
    def _delimit(cls, delimiters: Delimiters) -> Delimiters:
        if wrong := wrong_delimiters(delimiters):
            raise ValueError(wrong)
        return delimiters


def _is_none(value: object) -> bool:
    """Leave a field out of boards of configs without it, so that they stay as they were."""
    return value is None


class EvaluationSection(_Section):
    """The prompts and answers that every row is evaluated on."""

    split: Literal["heldout", "tuning"] = Field("heldout", description="which prompts; `tuning` is for choosing settings")
    prompts: int | None = Field(None, ge=1, description="the first n of the split; all of them if absent")
    until: Literal["decided"] | None = Field(
        None,
        exclude_if=_is_none,
        description="decided: a row gets more prompts, from `start` to `most`, only where that can still decide its place",
    )
    start: int | None = Field(
        None, ge=FEWEST_AT_FIRST, exclude_if=_is_none, description="with `until`: prompts of every row at first; 100 if absent"
    )
    most: int | None = Field(None, exclude_if=_is_none, description="with `until`, and needed there: prompts of a row at most")
    response: ResponseSection | None = Field(
        None, description="what becomes of thoughts in answers; if absent they are kept and not looked for"
    )
    contaminated: Literal["count", "drop"] = Field(
        "count",
        description="training prompts that hold a question of an evaluator's own (MT-Bench's, an lm-eval task's): count them "
        "on the board, or leave them out of training too",
    )
    during: tuple[float, ...] | None = Field(
        None,
        min_length=1,
        exclude_if=lambda shares: shares is None,
        description="evaluate what rows are after these shares of each round's steps too, as in [0.25, 0.5, 0.75], besides the "
        "start and the end of every round: learning curves on the board",
    )
    during_evaluators: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        exclude_if=lambda labels: labels is None,
        description="labels of the evaluators of these states; all of them if absent",
    )

    @field_validator("during")
    @classmethod
    def _are_between_start_and_end(cls, shares: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if shares and not all(0 < share < 1 for share in shares):
            raise ValueError("shares of a training are between 0 and 1: its start and its end are evaluated anyway")
        if shares and any(later <= earlier for earlier, later in pairwise(shares)):
            raise ValueError("list the shares in ascending order, each once")
        return shares

    @model_validator(mode="after")
    def _evaluates_something(self) -> EvaluationSection:
        if self.during_evaluators is not None and self.during is None:
            raise ValueError("`during_evaluators` evaluate intermediate states: give `during` too, as in [0.25, 0.5, 0.75]")
        return self

    @model_validator(mode="after")
    def _adds_or_not(self) -> EvaluationSection:
        if self.until is None:
            if given := [name for name in ("start", "most") if getattr(self, name) is not None]:
                raise ValueError(f"`{given[0]}` goes with `until: decided`: add that, or give `prompts`")
            return self
        if self.prompts is not None:
            raise ValueError("`prompts` is a fixed number, and `until: decided` adds prompts: give `most` in its place")
        if self.most is None:
            raise ValueError("`until: decided` needs `most`: the number of prompts that a row gets at most")
        if self.most < self.first_prompts:
            raise ValueError(f"`most` is {self.most} and `start` is {self.first_prompts}: `most` should be at least `start`")
        return self

    @property
    def first_prompts(self) -> int:
        """With `until`, the number of prompts that every row has."""
        return 100 if self.start is None else self.start

    @property
    def possible_prompts(self) -> int | None:
        """The number of prompts that a row has at most; None for all of the split."""
        return self.prompts if self.until is None else self.most


KeepModels = Literal["all", "best", "none"]


class RunSection(_Section):
    """How a comparison is run. Nothing here changes a result or a key."""

    checkpoint_minutes: float = Field(
        10.0,
        ge=0,
        description="a training or a generation keeps its state so often, for a later run to go on from, a training more "
        "seldom where writing takes over 5 % of its time; 0 is after every step or batch",
    )
    keep_models: KeepModels = Field(
        "all",
        exclude_if=lambda kept: kept == "all",
        description="which rows' models stay when their answers and scores are there: all; the best row's at each seed, by the "
        "first primary metric (best); or none. What another run needs stays, and so do SFT models; `all`, written out, makes "
        "dropped ones again",
    )
    max_hours: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        exclude_if=lambda hours: hours is None,
        description="end the run after so many hours with exit code 75: trainings and generations keep their state at once, "
        "other stages have five minutes to finish; no limit if absent",
    )
    shards: int | Literal["auto"] = Field(
        1,
        exclude_if=lambda shards: shards == 1,
        description="cut generations, references and scores by prompts into so many parts, made beside each other; auto: one "
        "for each worker, of 32 drawn or 128 scored prompts at least. A number needs a backend that draws each response from "
        "random numbers of its own, as transformers with `random: by_response`; without one, auto leaves generations whole",
    )
    examples: bool = Field(
        True, description="show the prompts and each row's answers on the board; false where their text must stay here"
    )

    @field_validator("shards", mode="before")
    @classmethod
    def _are_counted(cls, shards: Any) -> Any:
        whole = isinstance(shards, int) and not isinstance(shards, bool) and 1 <= shards <= MOST_SHARDS
        if shards != "auto" and not whole:
            raise ValueError(f"it should be auto, or a whole number from 1 to {MOST_SHARDS}")
        return shards


class CheckpointSection(_Section):
    """A model that is evaluated as it is: a checkpoint, local or the hub's, with its own tokenizer and template."""

    path: str = Field(description="a local checkpoint folder, a fetched model, or a model of the hub as owner/name")
    revision: str | None = Field(None, description="a hub model's branch, tag or commit; planning pins it to a commit")
    adapter: str | None = Field(None, description="a local folder with a PEFT adapter, merged into the weights when loaded")
    dtype: Dtype | None = Field(
        None, description="of weights in memory, as model.dtype; absent: what a run noted in the checkpoint, else auto"
    )
    chat_template: str | None = Field(
        None, description="in place of the checkpoint's own, and needed where it has none: as model.chat_template"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        if not isinstance(value, str | dict | CheckpointSection):
            raise ValueError("write a folder or owner/name, or a section with `path`")
        return {"path": value} if isinstance(value, str) else value


class ServedSection(_Section):
    """A model behind an OpenAI-compatible endpoint: its answers are evaluated, and nothing else of it is known."""

    base_url: str = Field(description="the server's address, as in http://localhost:8000/v1")
    model: str = Field(min_length=1, description="the model's name at the server")
    name: str | None = Field(
        None, min_length=1, description="what identifies the model in keys, wherever it is served; absent: base_url and model"
    )
    api_key_env: str | None = Field(None, description="the environment variable that holds the key; absent: no key")
    concurrency: int = Field(32, ge=1, le=1024, description="requests at a time")
    retries: int = Field(6, ge=0, le=100, description="further attempts for one request, with growing waits")
    timeout_seconds: float = Field(600.0, gt=0, le=86_400, description="for one answer")

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("write it with http:// or https://, as in http://localhost:8000/v1")
        return url


class RowEvaluation(_Section):
    """How one row alone is evaluated."""

    prefix: str = Field(
        min_length=1,
        description="goes before the last user turn of every prompt that the row answers; its answers are judged as answers to "
        "the prompt without it",
    )


class MethodEntry(_Section):
    """One row: a registered method with changes, a builder and an objective of your choice, or a model that is not trained."""

    method: str | None = Field(None, description="a registered method")
    label: str | None = Field(None, description="the row's name on the board; the method's name if absent")
    data: ComponentSection | None = Field(None, description="a builder (with `name`), or changed fields of the method's")
    objective: ComponentSection | None = Field(None, description="an objective (with `name`), or changed fields")
    trainer: ComponentSection | None = Field(
        None, description="what trains the row's model: `trl`, `command` or a plugin's; the host's own, `grouped`, if absent"
    )
    rounds: tuple[Round, ...] | None = Field(None, min_length=1, description="what each round changes")
    training: dict[str, Any] = Field(default_factory=dict, description="changed fields of the training section")
    checkpoint: CheckpointSection | None = Field(
        None, description="a model to evaluate as it is: a folder, owner/name, or a section; nothing is trained"
    )
    served: ServedSection | None = Field(
        None, description="a model behind an OpenAI-compatible endpoint, whose answers are evaluated; nothing is trained"
    )

    @model_validator(mode="after")
    def _trains_or_not(self) -> MethodEntry:
        given = [name for name in ("checkpoint", "served") if getattr(self, name) is not None]
        others = ("method", "data", "objective", "trainer", "rounds", "training", "rows", "budget", "tuning")
        given += [name for name in others if name in self.model_fields_set]
        if given[:1] in (["checkpoint"], ["served"]) and len(given) > 1:
            raise ValueError(f"a row of `{given[0]}` is evaluated as it is: leave `{given[1]}` out")
        return self

    rows: Literal["last", "each_round"] | tuple[int, ...] = Field(
        "last",
        description="a row of the model after the last round, after each round (each_round: rows name@1, name@2, …), or after "
        "the rounds of a list",
    )
    budget: Budget | None = Field(None, description="changed fields of the budget, for this row alone")
    source: Named | None = Field(
        None, description="where this row's training prompts and preferences come from, in place of the source"
    )
    evaluation: RowEvaluation | None = Field(
        None, exclude_if=_is_none, description="how this row alone is evaluated: `prefix`, answering under a prompt prefix"
    )
    tuning: RowTuning | None = Field(
        None,
        exclude_if=lambda tuning: tuning is None,
        description="search spaces of this row alone, by setting, as {objective.beta: [0.01, 0.1]}; or off, for its defaults",
    )

    @field_validator("tuning", mode="before")
    @classmethod
    def _off_or_spaces(cls, tuning: Any) -> Any:
        return row_tuning(tuning)

    @field_validator("rows", mode="before")
    @classmethod
    def _rounds_by_number(cls, rows: Any) -> Any:
        if isinstance(rows, str) and rows in ("last", "each_round"):
            return rows
        numbers = rows if isinstance(rows, list | tuple) else ()
        if not numbers or not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
            raise ValueError("write last, each_round, or a list of rounds by number, as in [1, 3]")
        if min(numbers) < 1 or len(set(numbers)) < len(numbers):
            raise ValueError("rounds are numbered from 1, and each makes one row: list each number once")
        return tuple(numbers)

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        if value is None:
            raise ValueError(QUOTE_NULL)
        if not isinstance(value, str | dict | MethodEntry):
            raise ValueError("write a method's name, or a section with `method` and what to change")
        return {"method": value} if isinstance(value, str) else value


class SeedsUntilDecided(_Section):
    """Seeds 0, 1, 2, … for each row until its place is decided: against the baseline, and against the best row."""

    until: Literal["decided"] = Field(description="a row gets another seed only where that can still decide its place")
    start: int = Field(2, ge=2, description="seeds of every row before the first decision")
    most: int = Field(8, le=MOST_SEEDS, description="seeds of a row at most")

    @model_validator(mode="after")
    def _has_room(self) -> SeedsUntilDecided:
        if self.most < self.start:
            raise ValueError(f"`most` is {self.most} and `start` is {self.start}: `most` should be at least `start`")
        return self


class StatisticsSection(_Section):
    """The question that the board answers, declared before the run. It changes no stage and no score."""

    primary: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="keys of metrics, as gold_reward/gold: the first orders the board, and their tests are corrected together, "
        "apart from all others; absent: each evaluator's own primary metrics",
    )
    equivalent_within: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        default_factory=dict,
        description="a margin by metric key, in the metric's unit: rows whose difference from the baseline is shown to lie "
        "within it are practically equal",
    )

    @field_validator("primary")
    @classmethod
    def _are_distinct(cls, primary: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if twice := next((key for key in primary or () if (primary or ()).count(key) > 1), None):
            raise ValueError(f"{twice!r} occurs twice: list each metric once")
        return primary


def _form(value: Any) -> str:
    return SECTION if isinstance(value, Mapping | BaseModel) else LIST


Seeds = Annotated[
    Annotated[tuple[int, ...], Field(min_length=1), Tag(LIST)] | Annotated[SeedsUntilDecided, Tag(SECTION)],
    Discriminator(_form),
]


class Config(_Section):
    """One comparison."""

    schema_version: Literal[1] = Field(1, alias="schema", description="version of this file's format")
    name: str = Field(description="names the run's folder and its board")
    description: str = Field("", description="one paragraph for the board's head")
    source: Named = Field(description="where prompts, targets and preferences come from")
    model: ModelSection = Field(
        description="the model every method starts from; or a list of several, each a path or this section with a `label`: "
        "one comparison for each, and whether the ranking carries over"
    )
    limits: Limits | None = Field(None, description="longest examples, of every split; no limits if absent")
    sft: SftSettings | None = Field(SftSettings(), description="supervised fine-tuning before all methods; null to skip it")
    training: TrainingSettings = Field(TrainingSettings(), description="defaults of every method's training")
    budget: Budget = Field(Budget(), description="what every method gets")
    generation: GenerationSection = Field(GenerationSection(), description="how policies generate while data is built")
    methods: tuple[MethodEntry, ...] = Field(min_length=1, description="the rows")
    evaluation: EvaluationSection = Field(EvaluationSection(), description="what every row is evaluated on")
    evaluators: tuple[EvaluatorSection, ...] = Field(min_length=1, description="how every row is evaluated")
    run: RunSection = Field(RunSection(), description="how it is run; changes no result")
    judge: JudgeSettings | None = Field(None, description="the model that judges answers, for evaluators that ask one")
    reward: Reward | None = Field(
        None,
        exclude_if=lambda reward: reward is None,
        description="in place of gold, for every component with a field `reward` that says nothing of its own, and for "
        "analyses: {model: …}, {checker: …} or {judge: {}}; the source's gold reward if absent",
    )
    seeds: Seeds = Field(
        (0, 1),
        description="the whole comparison is repeated with each; or `{until: decided, start: 2, most: 8}` to add seeds only "
        "where they decide",
    )
    baseline: str = Field(description="the label of the row that all others are compared with")
    statistics: StatisticsSection | None = Field(
        None,
        exclude_if=lambda statistics: statistics is None,  # boards of configs without it stay as they were
        description="the primary metrics and margins of practical equality, declared before the run",
    )
    tuning: TuningSection | None = Field(
        None,
        exclude_if=lambda tuning: tuning is None,
        description="search the settings of every row alike on the tuning split before anything is evaluated; none if absent",
    )

    @model_validator(mode="after")
    def _limits_have_a_tokenizer(self) -> Config:
        if self.limits is not None and self.model.path is None:
            raise ValueError("`limits` count tokens of a model by `path`; with `scratch`, use the source's max_characters")
        return self

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not names_a_folder(name):
            raise ValueError("it names a folder: write it with letters, digits and . _ - only, a letter or digit first")
        return name

    @field_validator("seeds")
    @classmethod
    def _seeds_are_distinct(cls, seeds: Seeds) -> Seeds:
        if isinstance(seeds, SeedsUntilDecided):
            return seeds
        if min(seeds) < 0 or max(seeds) > LARGEST_SEED:
            raise ValueError(f"seeds should be from 0 to {LARGEST_SEED:,}")
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed occurs twice, and would count the same run twice: leave one of them out")
        return seeds

    @property
    def adds_seeds(self) -> SeedsUntilDecided | None:
        """The rule by which rows get more seeds; None where all have the same."""
        return self.seeds if isinstance(self.seeds, SeedsUntilDecided) else None

    @property
    def grows(self) -> bool:
        """Whether rows get more seeds or prompts than they begin with, where that can decide their place."""
        return self.adds_seeds is not None or self.evaluation.until is not None

    @property
    def first_seeds(self) -> tuple[int, ...]:
        """The seeds that every row has."""
        return tuple(range(self.seeds.start)) if isinstance(self.seeds, SeedsUntilDecided) else self.seeds

    @property
    def possible_seeds(self) -> tuple[int, ...]:
        """The seeds that a row has at most."""
        return tuple(range(self.seeds.most)) if isinstance(self.seeds, SeedsUntilDecided) else self.seeds


def names_a_folder(name: str) -> bool:
    """Return whether a comparison may have this name, which its folder has too."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is not None


def validate(raw: Mapping[str, Any]) -> tuple[Config | None, list[Problem]]:
    """The config, or None, and every problem of its shape."""
    beyond = list(impossible(raw))
    try:
        config = Config.model_validate(dict(raw))
    except ValidationError as error:
        found = problems_of(error, Config)
        return None, found + [problem for problem in beyond if problem.field not in {other.field for other in found}]
    return (None if beyond else config), beyond


def valid_reward(value: Any) -> Reward | None:
    """Return the config's reward; None where there is none, or it is not valid, which `validate` reports."""
    try:
        reward: Reward | None = TypeAdapter(Reward | None).validate_python(value)
    except ValidationError:
        return None
    return reward


def raise_all(problems: Sequence[Problem], where: str) -> None:
    """`ConfigError` naming every problem, if there is any."""
    if problems:
        raise ConfigError(problems, where)
