"""Sr-DPO's and Sr-IPO's accuracy: does the augmented prompt rank pairs as the plain one does (Figure 1, Assumption 3.2)?

Beside it, the choice of λ on 50 tuples (§4.1) and its sweep (Figure 2a), and the number of training tuples (Figures 2b, 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from harness import (
    AnalysisContext,
    Axes,
    Cell,
    CheckedClaim,
    ComparisonResults,
    ConfigError,
    Example,
    Figure,
    Interval,
    Line,
    Panel,
    Problem,
    Prompt,
    Report,
    Response,
    Values,
    contrast,
    interval,
)
from harness_plugins.self_refined.refinement import AUGMENTED

PLAIN = {"sr_dpo": "dpo", "sr_ipo": "ipo"}  # each method without its refinement
WEIGHTS = (0.1, 0.3, 0.5, 1.0)  # λ; 0 is the plain method
DEFAULT = 0.5  # λ where the number of tuples is varied
SHARES = (4, 2, 1)  # of the budget, for the number of tuples
CHOICE = 50  # tuples on which λ is chosen
ALIKE = 0.05  # accuracies that differ by no more are read as similar


@dataclass(frozen=True)
class Refined:
    """A refined method, trained with every λ on all tuples and with the default λ on fewer.

    Attributes:
        name: the method.
        results: its comparisons, by number of tuples.
        tuning: the pairs on which λ is chosen.
    """

    name: str
    context: AnalysisContext
    results: Mapping[int, ComparisonResults]
    tuning: Sequence[Example]
    _accuracies: dict[tuple[object, ...], Values] = field(default_factory=dict)

    @property
    def plain(self) -> str:
        return PLAIN[self.name]

    @property
    def most(self) -> int:
        return max(self.results)

    def label(self, weight: float) -> str:
        """Return the label of the row trained with this λ on all tuples."""
        return f"{self.name}[refinement_weight={weight:g}]" if weight else self.plain

    @cached_property
    def chosen(self) -> float:
        """Return the λ of the highest accuracy on the tuning pairs, the smallest of equal ones."""
        return max(WEIGHTS, key=lambda weight: interval(self.accuracy(self.most, self.label(weight), tuning=True)).mean)

    def gold(self, count: int, label: str) -> Interval | None:
        return interval(self.results[count].values(label)) if self.context.has_gold else None

    def accuracy(self, count: int, label: str, *, augmented: bool = False, tuning: bool = False) -> Values:
        """Return whether h prefers the better-ranked response of each held-out (or tuning) pair, [seeds, pairs]."""
        key = (count, label, augmented, tuning)
        if key not in self._accuracies:
            self._accuracies[key] = self._accuracy(
                count, label, augmented, self.tuning if tuning else self.results[count].evaluated()
            )
        return self._accuracies[key]

    def _accuracy(self, count: int, label: str, augmented: bool, examples: Sequence[Example]) -> Values:
        results = self.results[count]
        pairs = [example for example in examples if len(example.ranked) > 1]
        change = self.context.component("objective", self.name).views()[AUGMENTED]
        prompts: list[Prompt] = [change(example.prompt) if augmented else example.prompt for example in pairs]
        responses = [[Response(example.ranked[0]), Response(example.ranked[-1])] for example in pairs]
        per_seed: dict[int, Mapping[str, float]] = {}
        for seed in results.seeds:
            policy = results.logps(results.model(label, seed), prompts, responses)
            reference = results.logps(results.model("sft", seed), prompts, responses)
            per_seed[seed] = {
                example.prompt.id: _prefers(lp[0] - lr[0], lp[1] - lr[1])
                for example, lp, lr in zip(pairs, policy, reference, strict=True)
            }
        return Values.from_numbers(per_seed)


def _prefers(chosen: float, rejected: float) -> float:
    """Return 1 if the chosen response has the larger h, 0 if the rejected has, ½ for a tie."""
    return 0.5 * ((chosen > rejected) + (chosen >= rejected))


def run(context: AnalysisContext) -> Report:
    """Train DPO, IPO and their refinements for every λ on all tuples, and for the default λ on fewer."""
    raws = _raws(context)
    results = {count: context.compare(raw) for count, raw in raws.items()}
    whole = results[context.prompts]
    tuning = _tuning(context, whole)
    methods = [Refined(name, context, results, tuning) for name in PLAIN]
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
            f"is measured on the split `{whole.split}`. λ = 0 is DPO, and IPO by sums, as the "
            "paper writes it, trained with the settings of Sr-IPO.",
            "Gold reward of answers at T = 1 stands where the paper has win rates by GPT-4 and the Open LLM Leaderboard.",
            "Pairs that the source labels the wrong way round (the sandbox's `label_noise`) bound accuracy from above.",
        ],
        {str(raw["name"]).removeprefix(f"{context.name}-"): raw for raw in raws.values()},
        {"evaluated prompts": len(whole.evaluated()), "tuning tuples": len(tuning), "seeds": len(whole.seeds)},
    )


def _raws(context: AnalysisContext) -> dict[int, dict[str, object]]:
    """Return the configs of the comparisons, by number of tuples, fewest first."""
    if context.prompts < max(SHARES):
        fix = f"the smallest of {len(SHARES)} data sets is a {max(SHARES)}th of it: it should be {max(SHARES)} or more"
        raise ConfigError([Problem("budget.prompts", context.prompts, fix)], context.where)
    sums: dict[str, dict[str, object]] = {"sr_dpo": {}, "sr_ipo": {"normalize": "sum"}}  # as the paper writes them
    plain_ipo = {**context.row("sr_ipo", "ipo", objective=sums["sr_ipo"]), "method": "ipo"}
    methods = ["sft", context.row("dpo", "dpo"), plain_ipo]
    methods += [context.row(name, name, objective={"refinement_weight": DEFAULT, **sums[name]}) for name in PLAIN]
    sweeps = [
        {**context.row(name, name, objective=sums[name]), "sweep": {"objective.refinement_weight": list(WEIGHTS)}}
        for name in PLAIN
    ]
    raws: dict[int, dict[str, object]] = {}
    for share in SHARES:
        count = context.prompts // share
        rows = [*methods, *(sweeps if share == 1 else [])]
        raws[count] = context.config(f"tuples-{count}", rows, budget={"prompts": count})
    return raws


def _tuning(context: AnalysisContext, results: ComparisonResults) -> list[Example]:
    """Return the pairs on which λ is chosen."""
    tuning = [example for example in results.dataset["tuning"] if len(example.ranked) > 1][:CHOICE]
    if not tuning:
        fix = "λ is chosen on the split `tuning`, which has no pairs: load some, as in source.tuning = 50"
        raise ConfigError([Problem("source", context.settings.source.name, fix)], context.where)
    return tuning


def _by_weight(method: Refined) -> Iterator[Sequence[Cell]]:
    """Yield rows of the table, one per λ."""
    for weight in (0.0, *WEIGHTS):
        label, most = method.label(weight), method.most
        tuned = interval(method.accuracy(most, label, tuning=True))
        held = [interval(method.accuracy(most, label, augmented=augmented)) for augmented in (False, True)]
        chosen = "chosen" if weight == method.chosen else None
        yield ["Figure 2a", label, most, f"{weight:g}", tuned, *held, method.gold(most, label), chosen]


def _by_count(method: Refined) -> Iterator[Sequence[Cell]]:
    """Yield rows of the table, two per number of tuples: refined and plain."""
    for count in method.results:
        held = [interval(method.accuracy(count, method.name, augmented=augmented)) for augmented in (False, True)]
        gold = method.gold(count, method.name)
        yield ["Figures 1, 2b", method.name, count, f"{DEFAULT:g}", None, *held, gold, None]
        plain = interval(method.accuracy(count, method.plain))
        yield ["Figures 1, 2b", method.plain, count, "0", None, plain, None, method.gold(count, method.plain), None]


def _findings(method: Refined) -> list[CheckedClaim]:
    """Check the paper's claims on one method."""
    alike = [
        CheckedClaim.within(
            f"{method.name}: accuracy under the original and the augmented query is similar ({count} tuples).",
            "Figure 1, Assumption 3.2",
            "augmented less original",
            contrast([method.accuracy(count, method.name, augmented=True), method.accuracy(count, method.name)], [1, -1]),
            ALIKE,
        )
        for count in method.results
    ]
    return [*alike, *(_gold_findings(method) if method.context.has_gold else [])]


def _gold_findings(method: Refined) -> list[CheckedClaim]:
    name, plain = method.name, method.plain
    fewest, most = min(method.results), method.most
    whole = method.results[most]
    return [
        CheckedClaim.above_zero(
            f"{name}: the refinement with the chosen λ is better than none.",
            "Figure 2a, Table 3",
            f"gold at λ = {method.chosen:g} less that at λ = 0, {most} tuples",
            contrast([whole.values(method.label(method.chosen)), whole.values(plain)], [1, -1]),
        ),
        CheckedClaim.above_zero(
            f"{name}: too large a λ is worse than a middling one.",
            "Figure 2a",
            f"gold at λ = 0.3 less that at λ = {WEIGHTS[-1]:g}",
            contrast([whole.values(method.label(0.3)), whole.values(method.label(WEIGHTS[-1]))], [1, -1]),
        ),
        CheckedClaim.above_zero(
            f"{name} gains from more tuples.",
            "Figures 2b and 3",
            f"gold with {most} tuples less that with {fewest}",
            contrast([method.results[most].values(name), method.results[fewest].values(name)], [1, -1]),
        ),
        CheckedClaim.above_zero(
            f"The lead of {name} over {plain} grows with the number of tuples.",
            "Figures 2b and 3",
            f"gold less {plain}'s with {most} tuples, less the same with {fewest}",
            contrast(
                [method.results[count].values(row) for count in (most, fewest) for row in (name, plain)],
                [1, -1, -1, 1],
            ),
        ),
    ]


def _figure(methods: Sequence[Refined]) -> Figure:
    results, context = methods[0].results, methods[0].context
    counts, weights = [str(count) for count in results], (0.0, *WEIGHTS)
    accuracy = Panel(
        Axes("training tuples", "share of held-out pairs ranked right", counts),
        [
            Line(
                f"{method.name}, {'augmented' if augmented else 'original'}",
                [interval(method.accuracy(count, method.name, augmented=augmented)) for count in results],
            )
            for method in methods
            for augmented in (False, True)
        ],
    )
    if not context.has_gold:
        return Figure("Accuracy of Sr-DPO and Sr-IPO", [accuracy])
    by_weight = Panel(
        Axes("λ; 0 is DPO, and IPO", "gold reward", [f"{weight:g}" for weight in weights]),
        [Line(method.name, [method.gold(method.most, method.label(weight)) for weight in weights]) for method in methods],
    )
    by_count = Panel(
        Axes("training tuples", "gold reward", counts),
        [
            Line(row, [method.gold(count, row) for count in results])
            for method in methods
            for row in (method.name, method.plain)
        ],
    )
    title = "Accuracy of Sr-DPO and Sr-IPO, gold reward against λ, gold reward against the number of tuples"
    return Figure(title, [accuracy, by_weight, by_count])
