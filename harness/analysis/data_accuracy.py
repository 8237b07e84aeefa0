"""Self-Contrast's data accuracy: the share of negatives whose reward is below the target's (§4.1, Figure 5).

Against a, the least similar share of the samples that is kept, and R, how many were sampled; beside it the unfiltered
negatives of SPIN and those of a filter by reward, and the gold reward of the policies trained on each.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from harness.analysis.bootstrap import contrast
from harness.analysis.figure import Axes, Line, Panel, draw
from harness.analysis.lab import Lab
from harness.analysis.made import Made, values_of
from harness.analysis.report import Cell, Finding, Report, above_zero
from harness.statistics import Values, interval

SHARES = (1, 2, 4, 8, 16)  # a = 1 / share
COUNTS = (8, 16, 32)  # R; the paper's is the last
CHOSEN = 4  # the paper's a is 25 %


def run(lab: Lab) -> Report:
    """Build the data for every a and R; train on those of the largest R."""
    trained = lab.config(
        "trained",
        [
            "sft",
            *(_row(lab, share, COUNTS[-1]) for share in SHARES),
            lab.row("spin", "spin"),
            {
                **_row(lab, 1, COUNTS[-1]),
                "method": "reward_filtered",
                "label": "reward_filtered",
                "data": {"samples": COUNTS[-1]},
            },
        ],
    )
    pairs = [(share, count) for count in COUNTS[:-1] for share in SHARES if share <= count]
    built = lab.config("built", [_row(lab, share, count) for share, count in pairs])
    policies, data = lab.compare(trained), lab.build(built)
    accuracy = {
        **{(share, COUNTS[-1]): _accuracy(policies, _label(share, COUNTS[-1])) for share in SHARES},
        **{(share, count): _accuracy(data, _label(share, count)) for share, count in pairs},
    }
    rows: list[Sequence[Cell]] = [
        [_label(share, count), count, 1 / share, interval(accuracy[share, count]), made.dropped(_label(share, count)), gold]
        for (share, count), made, gold in (
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
        {"prompts": lab.prompts, "seeds": len(policies.seeds)},
    )


def _row(lab: Lab, share: int, count: int) -> dict[str, object]:
    return lab.row("self_contrast", _label(share, count), data={"samples": count, "keep": 1 / share, "negatives": 1})


def _label(share: int, count: int) -> str:
    return f"a=1/{share}, R={count}"


def _accuracy(made: Made, label: str) -> Values:
    return values_of(
        {
            seed: {group.prompt: sum(mark < group.chosen for mark in group.rejected) / len(group.rejected) for group in groups}
            for seed, groups in made.marked(label).items()
        }
    )


def _findings(policies: Made, accuracy: dict[tuple[int, int], Values]) -> list[Finding]:
    most = COUNTS[-1]

    def gold(share: int) -> Values:
        return policies.values(_label(share, most))

    spin = _accuracy(policies, "spin")
    return [
        above_zero(
            "The less similar the kept samples are to the target, the more of them are true negatives.",
            "Figure 5",
            f"accuracy at a = 1/{SHARES[-1]} less that at a = 1/1",
            contrast([accuracy[SHARES[-1], most], accuracy[1, most]], [1, -1]),
        ),
        above_zero(
            "Filtered negatives are more often true than SPIN's unfiltered ones.",
            "§4.1",
            f"accuracy at a = 1/{CHOSEN} less SPIN's",
            contrast([accuracy[CHOSEN, most], spin], [1, -1]),
        ),
        above_zero(
            "Some filtering makes a better policy than none.",
            "Figure 5",
            f"gold at a = 1/{CHOSEN} less that at a = 1/1",
            contrast([gold(CHOSEN), gold(1)], [1, -1]),
        ),
        above_zero(
            "Too small an a makes a worse policy although the data are more accurate.",
            "Figure 5",
            f"gold at a = 1/{CHOSEN} less that at a = 1/{SHARES[-1]}",
            contrast([gold(CHOSEN), gold(SHARES[-1])], [1, -1]),
        ),
    ]


def _figure(accuracy: dict[tuple[int, int], Values], spin: float) -> Markup:
    lines = [
        Line(f"R = {count}", [interval(accuracy[share, count]) if (share, count) in accuracy else None for share in SHARES])
        for count in reversed(COUNTS)
    ]
    lines.append(Line("SPIN, unfiltered", [spin] * len(SHARES)))
    axes = Axes("a, the least similar share that is kept", "share of negatives below the target", [f"1/{s}" for s in SHARES])
    return draw("Data accuracy against a, for three R", Panel(axes, lines))
