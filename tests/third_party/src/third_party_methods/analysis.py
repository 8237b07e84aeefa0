"""An analysis of `tp_method`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from harness import Analysis, Paper

if TYPE_CHECKING:
    from harness import AnalysisContext, Report


class HalfTargets(Analysis):
    """Trains on half targets, with the objective of this package and with DPO, and holds both against the starting model."""

    name: ClassVar[str] = "tp-half-targets"
    paper: ClassVar[Paper | None] = Paper("Half a Sum", "2401.00001", "Table 1")
    question: ClassVar[str] = "Whether half a target as the negative makes right sums likelier"
    needs: ClassVar[frozenset[Literal["target", "ranked", "gold", "benchmarks"]]] = frozenset({"target", "gold"})
    minutes: ClassVar[float] = 1

    def run(self, context: AnalysisContext) -> Report:
        from harness import Axes, CheckedClaim, Figure, Line, Panel, Report, Values, contrast, interval

        labels = ("sft", "squared", "dpo")
        on_dpo = {**context.row("tp_method", "dpo"), "objective": "dpo"}
        raw = context.config("rows", ["sft", context.row("tp_method", "squared"), on_dpo])
        results = context.compare(raw)
        gold = {label: results.values(label) for label in labels}
        preferred: dict[str, Values] = {}
        examples = results.evaluated()
        prompts = [example.prompt for example in examples]
        for label in labels:
            per_seed: dict[int, dict[str, float]] = {}
            for seed in results.seeds:
                groups = results.groups("squared", seed)
                logps = results.logps(
                    results.model(label, seed), [g.prompt for g in groups], [[g.chosen, g.rejected[0]] for g in groups]
                )
                per_seed[seed] = {g.prompt.id: float(pair[0] > pair[1]) for g, pair in zip(groups, logps, strict=True)}
            preferred[label] = Values.from_numbers(per_seed)
        return Report(
            ["row", "gold", "whole targets preferred", "prompts dropped"],
            [
                [
                    label,
                    interval(gold[label]),
                    interval(preferred[label]),
                    None if label == "sft" else results.dropped(label),
                ]
                for label in labels
            ],
            Figure(
                "Gold by row",
                [Panel(Axes("row", "gold", labels), [Line("gold", [interval(gold[label]) for label in labels])])],
            ),
            [
                CheckedClaim.above_zero(
                    "Training on half targets helps.",
                    "Table 1",
                    "gold of squared less that of sft",
                    contrast([gold["squared"], gold["sft"]], [1, -1]),
                )
            ],
            ["Gold of answers to the evaluated prompts, and the share of groups whose chosen response is likelier."],
            {"rows": raw},
            {"evaluated prompts": len(prompts), "seeds": len(results.seeds)},
        )
