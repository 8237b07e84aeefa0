"""Statistical power: the differences that a comparison can find, and the seeds or prompts that smaller ones take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite

from harness.board.board import Board
from harness.board.entries import SIGNIFICANCE_LEVEL, PowerEntry
from harness.board.statistics import Components, design_detectable, questions_needed, seeds_needed
from harness.board.views.text import number
from harness.errors import HarnessError, Problem, did_you_mean

TARGET_POWER = 0.8  # the probability of finding a true difference of the size named


@dataclass(frozen=True)
class Design:
    """A comparison in numbers. Deviations are of the difference of two rows, in the metric's unit.

    Attributes:
        prompt_deviation: between prompts, over infinitely many seeds.
        seed_deviation: between seeds, over infinitely many prompts.
        rest_deviation: of one seed on one prompt, beyond both.
        rows: that share the seeds and tell of their variance, the baseline among them.
        alpha: two-sided level of one test; at Holm's first step 0.05 over the number of tests.
    """

    prompts: int
    seeds: int
    prompt_deviation: float
    seed_deviation: float = 0.0
    rest_deviation: float = 0.0
    rows: int = 2
    alpha: float = SIGNIFICANCE_LEVEL

    def __post_init__(self) -> None:
        for name in ("prompts", "seeds", "rows"):
            least = 1 if name == "seeds" else 2
            if getattr(self, name) < least:
                raise HarnessError(str(Problem(name, getattr(self, name), f"give a whole number from {least} on")))
        for name in ("prompt_deviation", "seed_deviation", "rest_deviation"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise HarnessError(str(Problem(name, getattr(self, name), "give a number from 0 on")))
        if not self.prompt_deviation + self.seed_deviation + self.rest_deviation:
            raise HarnessError("all deviations are 0: without any spread every difference is found; give at least one above 0")

    def entry(self) -> PowerEntry:
        """Return the design as the entry of a board."""
        parts = Components(
            seed=self.seed_deviation**2,
            question=self.prompt_deviation**2,
            rest=self.rest_deviation**2,
            seeds=self.seeds,
            questions=self.prompts,
            freedom_per_seed=float(self.rows - 1),
        )
        return PowerEntry(
            alpha=self.alpha,
            detectable=design_detectable(parts, alpha=self.alpha, target=TARGET_POWER),
            seeds=self.seeds,
            questions=self.prompts,
            seed_variance=parts.seed,
            question_variance=parts.question,
            rest_variance=parts.rest,
            freedom_per_seed=parts.freedom_per_seed,
        )


@dataclass(frozen=True)
class Target:
    """A question about a comparison: what finds `difference`, or what other `seeds` and `prompts` find. None: as it is."""

    difference: float | None = None
    seeds: int | None = None
    prompts: int | None = None

    def __post_init__(self) -> None:
        if self.difference is not None and not (isfinite(self.difference) and self.difference > 0):
            raise HarnessError(str(Problem("difference", self.difference, "give a size above 0, in the metric's unit")))
        for name, least in (("seeds", 1), ("prompts", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise HarnessError(str(Problem(name, value, f"give a whole number from {least} on")))


@dataclass(frozen=True)
class PowerAnalysis:
    """The power on one metric, at probability `target` and the two-sided level `alpha`.

    Attributes:
        detectable: the smallest true difference that `seeds` and `prompts` would show, in the metric's unit.
        prompts_needed: to show `difference` with `seeds`; None where no number of prompts would, or none was asked for.
        seeds_needed: to show it on `prompts`; likewise.
    """

    metric: str
    alpha: float
    target: float
    seeds: int
    prompts: int
    detectable: float
    difference: float | None = None
    prompts_needed: int | None = None
    seeds_needed: int | None = None
    note: str | None = None

    def as_dict(self) -> dict[str, object]:
        """Return the fields by name, for JSON."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """Return the analysis in words, a sentence each."""
        sentences = [
            f"{self.metric}: {self.seeds} {'seed' if self.seeds == 1 else 'seeds'} × {self.prompts:,} prompts show a "
            f"difference of {number(self.detectable)} or more, {self.target:.0%} of the time at p < {self.alpha:.2g}."
        ]
        if self.difference is not None:
            size = number(self.difference)
            prompts, seeds = self.prompts_needed, self.seeds_needed
            sentences.append(
                f"A difference of {size} with {self.seeds} {'seed' if self.seeds == 1 else 'seeds'} takes {prompts:,} prompts."
                if prompts
                else f"A difference of {size} is out of reach with {self.seeds} seeds, however many prompts: seeds hide it."
            )
            if seeds:
                sentences.append(f"On {self.prompts:,} prompts it takes {seeds:,} seeds.")
            elif self.note is None or "not planned" not in self.note:
                sentences.append(f"On {self.prompts:,} prompts it is out of reach, however many seeds: prompts hide it.")
        return [*sentences, f"({self.note[:1].upper()}{self.note[1:]}.)"] if self.note else sentences


def analyse(metric: str, entry: PowerEntry, target: Target) -> PowerAnalysis:
    """Return the power of a comparison with the variances in `entry` and the seeds and prompts of `target`."""
    parts = Components(
        seed=entry.seed_variance,
        question=entry.question_variance,
        rest=entry.rest_variance,
        seeds=entry.seeds,
        questions=entry.questions,
        freedom_per_seed=entry.freedom_per_seed,
    )
    seeds, prompts, several = target.seeds or entry.seeds, target.prompts or entry.questions, entry.seeds > 1
    note = None
    if not several:
        note = "taken from one seed, which says nothing of seeds: it holds for those trainings, and seeds are not planned"
    elif seeds == 1:
        note = "with one seed it holds for that training alone"
    difference = target.difference
    return PowerAnalysis(
        metric=metric,
        alpha=entry.alpha,
        target=TARGET_POWER,
        seeds=seeds,
        prompts=prompts,
        detectable=design_detectable(parts, seeds, prompts, entry.alpha, TARGET_POWER),
        difference=difference,
        prompts_needed=None if difference is None else questions_needed(difference, parts, seeds, entry.alpha, TARGET_POWER),
        seeds_needed=None
        if difference is None or not several
        else seeds_needed(difference, parts, prompts, entry.alpha, TARGET_POWER),
        note=note,
    )


def analyse_board(board: Board, target: Target, metrics: Sequence[str] = ()) -> list[PowerAnalysis]:
    """Return the power on these metrics of a board, by key; on the primary ones if none is named.

    Under several starting models, each has its own, and the metric's name begins with the model's label.

    Raises:
        HarnessError: the board says nothing of them.
    """
    if board.models:
        return [
            replace(item, metric=f"{label}: {item.metric}")
            for label, of_model in board.by_model.items()
            for item in analyse_board(of_model, target, metrics)
        ]
    known = board.analysis.power if board.analysis else {}
    if not known:
        raise HarnessError(
            f"the board {board.name} says nothing of power: it was written before boards did, or no row is paired with the "
            "baseline by seed; run the comparison again, or give the design in numbers (--prompts, --seeds, --prompt-deviation)"
        )
    for key in metrics:
        if key not in known:
            raise HarnessError(f"metric = {key!r}: the board says nothing of its power; {did_you_mean(key, list(known))}")
    chosen = list(metrics) or [metric.key for metric in board.primary if metric.key in known] or list(known)
    widths = {metric.key: metric.width for metric in board.metrics}
    return [_within(analyse(key, known[key], target), widths[key]) for key in chosen]


def _within(analysis: PowerAnalysis, width: float) -> PowerAnalysis:
    """Return the analysis with a note where the metric can take no difference as large as the detectable one."""
    if analysis.detectable <= width:
        return analysis
    beyond = f"no difference that the metric can take, {number(width)} at most, is found that often"
    return replace(analysis, note=f"{analysis.note}; {beyond}" if analysis.note else beyond)
