"""What rows and evaluators need of the source and the backend."""

from __future__ import annotations

from harness.config.draft import Draft


def check_needs(draft: Draft) -> None:
    """The source provides what data builders and evaluators ask of it."""
    source = draft.source
    if source is None:
        return
    wanted: list[tuple[str, str, frozenset[str]]] = [
        (place, variant.label, frozenset[str]().union(*(round_.builder.required() for round_ in variant.rounds)))
        for place, variant in draft.placed_variants()
    ]
    wanted += [(place, evaluator.name, evaluator.needs) for place, evaluator in draft.placed_evaluators()]
    for place, name, needs in wanted:
        missing = sorted(needs - source.provides)
        if missing:
            have = ", ".join(sorted(source.provides)) or "nothing"
            fix = f"it needs {' and '.join(missing)}, and {source.name!r} provides {have}: leave it out, or change the source"
            draft.note(place, name, fix)


def check_rejected(draft: Draft) -> None:
    """An objective over pairs gets some."""
    for place, variant in draft.placed_variants():
        for round_ in variant.rounds:
            if round_.objective.needs_rejected and not round_.builder.has_rejected():
                fix = f"its data have no rejected response, and {round_.objective.name!r} compares with one"
                draft.note(f"{place}.data", round_.builder.name, f"{fix}: choose another data builder or objective")
                break


def check_backend(draft: Draft, tuned: bool) -> None:
    """A server with one model of its own must not be taken for the policies that rows train."""
    backend = draft.backend
    if backend is None or backend.serves_any_policy():
        return
    trained = [variant.label for variant in draft.variants if variant and variant.rounds]
    if tuned or trained:
        who = f"the row {trained[0]!r}" if trained else "`sft`"
        fix = f"its server answers with one model, and {who} trains another: give a backend that serves each checkpoint"
        draft.note("generation.backend", backend.name, f"{fix} (its `command`), or train nothing")
