"""What a comparison could have seen, and what it would take to see more: `harness power`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from harness.board.board import Board
from harness.board.entries import PowerEntry
from harness.board.statistics import Components, detectable, questions_needed, seeds_needed
from harness.board.views.text import number
from harness.errors import HarnessError, Problem, did_you_mean

TARGET = 0.8  # how often a true difference of the size named would be found


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
    alpha: float = 0.05

    def __post_init__(self) -> None:
        for name in ("prompts", "seeds", "rows"):
            least = 1 if name == "seeds" else 2
            if getattr(self, name) < least:
                raise HarnessError(str(Problem(name, getattr(self, name), f"give a whole number from {least} on")))
        for name in ("prompt_deviation", "seed_deviation", "rest_deviation"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise HarnessError(str(Problem(name, getattr(self, name), "give a number from 0 on")))
        if not self.prompt_deviation + self.seed_deviation + self.rest_deviation:
            raise HarnessError("all deviations are 0: without any spread every difference is seen; give at least one above 0")

    def entry(self) -> PowerEntry:
        """As a board would have it."""
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
            detectable=detectable(parts.error(), self.alpha, TARGET),
            seeds=self.seeds,
            questions=self.prompts,
            seed_variance=parts.seed,
            question_variance=parts.question,
            rest_variance=parts.rest,
            freedom_per_seed=parts.freedom_per_seed,
        )


@dataclass(frozen=True)
class Wish:
    """What is asked of a comparison: to see `difference`, or to have other `seeds` and `prompts`. None: as it is."""

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
class Outlook:
    """Of one metric, at `target` power and the two-sided level `alpha`.

    Attributes:
        detectable: the smallest true difference that `seeds` and `prompts` would show.
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

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def look(metric: str, entry: PowerEntry, wish: Wish) -> Outlook:
    """What the variances in `entry` say of a comparison with the seeds and prompts that are wished for."""
    parts = Components(
        seed=entry.seed_variance,
        question=entry.question_variance,
        rest=entry.rest_variance,
        seeds=entry.seeds,
        questions=entry.questions,
        freedom_per_seed=entry.freedom_per_seed,
    )
    seeds, prompts, known = wish.seeds or entry.seeds, wish.prompts or entry.questions, entry.seeds > 1
    note = None
    if not known:
        note = "taken from one seed, which says nothing of seeds: it holds for those trainings, and seeds are not planned"
    elif seeds == 1:
        note = "with one seed it holds for that training alone"
    asked = wish.difference
    return Outlook(
        metric=metric,
        alpha=entry.alpha,
        target=TARGET,
        seeds=seeds,
        prompts=prompts,
        detectable=detectable(parts.error(seeds, prompts), entry.alpha, TARGET),
        difference=asked,
        prompts_needed=None if asked is None else questions_needed(asked, parts, seeds, entry.alpha, TARGET),
        seeds_needed=None if asked is None or not known else seeds_needed(asked, parts, prompts, entry.alpha, TARGET),
        note=note,
    )


def outlook(board: Board, wish: Wish, metrics: Sequence[str] = ()) -> list[Outlook]:
    """Of these metrics of a board, by key; of the primary ones if none is named.

    Raises:
        HarnessError: the board says nothing of them.
    """
    seen = board.analysis.power if board.analysis else {}
    if not seen:
        raise HarnessError(
            f"the board {board.name} says nothing of power: it was written before boards did, or no row is paired with the "
            "baseline by seed; run the comparison again, or give the design in numbers (--prompts, --seeds, --prompt-deviation)"
        )
    for key in metrics:
        if key not in seen:
            raise HarnessError(f"metric = {key!r}: the board says nothing of its power; {did_you_mean(key, list(seen))}")
    chosen = list(metrics) or [metric.key for metric in board.primary if metric.key in seen] or list(seen)
    return [look(key, seen[key], wish) for key in chosen]


def sentences(found: Outlook) -> list[str]:
    """The outlook in words, a sentence each."""
    said = [
        f"{found.metric}: {found.seeds} {'seed' if found.seeds == 1 else 'seeds'} × {found.prompts:,} prompts show a "
        f"difference of {number(found.detectable)} or more, {found.target:.0%} of the time at p < {found.alpha:.2g}."
    ]
    if found.difference is not None:
        size = number(found.difference)
        prompts, seeds = found.prompts_needed, found.seeds_needed
        said.append(
            f"A difference of {size} with {found.seeds} {'seed' if found.seeds == 1 else 'seeds'} takes {prompts:,} prompts."
            if prompts
            else f"A difference of {size} is out of reach with {found.seeds} seeds, however many prompts: seeds hide it."
        )
        if seeds:
            said.append(f"On {found.prompts:,} prompts it takes {seeds:,} seeds.")
        elif found.note is None or "not planned" not in found.note:
            said.append(f"On {found.prompts:,} prompts it is out of reach, however many seeds: prompts hide it.")
    return [*said, f"({found.note[:1].upper()}{found.note[1:]}.)"] if found.note else said
