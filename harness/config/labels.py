"""The names by which a board calls rows and evaluators: each once, and none that is not there."""

from __future__ import annotations

from harness.errors import did_you_mean
from harness.config.draft import Draft


def check_labels(draft: Draft) -> None:
    """No two rows of one label; the baseline is the label of a row."""
    labels = [variant.label for variant in draft.variants if variant]
    for label in sorted({label for label in labels if labels.count(label) > 1}):
        draft.note("methods", label, "two rows have this label: give one of them another `label`")
    baseline = draft.raw.get("baseline")
    if labels and isinstance(baseline, str) and baseline not in labels and len(labels) == len(draft.variants):
        draft.note("baseline", baseline, f"no row has this label; {did_you_mean(baseline, labels)}")


def check_evaluators(draft: Draft) -> None:
    """No evaluator twice."""
    names = [evaluator.name for evaluator in draft.evaluators if evaluator]
    for name in sorted({name for name in names if names.count(name) > 1}):
        draft.note("evaluators", name, "it is listed twice, and a board holds each evaluator once: leave one out")


def check_opponents(draft: Draft) -> None:
    """Rows that evaluators compare with must be there; a row that could not be resolved is another problem."""
    if None in draft.variants:
        return
    known = {"baseline", "all", *(variant.label for variant in draft.variants if variant)}
    for place, evaluator in draft.placed_evaluators():
        for label in evaluator.opponents():
            if label not in known:
                draft.note(place, label, f"no row has this label; {did_you_mean(label, known)}")
