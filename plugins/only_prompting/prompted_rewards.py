"""Only-prompting's rewards: does a policy answer as well as it is asked to?

Measured by the score asked for (Figure 3) and by round (Figure 4); with a fixed gap against a narrowing one (Table 2); and for
answers under the chosen prefix instead of training on it (Table 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness import (
    AnalysisContext,
    Axes,
    Cell,
    CheckedClaim,
    ComparisonResults,
    ConfigError,
    Figure,
    Line,
    Panel,
    Problem,
    Report,
    Values,
    contrast,
    interval,
)

SCORES = tuple(range(1, 11))
RISING, FIXED = (3, 5, 7), (3, 3, 3)  # rejected scores by round: Table 2's caption
ANSWERS = 2  # a prompt


@dataclass(frozen=True)
class _Trained:
    """The comparisons after one, two and three rounds; the first rounds of each are the same stages.

    Attributes:
        after: the comparisons, by number of rounds less one.
    """

    after: tuple[ComparisonResults, ...]

    def policy(self, rounds: int, seed: int) -> str:
        """Return the model after so many rounds of the rising scores; the starting model after none."""
        return self.after[rounds - 1].model("rising", seed) if rounds else self.after[0].model("sft", seed)

    def gold(self, row: str, rounds: int) -> Values:
        """Return the gold reward of a row after so many rounds."""
        return self.after[rounds - 1].values(row)

    def asked(self, prefix: str, rounds: int = 0) -> Values:
        """Return the gold reward of answers under a prefix, by the policy after so many rounds."""
        results = self.after[0]
        return Values.from_numbers(
            {seed: results.gold_under(self.policy(rounds, seed), prefix, n=ANSWERS, seed=seed) for seed in results.seeds}
        )


def run(context: AnalysisContext) -> Report:
    """Train one, two and three rounds; ask the starting model for 1 to 10, and each round's policy for its two answers."""
    share = context.prompts // len(RISING)
    if not share:
        fix = f"{len(RISING)} rounds need a prompt each: it should be {len(RISING)} or more"
        raise ConfigError([Problem("budget.prompts", context.prompts, fix)], context.where)
    raws = {f"rounds-{count}": _config(context, count, share * count) for count in range(1, len(RISING) + 1)}
    trained = _Trained(tuple(context.compare(raw) for raw in raws.values()))
    builder = context.component("data", "only_prompting")
    chosen = trained.asked(builder.chosen_prefix)
    by_score = {score: trained.asked(builder.rejected_prefix.replace("{score}", str(score))) for score in SCORES}
    by_round = [
        (
            trained.asked(builder.chosen_prefix, number),
            trained.asked(builder.rejected_prefix.replace("{score}", str(score)), number),
        )
        for number, score in enumerate(RISING)
    ]
    return Report(
        ["part", "policy", "asked for", "gold"],
        [*_reward_rows(chosen, by_score, by_round), *_result_rows(trained, chosen)],
        _figure(by_score, by_round),
        [*_reward_findings(by_score, by_round), *_result_findings(trained, chosen)],
        [
            "Rewards under a prefix are measured on the evaluated prompts for every policy, so that rounds can be compared "
            f"prompt by prompt; {ANSWERS} answers a prompt at T = 1. The paper marks the training data, others each round.",
            "The first policy is the SFT model; the paper's has been through DPO on seed preferences (§3.2).",
            f"Every round sees {share} prompts of its own, at one learning rate; the paper lowers it by round.",
            "Gold reward stands where the paper has Starling-RM-7B-alpha, AlpacaEval 2.0 and MT-Bench.",
        ],
        raws,
        {
            "evaluated prompts": len(trained.after[0].evaluated()),
            "answers a prompt": ANSWERS,
            "seeds": len(trained.after[0].seeds),
        },
    )


def _config(context: AnalysisContext, rounds: int, prompts: int) -> dict[str, object]:
    def row(label: str, scores: Sequence[int]) -> dict[str, object]:
        return context.row("only_prompting", label, rounds=[{"data": {"rejected_score": score}} for score in scores[:rounds]])

    fixed = [row("fixed", FIXED)] if rounds > 1 else []
    return context.config(f"rounds-{rounds}", ["sft", row("rising", RISING), *fixed], budget={"prompts": prompts})


def _reward_rows(
    chosen: Values, by_score: Mapping[int, Values], by_round: Sequence[tuple[Values, Values]]
) -> list[Sequence[Cell]]:
    rows: list[Sequence[Cell]] = [["Figure 3", "sft", str(score), interval(values)] for score, values in by_score.items()]
    rows.append(["Figure 3", "sft", "10, chosen prefix", interval(chosen)])
    for number, (good, bad) in enumerate(by_round):
        policy = f"after round {number}" if number else "sft"
        rows += [
            ["Figure 4", policy, f"{RISING[number]}, rejected", interval(bad)],
            ["Figure 4", policy, "10, chosen", interval(good)],
        ]
    return rows


def _result_rows(trained: _Trained, chosen: Values) -> list[Sequence[Cell]]:
    rows: list[Sequence[Cell]] = [
        ["Table 2", f"{row}, after round {count}", "–", interval(trained.gold(row, count))]
        for row in ("fixed", "rising")
        for count in range(1, len(RISING) + 1)
        if (row, count) != ("fixed", 1)
    ]
    rows += [
        ["Table 3", "sft", "–", interval(trained.gold("sft", 1))],
        ["Table 3", "sft", "10, chosen prefix", interval(chosen)],
        ["Table 3", "rising, after round 1", "–", interval(trained.gold("rising", 1))],
    ]
    return rows


def _reward_findings(by_score: Mapping[int, Values], by_round: Sequence[tuple[Values, Values]]) -> list[CheckedClaim]:
    middle = sum(SCORES) / len(SCORES)
    scale = sum((score - middle) ** 2 for score in SCORES)
    slope = contrast(list(by_score.values()), [(score - middle) / scale for score in by_score])
    (first_good, first_bad), (last_good, last_bad) = by_round[0], by_round[-1]
    return [
        CheckedClaim.above_zero(
            "The higher the score asked for, the better the answer.",
            "Figure 3",
            "gold per point asked for, least squares over 1 to 10",
            slope,
        ),
        CheckedClaim.above_zero(
            "The answer asked to be chosen is better than the one asked to be rejected, before any round.",
            "Figure 4",
            f"gold asked for 10 less asked for {RISING[0]}, sft",
            contrast([first_good, first_bad], [1, -1]),
        ),
        CheckedClaim.above_zero(
            "Chosen answers get better by round.",
            "Figure 4",
            "last round less first",
            contrast([last_good, first_good], [1, -1]),
        ),
        CheckedClaim.above_zero(
            "Rejected answers get better by round.",
            "Figure 4",
            "last round less first",
            contrast([last_bad, first_bad], [1, -1]),
        ),
        CheckedClaim.above_zero(
            "The gap between them narrows.",
            "Figure 4",
            "gap of the first round less that of the last",
            contrast([first_good, first_bad, last_good, last_bad], [1, -1, -1, 1]),
        ),
    ]


def _result_findings(trained: _Trained, chosen: Values) -> list[CheckedClaim]:
    last = len(RISING)
    return [
        CheckedClaim.above_zero(
            "A narrowing gap ends better than a fixed one.",
            "Table 2",
            f"gold of scores {RISING} less that of {FIXED}, after round {last}",
            contrast([trained.gold("rising", last), trained.gold("fixed", last)], [1, -1]),
        ),
        CheckedClaim.above_zero(
            "With a narrowing gap, later rounds go on improving.",
            "Table 2",
            f"gold after round {last} less after round 1",
            contrast([trained.gold("rising", last), trained.gold("rising", 1)], [1, -1]),
        ),
        CheckedClaim.above_zero(
            "Answering with the chosen prefix is better than answering without.",
            "Table 3",
            "gold of sft with the prefix less without",
            contrast([chosen, trained.gold("sft", 1)], [1, -1]),
        ),
        CheckedClaim.above_zero(
            "Training one round is better than answering with the chosen prefix.",
            "Table 3",
            "gold after round 1 less that of sft with the prefix",
            contrast([trained.gold("rising", 1), chosen], [1, -1]),
        ),
    ]


def _figure(by_score: Mapping[int, Values], by_round: Sequence[tuple[Values, Values]]) -> Figure:
    rounds = [f"round {number + 1}: 10 against {score}" for number, score in enumerate(RISING)]
    return Figure(
        "Gold reward by the score asked for, and by round",
        [
            Panel(
                Axes("score asked for", "gold reward, starting model", [str(score) for score in by_score]),
                [Line("asked for a score", [interval(values) for values in by_score.values()])],
            ),
            Panel(
                Axes("round", "gold reward of the policy that makes the round's data", rounds),
                [
                    Line("chosen", [interval(good) for good, _ in by_round]),
                    Line("rejected", [interval(bad) for _, bad in by_round]),
                ],
            ),
        ],
    )
