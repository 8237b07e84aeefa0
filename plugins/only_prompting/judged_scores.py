"""Self-rewarding's scores: how a policy judges its own responses (Figure 1), and whether a score tells good from bad."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import (
    AnalysisContext,
    Axes,
    CheckedClaim,
    ComparisonResults,
    Example,
    Figure,
    HarnessError,
    Line,
    Panel,
    Prompt,
    Report,
    Response,
    Values,
    contrast,
    interval,
)


@dataclass(frozen=True)
class _Policy:
    """The services of a `BuildTask` that the judge of `self_rewarding` asks for, of the starting model at one seed."""

    examples: Sequence[Example]
    results: ComparisonResults
    model: str
    seed: int

    def respond(
        self, prompts: Sequence[Prompt], n: int = 1, *, temperature: float, top_p: float, max_tokens: int | None = None
    ) -> list[list[Response]]:
        return self.results.responses(
            self.model, prompts, n, seed=self.seed, temperature=temperature, top_p=top_p, max_tokens=max_tokens
        )

    def logps(self, responses: Sequence[Sequence[Response]], *, prefix: str = "") -> list[list[float]]:
        return self.results.logps(self.model, [example.prompt.prefixed(prefix) for example in self.examples], responses)


def run(context: AnalysisContext) -> Report:
    """Sample responses from the starting model, have it judge them, and count the scores."""
    raw = context.config("start", ["sft"])
    results = context.compare(raw)
    builder = context.component("data", "self_rewarding", **_fields(context))
    examples = results.dataset["train"][: context.prompts]
    per_seed = {seed: _scores(results, builder, examples, seed) for seed in results.seeds}
    read = {
        seed: {name: [s for s in row if not math.isnan(s)] for name, row in rows.items()} for seed, rows in per_seed.items()
    }
    places = sorted({round(score) for rows in read.values() for row in rows.values() for score in row})
    shares = {place: _share(read, place) for place in places}
    unread = 1 - sum(len(row) for rows in read.values() for row in rows.values()) / sum(
        len(row) for rows in per_seed.values() for row in rows.values()
    )
    if not shares:
        raise HarnessError("no judgment gave a score, so there is nothing to count: raise budget.prompts")
    commonest = max(shares, key=lambda place: interval(shares[place]).mean)
    shown = interval(shares[commonest])
    return Report(
        ["score", "share of responses"],
        [[str(place), interval(values)] for place, values in shares.items()],
        Figure(
            "Scores that the policy gives to its own responses",
            [
                Panel(
                    Axes("score, rounded", "share of responses", [str(place) for place in places]),
                    [Line("sft", [interval(values) for values in shares.values()])],
                )
            ],
        ),
        [
            CheckedClaim.above_zero(
                "One score has most of the responses (the paper: 80 % a score of 4 of 5).",
                "Figure 1",
                f"share of the commonest score, {commonest}, less that of all others",
                contrast([shares[commonest], _others(read, commonest)], [1, -1]),
            ),
            CheckedClaim.at_least(
                "The share of the commonest score is as large as the paper's.",
                "Figure 1",
                f"share of score {commonest}",
                shown,
                0.8,
            ),
        ],
        [
            f"{builder.samples} responses to each of {len(examples)} training prompts by the starting model, which judges them "
            f"as the row `self_rewarding` does ({builder.judge.kind}); scores are rounded. The paper has 60,000 prompts.",
            f"Judgments that could not be read: {unread:.1%}. They have no score.",
            "A judge by likelihood gives the expected score that was asked for, from 2 to 10; a written one 0 to 5.",
        ],
        {"start": raw},
        {"prompts": len(examples), "responses a prompt": builder.samples, "seeds": len(results.seeds)},
    )


def _fields(context: AnalysisContext) -> Mapping[str, Any]:
    """Return the builder's fields of the base config's row of self-rewarding; none where it has no such row."""
    rows = [row for row in context.base.get("methods") or () if isinstance(row, Mapping)]
    data = next((row.get("data") for row in rows if row.get("method") == "self_rewarding"), None)
    return data if isinstance(data, Mapping) else {}


def _scores(results: ComparisonResults, builder: Any, examples: Sequence[Example], seed: int) -> dict[str, list[float]]:
    """Return the judge's score of each own response, by prompt."""
    policy = _Policy(examples, results, results.model("sft", seed), seed)
    sampling = {"temperature": builder.temperature, "top_p": builder.top_p}
    samples = policy.respond([example.prompt for example in examples], builder.samples, **sampling)
    judged = builder.judge.scores(policy, samples, (builder.temperature, builder.top_p))
    return {example.prompt.id: row for example, row in zip(examples, judged, strict=True)}


def _share(read: Mapping[int, Mapping[str, Sequence[float]]], place: int) -> Values:
    """Return the share of each prompt's responses with this score, [seeds, prompts]; prompts without a score are left out."""
    return Values.from_numbers(
        {
            seed: {name: sum(round(score) == place for score in row) / len(row) for name, row in rows.items() if row}
            for seed, rows in read.items()
        }
    )


def _others(read: Mapping[int, Mapping[str, Sequence[float]]], place: int) -> Values:
    """Return the share of each prompt's responses with another score."""
    return Values.from_numbers(
        {
            seed: {name: sum(round(score) != place for score in row) / len(row) for name, row in rows.items() if row}
            for seed, rows in read.items()
        }
    )
