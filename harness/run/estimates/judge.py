"""The most that the judges of a comparison can cost, for `harness plan`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from harness.errors import Problem
from harness.models.judge.settings import judge_of

if TYPE_CHECKING:
    from harness.api.types import Example, Questions
    from harness.config import Comparison
    from harness.models.judge.settings import JudgeSettings
    from harness.run.graph import Graph, Stage

ASKED_TWICE = 2  # an answer that cannot be read is asked for once more


@dataclass(frozen=True)
class JudgeEstimate:
    """The cost of judging for one evaluator, or all builders and trainers, over rows and seeds that the store does not hold.

    Attributes:
        evaluations: how many are left to judge.
        calls, tokens, usd: at most; None where the component does not say, and `usd` also where the price is unknown.
        prices: whose they are.
    """

    name: str
    model: str
    evaluations: int
    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None
    prices: str = ""

    def line(self) -> str:
        """Return one line for people."""
        if self.calls is None or self.tokens is None:
            return f"judge {self.model}: {self.name} asks it and does not say how much; judge.max_usd limits what it may cost"
        money = f"${self.usd:,.2f} at {self.prices}" if self.usd is not None else "at an unknown price"
        return f"judge {self.model}: {self.name} asks it {self.calls:,} times at most, {self.tokens:,} tokens, {money}"


def judge_estimates(
    comparison: Comparison, graph: Graph, present: Collection[str], examples: Sequence[Example]
) -> list[JudgeEstimate]:
    """Estimate by evaluator; `examples` are those of the evaluated split, `present` the keys that the store holds.

    Every question is counted twice, since an answer that cannot be read is asked for again; the share that is repeated, once
    more for each repeat; and every answer of the judge as its longest. What earlier runs asked of the same judge costs nothing
    and is not taken off.
    """
    from harness.models.judge.settings import BUILDERS
    from harness.run.records import EvaluateInputs

    estimates: list[JudgeEstimate] = []
    for name, settings in comparison.judges.items():
        kinds = ("groups", "train") if name == BUILDERS else ("evaluate",)
        waiting = [stage for stage in graph if stage.kind in kinds and "judge" in stage.payload and stage.key not in present]
        if name == BUILDERS:
            estimates += [JudgeEstimate(name, settings.model, len(waiting))] if waiting else []
            continue
        keys = {key for row in graph.rows for evaluations in row.all_evaluations for key in evaluations.get(name, ())}
        waiting = [stage for stage in waiting if stage.key in keys]
        asked = [
            comparison.evaluators[name].asks(_evaluated(stage, examples), len(EvaluateInputs.of(stage).opponents))
            for stage in waiting
        ]
        if waiting:
            estimates.append(_estimate(name, settings, asked))
    return estimates


def _evaluated(stage: Stage, examples: Sequence[Example]) -> Sequence[Example]:
    from harness.run.records import EvaluatePayload

    payload = EvaluatePayload.of(stage)
    return examples[payload.first : payload.prompts]


def _estimate(name: str, settings: JudgeSettings, asked: Sequence[Questions | None]) -> JudgeEstimate:
    from harness.models.judge.settings import price_table

    known = [questions for questions in asked if questions is not None]
    if len(known) < len(asked):
        return JudgeEstimate(name, settings.model, len(asked))
    often = ASKED_TWICE + settings.repeats * settings.repeat_share
    calls = ceil(often * sum(questions.calls for questions in known))
    tokens_in = ceil(often * sum(questions.tokens for questions in known))
    answers = sum(questions.calls * (questions.answer_tokens or settings.max_tokens) for questions in known)
    tokens_out = ceil(often * answers)
    price = settings.usd
    usd = price.of(tokens_in, tokens_out) if price else None
    whose = "the config's prices" if settings.price else f"list prices of {price_table()['date']}"
    return JudgeEstimate(name, settings.model, len(asked), calls, tokens_in + tokens_out, usd, whose)


def missing_keys(graph: Graph, is_held: Callable[[str], bool], variables: Mapping[str, str]) -> list[Problem]:
    """Return a problem for each judge that is still to be asked and whose key the environment lacks."""
    waiting = [stage for stage in graph if "judge" in stage.payload and not is_held(stage.key)]
    judges = [judge_of(graph.judges, stage.payload) for stage in waiting]
    names = sorted({judge.api_key_env for judge in judges if judge.api_key_env})
    fix = "this environment variable is not set: put the judge's key into it, or write null for a server without keys"
    return [Problem("judge.api_key_env", name, fix) for name in names if not variables.get(name)]
