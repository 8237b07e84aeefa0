"""Measurements: metrics and scores of evaluators, results of other tools, costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Metric:
    """A metric that an evaluator reports.

    Attributes:
        name: unique within its evaluator.
        higher_is_better: None where neither direction is better (a length, say).
        primary: shown in the short tables.
        optional: reported only where a config asks for it; a board on which no row has it leaves it out, without a warning.
        bounds: the least and the largest value that it can take, None where there is none: (0, 1) for a share, (1, 10) for a
            rating, (0, None) for a length. No interval on a board goes beyond them.
        fit: scores are pseudo-values of a fit, whose mean is the fit's own value: a single one says nothing of its example.
            `run`: of a fit to the examples of one evaluation, by `harness.pseudo_values`; `rows`: of one fit to all rows of a
            board, in which the baseline is 0, which the board makes itself (Bradley–Terry strengths).

    Raises:
        ValueError: `bounds` are not two finite numbers or None, the least first.
    """

    name: str
    description: str
    higher_is_better: bool | None = True
    primary: bool = False
    optional: bool = False
    fit: Literal["run", "rows"] | None = None
    bounds: tuple[float | None, float | None] = (None, None)

    def __post_init__(self) -> None:
        known = [bound for bound in self.bounds if bound is not None]
        if len(self.bounds) != 2 or not all(isfinite(bound) for bound in known) or known != sorted(set(known)):
            fix = "give the least and the largest value in this order, as in (0, 1), with None where there is none"
            raise ValueError(f"Metric({self.name!r}).bounds = {self.bounds!r}: {fix}")


@dataclass(frozen=True)
class Score:
    """One example's value of one metric.

    Attributes:
        sample: counts the responses to one prompt.
        question: what examples of one dialogue share (the turns of a question), so that they are resampled together; the
            example stands alone if empty.
    """

    example: str
    metric: str
    value: float
    sample: int = 0
    question: str = ""


@dataclass(frozen=True)
class Imported:
    """Results of another tool for one model, as one evaluator would report them.

    Attributes:
        label: the model's name there.
        evaluator: the name of what measures the same here.
        scores: one per example and metric; where the tool left means alone, one score per metric, and `whole` is false.
        judge: who judged, as the files say; '' where nobody did.
        facts: what must be equal for a fair comparison, and the tool's own figures; JSON. `versions`, `shots`, `limit`,
            `chat_template` and `documents`, by task, are compared between rows; rows of one name whose `model_hash` differs
            are never made one.
        answers: some examples with their answer: name -> (prompt, target, answer).
        warnings: what a reader of the board must know, such as a figure that could not be had.
        files: what it was read from, for the provenance; the paths that were given, as far as they are files, if none.
    """

    label: str
    evaluator: str
    metrics: tuple[Metric, ...]
    scores: tuple[Score, ...]
    whole: bool = True
    judge: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    answers: Mapping[str, tuple[str, str | None, str]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Cost:
    """The time, tokens and money that stages took. Seconds are wall time of the stages, whoever ran them first.

    Attributes:
        judge_tokens: of all questions to judges and their answers, also those that were in the store.
        usd: what those cost at list price; None where a judge's price is unknown.
    """

    seconds: float = 0.0
    tokens_trained: int = 0
    tokens_generated: int = 0
    judge_tokens: int = 0
    usd: float | None = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.seconds + other.seconds,
            self.tokens_trained + other.tokens_trained,
            self.tokens_generated + other.tokens_generated,
            self.judge_tokens + other.judge_tokens,
            None if self.usd is None or other.usd is None else self.usd + other.usd,
        )
