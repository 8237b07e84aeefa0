"""Sr-DPO: does the augmented prompt rank pairs as the plain one does (Figure 1, Assumption 3.2)? The choice of λ on 50 tuples
(§4.1) and its sweep (Figure 2a), and the number of training tuples (Figures 2b and 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from harness.analysis.bootstrap import contrast
from harness.analysis.figure import Axes, Line, Panel, draw
from harness.analysis.lab import Lab, quiet
from harness.analysis.made import Made, values_of
from harness.analysis.report import Cell, Finding, Report, above_zero, within
from harness.errors import ConfigError, Problem
from harness.statistics import Values, interval
from harness.types import Example, Prompt, Response

WEIGHTS = (0.1, 0.3, 0.5, 1.0)  # λ; 0 is DPO
DEFAULT = 0.5  # λ where the number of tuples is varied
SHARES = (4, 2, 1)  # of the budget, for the number of tuples
CHOICE = 50  # tuples on which λ is chosen
ALIKE = 0.05  # accuracies that differ by no more are read as similar
AUGMENTED = "augmented"


def run(lab: Lab) -> Report:
    """Train DPO and Sr-DPO for every λ on all tuples, and for the default λ on fewer."""
    prompts = lab.prompts
    if prompts < max(SHARES):
        fix = f"the smallest of {len(SHARES)} data sets is a {max(SHARES)}th of it: it should be {max(SHARES)} or more"
        raise ConfigError([Problem("budget.prompts", prompts, fix)], lab.where)
    raws = {f"tuples-{prompts // share}": _config(lab, prompts // share, share == 1) for share in SHARES}
    made = {int(part.removeprefix("tuples-")): lab.compare(raw) for part, raw in raws.items()}
    whole = made[prompts]
    tuning = [example for example in whole.dataset["tuning"] if len(example.ranked) > 1][:CHOICE]
    if not tuning:
        fix = "λ is chosen on the split `tuning`, which has no pairs: load some, as in source.tuning = 50"
        raise ConfigError([Problem("source", whole.comparison.source.name, fix)], lab.where)
    on_tuning = {weight: _accuracy(lab, whole, _label(weight), tuning) for weight in (0.0, *WEIGHTS)}
    best = max(WEIGHTS, key=lambda weight: interval(on_tuning[weight]).mean)  # of equal ones the smallest
    heldout = whole.evaluated()
    plain = {count: _accuracy(lab, found, "sr_dpo", heldout) for count, found in made.items()}
    asked = {count: _accuracy(lab, found, "sr_dpo", heldout, augmented=True) for count, found in made.items()}
    rows: list[Sequence[Cell]] = []
    for weight, values in on_tuning.items():
        label = _label(weight)
        held = _accuracy(lab, whole, label, heldout), _accuracy(lab, whole, label, heldout, augmented=True)
        chosen = "chosen" if weight == best else None
        rows.append(
            [
                "Figure 2a",
                label,
                prompts,
                f"{weight:g}",
                interval(values),
                *map(interval, held),
                _gold(lab, whole, label),
                chosen,
            ]
        )
    for count, found in made.items():
        own = interval(plain[count]), interval(asked[count]), _gold(lab, found, "sr_dpo")
        rows.append(["Figures 1, 2b", "sr_dpo", count, f"{DEFAULT:g}", None, *own, None])
        other = interval(_accuracy(lab, found, "dpo", heldout))
        rows.append(["Figures 1, 2b", "dpo", count, "0", None, other, None, _gold(lab, found, "dpo"), None])
    tuned = f"accuracy on {len(tuning)} tuning tuples"
    return Report(
        ["part", "row", "tuples", "λ", tuned, "accuracy, original", "accuracy, augmented", "gold", "choice"],
        rows,
        _figure(lab, made, plain, asked),
        [*_accuracy_findings(plain, asked), *(_gold_findings(made, best) if lab.has_gold else [])],
        [
            "Accuracy: the share of pairs whose implicit reward h prefers the better-ranked response, under the query and "
            "under the query with Sr-DPO's prompt before it; policy and reference both. A tie counts half.",
            f"λ is chosen by accuracy under the plain query on the first {len(tuning)} pairs of the split `tuning`; all else "
            f"is measured on the split `{whole.comparison.config.evaluation.split}`. λ = 0 is DPO.",
            "Gold reward of answers at T = 1 stands where the paper has win rates by GPT-4 and the Open LLM Leaderboard.",
            "Pairs that the source labels the wrong way round (the sandbox's `label_noise`) bound accuracy from above.",
        ],
        raws,
        {"evaluated prompts": len(heldout), "tuning tuples": len(tuning), "seeds": len(whole.seeds)},
    )


def _label(weight: float) -> str:
    return f"sr_dpo[refinement_weight={weight:g}]" if weight else "dpo"


def _config(lab: Lab, prompts: int, sweep: bool) -> dict[str, object]:
    methods = ["sft", lab.row("dpo", "dpo"), lab.row("sr_dpo", "sr_dpo", objective={"refinement_weight": DEFAULT})]
    if sweep:
        methods.append(lab.row("sr_dpo", "sr_dpo", sweep={"objective.refinement_weight": list(WEIGHTS)}))
    return lab.config(f"tuples-{prompts}", methods, budget={"prompts": prompts})


def _accuracy(lab: Lab, made: Made, label: str, examples: Sequence[Example], *, augmented: bool = False) -> Values:
    """Whether h prefers the better-ranked response of each pair, [seeds, pairs]."""
    pairs = [example for example in examples if len(example.ranked) > 1]
    change = lab.component("objective", "sr_dpo").views()[AUGMENTED]
    prompts: list[Prompt] = [change(example.prompt) if augmented else example.prompt for example in pairs]
    responses = [[Response(example.ranked[0]), Response(example.ranked[-1])] for example in pairs]
    per_seed: dict[int, Mapping[str, float]] = {}
    for seed in made.seeds:
        row, start = made.row(label, seed), made.row("sft", seed)
        with quiet():
            policy = lab.policy(made, row.model).logps(prompts, responses)
            reference = lab.policy(made, start.model).logps(prompts, responses)
        per_seed[seed] = {
            example.prompt.id: _prefers(lp[0] - lr[0], lp[1] - lr[1])
            for example, lp, lr in zip(pairs, policy, reference, strict=True)
        }
    return values_of(per_seed)


def _prefers(chosen: float, rejected: float) -> float:
    return 0.5 * ((chosen > rejected) + (chosen >= rejected))


def _gold(lab: Lab, made: Made, label: str) -> Cell:
    return interval(made.values(label)) if lab.has_gold else None


def _accuracy_findings(plain: Mapping[int, Values], asked: Mapping[int, Values]) -> list[Finding]:
    return [
        within(
            f"Accuracy under the original and the augmented query is similar ({count} tuples).",
            "Figure 1, Assumption 3.2",
            "augmented less original",
            contrast([asked[count], plain[count]], [1, -1]),
            ALIKE,
        )
        for count in plain
    ]


def _gold_findings(made: Mapping[int, Made], best: float) -> list[Finding]:
    fewest, most = min(made), max(made)
    whole = made[most]
    return [
        above_zero(
            "The refinement with the chosen λ is better than none.",
            "Figure 2a, Table 3",
            f"gold at λ = {best:g} less that at λ = 0, {most} tuples",
            contrast([whole.values(_label(best)), whole.values("dpo")], [1, -1]),
        ),
        above_zero(
            "Too large a λ is worse than a middling one.",
            "Figure 2a",
            f"gold at λ = 0.3 less that at λ = {WEIGHTS[-1]:g}",
            contrast([whole.values(_label(0.3)), whole.values(_label(WEIGHTS[-1]))], [1, -1]),
        ),
        above_zero(
            "Sr-DPO gains from more tuples.",
            "Figures 2b and 3",
            f"gold with {most} tuples less that with {fewest}",
            contrast([made[most].values("sr_dpo"), made[fewest].values("sr_dpo")], [1, -1]),
        ),
        above_zero(
            "Its lead over DPO grows with the number of tuples.",
            "Figures 2b and 3",
            f"gold less DPO's with {most} tuples, less the same with {fewest}",
            contrast(
                [made[count].values(row) for count in (most, fewest) for row in ("sr_dpo", "dpo")],
                [1, -1, -1, 1],
            ),
        ),
    ]


def _figure(lab: Lab, made: Mapping[int, Made], plain: Mapping[int, Values], asked: Mapping[int, Values]) -> Markup:
    counts, weights, whole = [str(count) for count in made], (0.0, *WEIGHTS), made[max(made)]
    accuracy = Panel(
        Axes("training tuples", "share of held-out pairs ranked right by sr_dpo", counts),
        [
            Line("original query", [interval(plain[count]) for count in made]),
            Line("augmented query", [interval(asked[count]) for count in made]),
        ],
    )
    if not lab.has_gold:
        return draw("Accuracy of Sr-DPO", accuracy)
    return draw(
        "Accuracy of Sr-DPO, gold reward against λ, gold reward against the number of tuples",
        accuracy,
        Panel(
            Axes("λ; 0 is DPO", "gold reward", [f"{weight:g}" for weight in weights]),
            [Line("sr_dpo", [interval(whole.values(_label(weight))) for weight in weights])],
        ),
        Panel(
            Axes("training tuples", "gold reward", counts),
            [Line(row, [interval(found.values(row)) for found in made.values()]) for row in ("sr_dpo", "dpo")],
        ),
    )
