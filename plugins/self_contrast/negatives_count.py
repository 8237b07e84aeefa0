"""Self-Contrast's number of negatives: results against m, filtered and not, beside DPO on preference pairs (§4.2, Figure 4)."""

from __future__ import annotations

from collections.abc import Sequence

from harness import (
    AnalysisContext,
    Axes,
    Cell,
    CheckedClaim,
    ComparisonResults,
    Figure,
    Interval,
    Line,
    Panel,
    Report,
    contrast,
    interval,
)

COUNTS = (1, 2, 4, 8, 16)
FEW, MANY = 32, 64  # samples for up to 8 negatives, and for 16 (§3.1)
KINDS = ("filtered", "unfiltered")


def run(context: AnalysisContext) -> Report:
    """Train on m = 1 to 16 negatives a prompt, filtered and not."""
    few = {"data.negatives": list(COUNTS[:-1])}
    methods = [
        "sft",
        context.row("dpo", "dpo"),
        context.row("self_contrast", "filtered", data={"samples": FEW}, sweep=few),
        context.row("self_contrast", _label("filtered", COUNTS[-1]), data={"samples": MANY, "negatives": COUNTS[-1]}),
        context.row("self_contrast", "unfiltered", data={"samples": FEW, "keep": 1.0}, sweep={"data.negatives": list(COUNTS)}),
    ]
    raw = context.config("rows", methods)
    results = context.compare(raw)
    labels = ["sft", "dpo", *(_label(kind, count) for kind in KINDS for count in COUNTS)]
    return Report(
        ["row", "gold", "less sft", "pairs", "prompts dropped", "tokens trained", "tokens generated"],
        [_table_row(results, label) for label in labels],
        _figure(results),
        _findings(results),
        [
            f"`filtered` is Self-Contrast with a = 25 %, `unfiltered` with a = 100 %; {FEW} samples a prompt, {MANY} for 16 "
            "filtered negatives (§3.1). The batch holds as many prompts for every m (Table 5).",
            "Gold reward of answers at T = 1 stands where the paper has MT-Bench and a win rate.",
            "A prompt with fewer than m distinct negatives left is dropped, as the paper asks for m non-identical ones: rows "
            "with many dropped prompts have seen fewer prompts. All m train at one learning rate, as in the paper.",
            "Cost in tokens, which no machine changes: generated for a seed's data, in full even where another row had paid, "
            "and trained, every response with a copy of its prompt.",
        ],
        {"rows": raw},
        {"prompts": context.prompts, "evaluated prompts": len(results.evaluated()), "seeds": len(results.seeds)},
    )


def _label(kind: str, count: int) -> str:
    return f"{kind}[negatives={count}]"


def _table_row(results: ComparisonResults, label: str) -> Sequence[Cell]:
    assert results.board is not None
    entry = next(row for row in results.board.rows if row.method == label)
    values = results.values(label)
    if label == "sft":
        return [label, interval(values), None, None, None, None, None]
    return [
        label,
        interval(values),
        contrast([values, results.values("sft")], [1, -1]),
        round(entry.budget["pairs"]),
        results.dropped(label),
        round(entry.cost.tokens_trained or 0),
        round(entry.cost.tokens_generated or 0),
    ]


def _findings(results: ComparisonResults) -> list[CheckedClaim]:
    def values(kind: str, *weights: tuple[int, float]) -> Interval:
        return contrast([results.values(_label(kind, count)) for count, _ in weights], [weight for _, weight in weights])

    most = COUNTS[-1]
    rise = [
        CheckedClaim.above_zero(
            f"More {kind} negatives make a better policy.",
            "Figure 4",
            f"gold at m = {most} less that at m = 1, {kind}",
            values(kind, (most, 1), (1, -1)),
        )
        for kind in KINDS
    ]
    return [
        *rise,
        *(
            CheckedClaim.above_zero(
                f"With many negatives it is better than DPO on preference pairs ({kind}).",
                place,
                f"gold at m = {most} less DPO's",
                contrast([results.values(_label(kind, most)), results.values("dpo")], [1, -1]),
            )
            for kind, place in zip(KINDS, ("Tables 1 and 2", "§4.2"), strict=True)
        ),
        CheckedClaim.above_zero(
            "Each further doubling gains less.",
            "§4.3",
            f"gold gained from m = 1 to 4 less that from 4 to {most}, filtered",
            values("filtered", (4, 2), (1, -1), (most, -1)),
        ),
        *(
            CheckedClaim.above_zero(
                f"Filtering helps at every m: at m = {count}.",
                "Figure 4",
                f"gold filtered less unfiltered, m = {count}",
                contrast([results.values(_label(kind, count)) for kind in KINDS], [1, -1]),
            )
            for count in COUNTS
        ),
    ]


def _figure(results: ComparisonResults) -> Figure:
    lines = [Line(kind, [interval(results.values(_label(kind, count))) for count in COUNTS]) for kind in KINDS]
    lines += [Line(label, [interval(results.values(label)).mean] * len(COUNTS)) for label in ("dpo", "sft")]
    axes = Axes("m, negatives per prompt", "gold reward", [str(count) for count in COUNTS])
    return Figure("Gold reward against the number of negatives", [Panel(axes, lines)])
