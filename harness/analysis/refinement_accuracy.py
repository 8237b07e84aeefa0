"""Sr-DPO and Sr-IPO: does the augmented prompt rank pairs as the plain one does (Figure 1, Assumption 3.2)? The choice of λ on
50 tuples (§4.1) and its sweep (Figure 2a), and the number of training tuples (Figures 2b and 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from harness.analysis.bootstrap import contrast
from harness.analysis.figure import Axes, Line, Panel, draw
from harness.analysis.lab import Lab
from harness.analysis.made import Made
from harness.analysis.refined import DEFAULT, PLAIN, WEIGHTS, Refined
from harness.analysis.report import Cell, Finding, Report, above_zero, within
from harness.errors import ConfigError, Problem
from harness.statistics import interval
from harness.types import Example

SHARES = (4, 2, 1)  # of the budget, for the number of tuples
CHOICE = 50  # tuples on which λ is chosen
ALIKE = 0.05  # accuracies that differ by no more are read as similar


def run(lab: Lab) -> Report:
    """Train DPO, IPO and their refinements for every λ on all tuples, and for the default λ on fewer."""
    raws = _raws(lab)
    made = {count: lab.compare(raw) for count, raw in raws.items()}
    whole = made[lab.prompts]
    tuning = _tuning(lab, whole)
    methods = [Refined(name, lab, made, tuning) for name in PLAIN]
    tuned = f"accuracy on {len(tuning)} tuning tuples"
    return Report(
        ["part", "row", "tuples", "λ", tuned, "accuracy, original", "accuracy, augmented", "gold", "choice"],
        [row for method in methods for row in (*_by_weight(method), *_by_count(method))],
        _figure(methods),
        [finding for method in methods for finding in _findings(method)],
        [
            "Accuracy: the share of pairs whose implicit reward h prefers the better-ranked response, under the query and "
            "under the query with Sr-DPO's prompt before it; policy and reference both. A tie counts half.",
            f"λ is chosen by accuracy under the plain query on the first {len(tuning)} pairs of the split `tuning`; all else "
            f"is measured on the split `{whole.comparison.config.evaluation.split}`. λ = 0 is DPO, and IPO by sums, as the "
            "paper writes it, trained with the settings of Sr-IPO.",
            "Gold reward of answers at T = 1 stands where the paper has win rates by GPT-4 and the Open LLM Leaderboard.",
            "Pairs that the source labels the wrong way round (the sandbox's `label_noise`) bound accuracy from above.",
        ],
        {str(raw["name"]).removeprefix(f"{lab.name}-"): raw for raw in raws.values()},
        {"evaluated prompts": len(whole.evaluated()), "tuning tuples": len(tuning), "seeds": len(whole.seeds)},
    )


def _raws(lab: Lab) -> dict[int, dict[str, object]]:
    """The configs of the comparisons, by number of tuples, fewest first."""
    if lab.prompts < max(SHARES):
        fix = f"the smallest of {len(SHARES)} data sets is a {max(SHARES)}th of it: it should be {max(SHARES)} or more"
        raise ConfigError([Problem("budget.prompts", lab.prompts, fix)], lab.where)
    sums = {**lab.row("sr_ipo", "ipo", objective={"normalize": "sum"}), "method": "ipo"}
    methods = ["sft", lab.row("dpo", "dpo"), sums]
    methods += [lab.row(name, name, objective={"refinement_weight": DEFAULT}) for name in PLAIN]
    sweeps = [lab.row(name, name, sweep={"objective.refinement_weight": list(WEIGHTS)}) for name in PLAIN]
    raws: dict[int, dict[str, object]] = {}
    for share in SHARES:
        count = lab.prompts // share
        rows = [*methods, *(sweeps if share == 1 else [])]
        raws[count] = lab.config(f"tuples-{count}", rows, budget={"prompts": count})
    return raws


def _tuning(lab: Lab, made: Made) -> list[Example]:
    """The pairs on which λ is chosen."""
    tuning = [example for example in made.dataset["tuning"] if len(example.ranked) > 1][:CHOICE]
    if not tuning:
        fix = "λ is chosen on the split `tuning`, which has no pairs: load some, as in source.tuning = 50"
        raise ConfigError([Problem("source", made.comparison.source.name, fix)], lab.where)
    return tuning


def _by_weight(method: Refined) -> Iterator[Sequence[Cell]]:
    """Rows of the table: one λ each."""
    for weight in (0.0, *WEIGHTS):
        label, most = method.label(weight), method.most
        tuned = interval(method.accuracy(most, label, tuning=True))
        held = [interval(method.accuracy(most, label, augmented=augmented)) for augmented in (False, True)]
        chosen = "chosen" if weight == method.chosen else None
        yield ["Figure 2a", label, most, f"{weight:g}", tuned, *held, method.gold(most, label), chosen]


def _by_count(method: Refined) -> Iterator[Sequence[Cell]]:
    """Rows of the table: one number of tuples each, refined and plain."""
    for count in method.made:
        held = [interval(method.accuracy(count, method.name, augmented=augmented)) for augmented in (False, True)]
        gold = method.gold(count, method.name)
        yield ["Figures 1, 2b", method.name, count, f"{DEFAULT:g}", None, *held, gold, None]
        plain = interval(method.accuracy(count, method.plain))
        yield ["Figures 1, 2b", method.plain, count, "0", None, plain, None, method.gold(count, method.plain), None]


def _findings(method: Refined) -> list[Finding]:
    """The paper's claims on one method."""
    alike = [
        within(
            f"{method.name}: accuracy under the original and the augmented query is similar ({count} tuples).",
            "Figure 1, Assumption 3.2",
            "augmented less original",
            contrast([method.accuracy(count, method.name, augmented=True), method.accuracy(count, method.name)], [1, -1]),
            ALIKE,
        )
        for count in method.made
    ]
    return [*alike, *(_gold_findings(method) if method.lab.has_gold else [])]


def _gold_findings(method: Refined) -> list[Finding]:
    name, plain = method.name, method.plain
    fewest, most = min(method.made), method.most
    whole = method.made[most]
    return [
        above_zero(
            f"{name}: the refinement with the chosen λ is better than none.",
            "Figure 2a, Table 3",
            f"gold at λ = {method.chosen:g} less that at λ = 0, {most} tuples",
            contrast([whole.values(method.label(method.chosen)), whole.values(plain)], [1, -1]),
        ),
        above_zero(
            f"{name}: too large a λ is worse than a middling one.",
            "Figure 2a",
            f"gold at λ = 0.3 less that at λ = {WEIGHTS[-1]:g}",
            contrast([whole.values(method.label(0.3)), whole.values(method.label(WEIGHTS[-1]))], [1, -1]),
        ),
        above_zero(
            f"{name} gains from more tuples.",
            "Figures 2b and 3",
            f"gold with {most} tuples less that with {fewest}",
            contrast([method.made[most].values(name), method.made[fewest].values(name)], [1, -1]),
        ),
        above_zero(
            f"The lead of {name} over {plain} grows with the number of tuples.",
            "Figures 2b and 3",
            f"gold less {plain}'s with {most} tuples, less the same with {fewest}",
            contrast(
                [method.made[count].values(row) for count in (most, fewest) for row in (name, plain)],
                [1, -1, -1, 1],
            ),
        ),
    ]


def _figure(methods: Sequence[Refined]) -> Markup:
    made, lab = methods[0].made, methods[0].lab
    counts, weights = [str(count) for count in made], (0.0, *WEIGHTS)
    accuracy = Panel(
        Axes("training tuples", "share of held-out pairs ranked right", counts),
        [
            Line(
                f"{method.name}, {'augmented' if augmented else 'original'}",
                [interval(method.accuracy(count, method.name, augmented=augmented)) for count in made],
            )
            for method in methods
            for augmented in (False, True)
        ],
    )
    if not lab.has_gold:
        return draw("Accuracy of Sr-DPO and Sr-IPO", accuracy)
    return draw(
        "Accuracy of Sr-DPO and Sr-IPO, gold reward against λ, gold reward against the number of tuples",
        accuracy,
        Panel(
            Axes("λ; 0 is DPO, and IPO", "gold reward", [f"{weight:g}" for weight in weights]),
            [Line(method.name, [method.gold(method.most, method.label(weight)) for weight in weights]) for method in methods],
        ),
        Panel(
            Axes("training tuples", "gold reward", counts),
            [
                Line(row, [method.gold(count, row) for count in made])
                for method in methods
                for row in (method.name, method.plain)
            ],
        ),
    )
