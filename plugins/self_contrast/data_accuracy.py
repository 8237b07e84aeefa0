"""Self-Contrast's data accuracy: the share of negatives whose reward is below the target's (§4.1, Figure 5).

It is measured against a, the least similar share of the samples that is kept, and R, the number of samples; for comparison,
with the unfiltered negatives of SPIN and with those of a filter by reward; and beside the gold reward of the trained policies.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness import (
    AnalysisContext,
    Axes,
    Cell,
    CheckedClaim,
    ComparisonResults,
    Figure,
    Line,
    Panel,
    Report,
    Values,
    contrast,
    interval,
)

SHARES = (1, 2, 4, 8, 16)  # a = 1 / share; the paper's is 25 %
COUNTS = (8, 16, 32)  # R; the paper's is the last
CHOSEN = 4  # the share of the paper's a


def run(context: AnalysisContext) -> Report:
    """Build the data for every a and R; train on those of the largest R."""
    trained = context.config(
        "trained",
        [
            "sft",
            *(_row(context, share, COUNTS[-1]) for share in SHARES),
            context.row("spin", "spin"),
            {
                **_row(context, 1, COUNTS[-1]),
                "method": "reward_filtered",
                "label": "reward_filtered",
                "data": {"samples": COUNTS[-1]},
            },
        ],
    )
    pairs = [(share, count) for count in COUNTS[:-1] for share in SHARES if share <= count]
    built = context.config("built", [_row(context, share, count) for share, count in pairs])
    policies, data = context.compare(trained), context.build(built)
    accuracy = {
        **{(share, COUNTS[-1]): _accuracy(policies, _label(share, COUNTS[-1])) for share in SHARES},
        **{(share, count): _accuracy(data, _label(share, count)) for share, count in pairs},
    }
    rows: list[Sequence[Cell]] = [
        [_label(share, count), count, 1 / share, interval(accuracy[share, count]), results.dropped(_label(share, count)), gold]
        for (share, count), results, gold in (
            *(((s, COUNTS[-1]), policies, interval(policies.values(_label(s, COUNTS[-1])))) for s in SHARES),
            *((pair, data, None) for pair in pairs),
        )
    ]
    for label in ("spin", "reward_filtered"):
        count = 1 if label == "spin" else COUNTS[-1]
        values = interval(_accuracy(policies, label)), policies.dropped(label), interval(policies.values(label))
        rows.append([label, count, None, *values])
    return Report(
        ["data", "R", "a", "data accuracy", "prompts dropped", "gold after training"],
        rows,
        _figure(accuracy, interval(_accuracy(policies, "spin")).mean),
        _findings(policies, accuracy),
        [
            "Data accuracy: the share of negatives whose gold reward is below the target's (§4.1), one negative a prompt.",
            "Gold reward stands where the paper has Starling-RM-7B-alpha and MT-Bench. Similarity is the builder's default.",
            "a below 1/R would leave no sample, so small R stop at a larger a.",
        ],
        {"trained": trained, "built": built},
        {"prompts": context.prompts, "seeds": len(policies.seeds)},
    )


def _row(context: AnalysisContext, share: int, count: int) -> dict[str, object]:
    return context.row("self_contrast", _label(share, count), data={"samples": count, "keep": 1 / share, "negatives": 1})


def _label(share: int, count: int) -> str:
    return f"a=1/{share}, R={count}"


def _accuracy(results: ComparisonResults, label: str) -> Values:
    """Return each prompt's share of negatives below the target, [seeds, prompts]."""
    return Values.from_numbers(
        {
            seed: {group.prompt: sum(gold < group.chosen for gold in group.rejected) / len(group.rejected) for group in groups}
            for seed, groups in results.group_rewards(label).items()
        }
    )


def _findings(policies: ComparisonResults, accuracy: dict[tuple[int, int], Values]) -> list[CheckedClaim]:
    most = COUNTS[-1]

    def gold(share: int) -> Values:
        return policies.values(_label(share, most))

    spin = _accuracy(policies, "spin")
    return [
        CheckedClaim.above_zero(
            "The less similar the kept samples are to the target, the more of them are true negatives.",
            "Figure 5",
            f"accuracy at a = 1/{SHARES[-1]} less that at a = 1/1",
            contrast([accuracy[SHARES[-1], most], accuracy[1, most]], [1, -1]),
        ),
        CheckedClaim.above_zero(
            "Filtered negatives are more often true than SPIN's unfiltered ones.",
            "§4.1",
            f"accuracy at a = 1/{CHOSEN} less SPIN's",
            contrast([accuracy[CHOSEN, most], spin], [1, -1]),
        ),
        CheckedClaim.above_zero(
            "Some filtering makes a better policy than none.",
            "Figure 5",
            f"gold at a = 1/{CHOSEN} less that at a = 1/1",
            contrast([gold(CHOSEN), gold(1)], [1, -1]),
        ),
        CheckedClaim.above_zero(
            "Too small an a makes a worse policy although the data are more accurate.",
            "Figure 5",
            f"gold at a = 1/{CHOSEN} less that at a = 1/{SHARES[-1]}",
            contrast([gold(CHOSEN), gold(SHARES[-1])], [1, -1]),
        ),
    ]


def _figure(accuracy: dict[tuple[int, int], Values], spin: float) -> Figure:
    lines = [
        Line(f"R = {count}", [interval(accuracy[share, count]) if (share, count) in accuracy else None for share in SHARES])
        for count in reversed(COUNTS)
    ]
    lines.append(Line("SPIN, unfiltered", [spin] * len(SHARES)))
    axes = Axes("a, the least similar share that is kept", "share of negatives below the target", [f"1/{s}" for s in SHARES])
    return Figure("Data accuracy against a, for three R", [Panel(axes, lines)])
