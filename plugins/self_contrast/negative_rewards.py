"""Self-Contrast's rewards of negatives: their distribution, and its distance from that of a filter by reward (§4.1, Figure 6).

A negative is placed by its margin, the target's gold reward less its own: above 0 it is a true negative, and the smaller, the
harder. The paper's D_KL|[0,1] is over true negatives; so is the first divergence here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

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
from harness_plugins.self_contrast.divergence import Floats, Histograms, growth

SHARES = (1, 2, 4, 8, 16)  # a = 1 / share
SAMPLES = 32
BINS = 20  # over the true negatives' margins
REFERENCE = "reward_filtered"
SIDE = 10  # bins of the figure on either side of 0


def run(context: AnalysisContext) -> Report:
    """Build one negative a prompt by every filter; nothing is trained."""
    rows = [
        *(
            context.row("self_contrast", _label(share), data={"samples": SAMPLES, "keep": 1 / share, "negatives": 1})
            for share in SHARES
        ),
        context.row("spin", "spin"),
        context.row(REFERENCE, REFERENCE, data={"samples": SAMPLES}),
    ]
    raw = context.config("data", rows)
    results = context.build(raw)
    margins = {str(row["label"]): _margins(results, str(row["label"])) for row in rows}
    edges = _edges(margins)
    every = sorted({prompt for per_prompt in margins.values() for prompt in per_prompt})
    true = {label: _histograms(own, margins[REFERENCE], every, edges[edges >= 0]) for label, own in margins.items()}
    whole = {label: _histograms(own, margins[REFERENCE], every, edges) for label, own in margins.items()}
    table: list[Sequence[Cell]] = []
    for label in margins:
        divergence = None if label == REFERENCE else true[label].divergence()
        table.append(
            [
                label,
                interval(_rewards(results, label)),
                interval(_falsehood(results, label)),
                interval(_true_margin(results, label)),
                divergence,
                None if divergence is None else true[label].noise(),
                None if label == REFERENCE else whole[label].divergence(),
            ]
        )
    return Report(
        ["data", "gold of negatives", "false negatives", "margin of true ones", "KL, true negatives", "noise", "KL, all"],
        table,
        _figure(margins),
        _findings(results, true),
        [
            f"One negative a prompt, drawn from {SAMPLES} samples. Margin: the target's gold reward less the negative's.",
            f"KL(filter ‖ reward filter) in nats, histograms of {BINS} bins of equal width over the margins of true negatives "
            "(over all margins in the last column), half a count added to every bin.",
            "Noise: what 95 % of divergences stay below when each prompt's two negatives are swapped at random. Two samples of "
            "one distribution are above 0 too.",
            "Resampling biases a divergence of histograms upwards once more, so its interval is the basic one (2θ − quantiles) "
            "and cut at 0.",
            "The paper does not say what its axis is; margin, cut to where it is positive, is our reading of D_KL|[0,1].",
        ],
        {"data": raw},
        {"prompts": context.prompts, "seeds": len(results.seeds)},
    )


def _label(share: int) -> str:
    return f"a=1/{share}"


def _margins(results: ComparisonResults, label: str) -> dict[str, list[float]]:
    """Return the target's gold less the negative's, by prompt, of all seeds."""
    margins: dict[str, list[float]] = {}
    for groups in results.group_rewards(label).values():
        for group in groups:
            margins.setdefault(group.prompt, []).extend(group.chosen - gold for gold in group.rejected)
    return margins


def _edges(margins: Mapping[str, Mapping[str, Sequence[float]]]) -> Floats:
    """Return the edges of bins as wide below 0 as above."""
    values = [value for by_prompt in margins.values() for per_prompt in by_prompt.values() for value in per_prompt]
    width = max(max(values), 1e-6) / BINS
    below = int(np.ceil(max(0.0, -min(values)) / width)) + 1
    edges: Floats = np.arange(-below, BINS + 1, dtype=np.float64) * width
    edges[below] = np.nextafter(0.0, 1.0)  # a margin of exactly 0 is a false negative's
    edges[-1] *= 1 + 1e-9  # the largest margin, too, lies inside
    return edges


def _histograms(
    margins: Mapping[str, Sequence[float]], reference: Mapping[str, Sequence[float]], prompts: Sequence[str], edges: Floats
) -> Histograms:
    """Count margins over the same prompts for every filter, so that divergences can be compared prompt by prompt."""
    return Histograms.of(
        {prompt: margins.get(prompt, ()) for prompt in prompts},
        {prompt: reference.get(prompt, ()) for prompt in prompts},
        edges,
    )


def _rewards(results: ComparisonResults, label: str) -> Values:
    return Values.from_numbers(
        {
            seed: {group.prompt: float(np.mean(group.rejected)) for group in groups}
            for seed, groups in results.group_rewards(label).items()
        }
    )


def _falsehood(results: ComparisonResults, label: str) -> Values:
    return Values.from_numbers(
        {
            seed: {group.prompt: float(np.mean([gold >= group.chosen for gold in group.rejected])) for group in groups}
            for seed, groups in results.group_rewards(label).items()
        }
    )


def _true_margin(results: ComparisonResults, label: str) -> Values:
    return Values.from_numbers(
        {
            seed: {
                group.prompt: float(np.mean(margins))
                for group in groups
                if (margins := [group.chosen - gold for gold in group.rejected if gold < group.chosen])
            }
            for seed, groups in results.group_rewards(label).items()
        }
    )


def _findings(results: ComparisonResults, true: Mapping[str, Histograms]) -> list[CheckedClaim]:
    plain, tight = _label(SHARES[0]), _label(SHARES[-1])
    return [
        CheckedClaim.at_most(
            "Without filtering, the true negatives are distributed as those of a filter by reward.",
            "Figure 6",
            "KL of a = 1/1, against what two samples of one distribution have",
            true[plain].divergence(),
            true[plain].noise(),
        ),
        CheckedClaim.above_zero(
            "Filtering hard moves the true negatives away from those of a filter by reward.",
            "Figure 6",
            f"KL of {tight} less that of {plain}",
            growth(true[plain], true[tight]),
        ),
        CheckedClaim.above_zero(
            "Filtering hard leaves fewer hard negatives: the margin of the true ones is larger.",
            "Figure 6",
            f"margin at {tight} less that at {plain}",
            contrast([_true_margin(results, tight), _true_margin(results, plain)], [1, -1]),
        ),
        CheckedClaim.above_zero(
            "Filtering hard leaves fewer false negatives.",
            "Figure 6",
            f"false negatives at {plain} less those at {tight}",
            contrast([_falsehood(results, plain), _falsehood(results, tight)], [1, -1]),
        ),
    ]


def _figure(margins: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    values = {label: [value for per_prompt in own.values() for value in per_prompt] for label, own in margins.items()}
    most = math.ceil(max(abs(value) for row in values.values() for value in row)) or 1
    edges: Floats = np.linspace(-most, most, 2 * SIDE + 1).astype(np.float64)
    places = [f"{middle:g}".replace("-", "−") for middle in (edges[:-1] + edges[1:]) / 2]
    edges[SIDE] = np.nextafter(0.0, 1.0)  # 0 belongs to the false negatives
    lines = []
    for label in (_label(1), _label(4), _label(16), REFERENCE):
        counts = np.histogram(values[label], edges)[0]
        lines.append(Line(label, [float(count) / counts.sum() for count in counts]))
    axes = Axes("margin: the target's gold reward less the negative's", "share of negatives", places)
    return Figure("Margins of negatives by filter", [Panel(axes, lines)])
