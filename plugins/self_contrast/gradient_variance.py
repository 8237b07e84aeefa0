"""Self-Contrast's Theorem 1 three ways: closed form, simulation, and gradients of a real policy (§2.3, Appendix A)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

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
    StageError,
    resampled,
)
from harness_plugins.self_contrast.theorem import GradientSpread, Moments, negatives_needed, pairs_limit, simulate

COUNTS = (1, 2, 4, 8, 16)
KINDS = {"unfiltered": 1.0, "filtered": 0.25}  # a
SAMPLES = 64  # of which a quarter is 16
PROMPTS = 120  # each costs one backward pass a response
DRAWS = 200_000
PAIRS = 2  # l of the table
MUCH = 2.0  # the ratio σ₂ / σ₁ from which we read σ₁ ≪ σ₂
ALIKE = 0.05  # of one pair's error
CASES = (
    GradientSpread(1, 1, 0),
    GradientSpread(1, 2, 0),
    GradientSpread(1, 4, 0),
    GradientSpread(1, 2, 0.2),
    GradientSpread(1, 2, 0.2, 0.2**2),
    GradientSpread(1, 1, 0.6, 0.6**2),
)
JUDGED = (CASES[1], *CASES[3:])  # the cases that get a verdict


def run(context: AnalysisContext) -> Report:
    """Simulate six cases; take the gradients of targets and of own samples, filtered and not, at the starting model."""
    prompts = min(PROMPTS, context.prompts)
    fields = {"samples": SAMPLES, "negatives": COUNTS[-1]}
    methods = [context.row("self_contrast", kind, data={**fields, "keep": keep}) for kind, keep in KINDS.items()]
    raw = context.config("data", methods, budget={"prompts": prompts})
    results = context.build(raw)
    moments = {kind: _moments(results, kind) for kind in KINDS}
    simulated = {spread: {count: simulate(spread, count, DRAWS, seed=count) for count in COUNTS} for spread in CASES}
    error = f"error at m = {COUNTS[-1]}"
    return Report(
        ["case", "σ₂/σ₁", "ρ", "τ", "λ", "1/(1 − λ)", f"m for l = {PAIRS}", f"{error}, proof", f"{error}, measured"],
        [
            *(_simulated_row(spread, errors) for spread, errors in simulated.items()),
            *(_measured_row(kind, measured) for kind, measured in moments.items()),
        ],
        _figure(moments),
        [
            *_simulated_findings(simulated),
            *(item for kind, measured in moments.items() for item in _measured_findings(kind, measured)),
        ],
        [
            "Errors are in units of one pair's, E‖∇ − target‖². σ₁, σ₂ and ρ of vectors are traces of covariances over "
            "prompts, so that the theorem's inequality is that of the sum over all weights.",
            f"Real gradients: of log π of the target (p) and of {COUNTS[-1]} distinct own samples (n) of {SAMPLES}, at the "
            "starting model, first seed; a = 100 % (unfiltered) and 25 % (filtered). Inner products come from a count sketch.",
            "τ is the correlation of two negatives of one prompt. The proof has σ₂²/m, that is τ = 0, although every negative "
            "is correlated with the one positive by ρ: possible only while m · ρ² ≤ 1. Below 0, no gradients have its error.",
            "Unfiltered own samples of the policy itself have gradients of mean 0 given the prompt, so ρ and τ are 0 at the "
            "starting model up to the drawing of distinct ones; filtering is what makes them differ from 0.",
            f"Simulated cases: {DRAWS:,} draws each. τ = ρ² draws negatives independently given the positive.",
        ],
        {"data": raw},
        {
            **{f"prompts {kind}": measured.prompts for kind, measured in moments.items()},
            "of": prompts,
            "negatives a prompt": COUNTS[-1],
            "seeds": 1,
        },
    )


def _moments(results: ComparisonResults, kind: str) -> Moments:
    seed = results.seeds[0]
    groups = results.groups(kind, seed)
    if len(groups) < 2:
        raise StageError(f"only {len(groups)} prompt has {COUNTS[-1]} distinct samples: raise budget.prompts")
    pairs = [(group.prompt, response) for group in groups for response in (group.chosen, *group.rejected)]
    gradients = results.gradients(results.start(kind, seed), pairs).reshape(len(groups), COUNTS[-1] + 1, -1)
    return Moments.of(gradients[:, 0], gradients[:, 1:], COUNTS)


def _simulated_row(spread: GradientSpread, errors: dict[int, Interval]) -> Sequence[Cell]:
    last = errors[COUNTS[-1]]
    kind = "simulated, negatives as in the proof" if spread.tau == 0 else "simulated, negatives independent given the positive"
    return [
        kind,
        spread.negative / spread.positive,
        float(spread.rho),
        float(spread.tau),
        spread.potential,
        _finite(pairs_limit(spread.potential)),
        _finite(negatives_needed(spread.potential, PAIRS)),
        _proof(spread, COUNTS[-1]),
        Interval(last.mean / spread.pair, last.low / spread.pair, last.high / spread.pair, last.n),
    ]


def _measured_row(kind: str, moments: Moments) -> Sequence[Cell]:
    spread = moments.spread()
    return [
        f"real gradients, {kind}",
        resampled(moments.prompts, lambda drawn: moments.spread(drawn).negative / moments.spread(drawn).positive),
        resampled(moments.prompts, lambda drawn: moments.spread(drawn).rho),
        resampled(moments.prompts, lambda drawn: moments.spread(drawn).tau),
        resampled(moments.prompts, lambda drawn: moments.spread(drawn).potential),
        _finite(pairs_limit(spread.potential)),
        _finite(negatives_needed(spread.potential, PAIRS)),
        _proof(spread, COUNTS[-1]),
        _ratio(moments, COUNTS[-1]),
    ]


def _finite(value: float) -> Cell:
    return value if math.isfinite(value) else "∞"


def _proof(spread: GradientSpread, count: int) -> float:
    """Return the proof's error, which takes τ as 0, in units of one pair's."""
    return GradientSpread(spread.positive, spread.negative, spread.rho).error(count) / spread.pair


def _ratio(moments: Moments, count: int) -> Interval:
    """Return the measured error of m negatives in units of one pair's."""
    return resampled(moments.prompts, lambda drawn: moments.error(count, drawn) / moments.error(1, drawn))


def _simulated_findings(simulated: dict[GradientSpread, dict[int, Interval]]) -> list[CheckedClaim]:
    most = COUNTS[-1]
    return [
        CheckedClaim.within(
            f"One positive and m negatives have the error that the proof gives ({_case(spread)}).",
            "Appendix A, Eq. 11",
            f"simulated less closed form at m = {most}, in units of one pair's",
            _less_proof(errors[most], spread),
            0.01,
        )
        for spread, errors in simulated.items()
        if spread in JUDGED
    ]


def _case(spread: GradientSpread) -> str:
    how = "negatives uncorrelated with each other" if spread.tau == 0 else "negatives independent given the positive"
    return f"σ₂/σ₁ = {spread.negative / spread.positive:g}, ρ = {spread.rho:g}, {how}"


def _less_proof(error: Interval, spread: GradientSpread) -> Interval:
    """Return an error less the proof's, in units of one pair's."""
    proof = _proof(spread, COUNTS[-1])
    low, mean, high = (value / spread.pair - proof for value in (error.low, error.mean, error.high))
    return Interval(mean, low, high, error.n)


def _measured_findings(kind: str, moments: Moments) -> list[CheckedClaim]:
    most, count = COUNTS[-1], moments.prompts
    spread, ratio = moments.spread(), _ratio(moments, most)
    worth = resampled(count, lambda drawn: moments.error(1, drawn) / moments.error(most, drawn))
    return [
        CheckedClaim.at_least(
            "Positives' gradients vary much less than negatives' (σ₁ ≪ σ₂).",
            "Assumption 1",
            f"σ₂/σ₁ of real gradients, {kind}",
            resampled(count, lambda drawn: moments.spread(drawn).negative / moments.spread(drawn).positive),
            MUCH,
        ),
        CheckedClaim.above_zero(
            "More negatives beside one positive lower the gradient's error.",
            "Theorem 1",
            f"1 less the error at m = {most} in units of that at m = 1, real gradients, {kind}",
            Interval(1 - ratio.mean, 1 - ratio.high, 1 - ratio.low, ratio.n),
        ),
        CheckedClaim.within(
            "The error falls with m as the proof says.",
            "Appendix A, Eq. 11",
            f"measured less the proof's error at m = {most}, in units of one pair's, real gradients, {kind}",
            resampled(
                count,
                lambda drawn: moments.error(most, drawn) / moments.error(1, drawn) - _proof(moments.spread(drawn), most),
            ),
            ALIKE,
        ),
        CheckedClaim.at_most(
            "However many, the negatives of one positive are worth at most 1/(1 − λ) pairs.",
            "Remark 1",
            f"worth of {most} negatives in pairs, against 1/(1 − λ) of λ = {spread.potential:.3f}, real gradients, {kind}",
            worth,
            pairs_limit(spread.potential),
        ),
    ]


def _figure(moments: Mapping[str, Moments]) -> Figure:
    lines = []
    for kind, measured in moments.items():
        lines.append(Line(f"measured, {kind}", [_ratio(measured, count) for count in COUNTS]))
        lines.append(Line(f"proof, {kind}", [_proof(measured.spread(), count) for count in COUNTS]))
    lines.append(Line("m pairs", [1 / count for count in COUNTS]))
    axes = Axes(
        "m, negatives beside one positive", "error, in units of one pair's", [str(count) for count in COUNTS], level=0.0
    )
    return Figure("Error of the gradient against the number of negatives", [Panel(axes, lines)])
