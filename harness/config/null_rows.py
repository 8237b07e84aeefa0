"""Null rows: the baseline once more with other seeds, to show how large a difference is that means nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.config.draft import Draft


def fill_null_rows(draft: Draft) -> None:
    """Null rows made what they are: the baseline, whatever it is, with other seeds."""
    baseline = draft.raw.get("baseline")
    base = next((variant for variant in draft.variants if variant and variant.label == baseline), None)
    if base is None:
        return
    if base.kind == "null":
        draft.note("baseline", baseline, "a null row is the baseline again: choose another row as the baseline")
    draft.variants = [
        replace(variant, data=base.data, objective=base.objective, rounds=base.rounds)
        if variant and variant.kind == "null"
        else variant
        for variant in draft.variants
    ]


def check_seeds(draft: Draft, seeds: Sequence[int]) -> None:
    """A row with other seeds must not meet the seeds of the rest: it would be the same training."""
    for offset in sorted({variant.seed_offset for variant in draft.variants if variant and variant.seed_offset}):
        met = [seed for seed in seeds if seed + offset in seeds]
        if met:
            fix = f"the null row trains with each seed + {offset}, and {met[0] + offset} is a seed itself: choose others"
            draft.note("seeds", list(seeds), fix)
