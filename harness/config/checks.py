"""Checks of a config whose fields are valid each by itself: needs, labels, budgets, files, seeds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.api.interfaces import Component, Source
from harness.config.comparison import Comparison, is_named, without_states
from harness.config.rows import RowConfig
from harness.config.schema import Config
from harness.config.unresolved import EACH, UnresolvedConfig
from harness.errors import DataError, Problem, UnreachableError, did_you_mean
from harness.extras import missing_extra
from harness.training.budget import Spending
from harness.training.settings import TrainingSettings


def check_needs(unresolved: UnresolvedConfig) -> None:
    """The source provides what data builders and evaluators ask of it."""
    source = unresolved.source
    if source is None:
        return
    wanted: list[tuple[str, str, frozenset[str], Source]] = [
        (place, row.label, frozenset[str]().union(*(round_.required() for round_ in row.rounds)), row.source or source)
        for place, row in unresolved.placed_rows()
    ]
    wanted += [(item.place, item.evaluator.name, item.evaluator.required(), source) for item in unresolved.evaluators]
    for place, name, needs, source in wanted:
        missing = sorted(needs - source.offers())
        if missing:
            have = ", ".join(sorted(source.offers())) or "nothing"
            fix = f"it needs {' and '.join(missing)}, and {source.name!r} provides {have}: leave it out, or change the source"
            unresolved.note(place, name, fix)


def check_rejected(unresolved: UnresolvedConfig) -> None:
    """An objective over pairs gets some."""
    for place, row in unresolved.placed_rows():
        for round_ in row.rounds:
            if round_.needs_rejected() and round_.builder and not round_.builder.has_rejected():
                fix = f"its data have no rejected response, and {round_.title!r} compares with one"
                unresolved.note(f"{place}.data", round_.builder.name, f"{fix}: choose another data builder or objective")
                break


def check_backend(unresolved: UnresolvedConfig, tuned: bool) -> None:
    """A server with one model of its own must not be taken for the policies that rows train."""
    backend = unresolved.backend
    if backend is None or backend.serves_any_policy():
        return
    trained = [f"the row {row.label!r} trains" for row in unresolved.rows if row and row.rounds]
    others = [*trained, *(f"the row {row.label!r} is" for row in unresolved.rows if row and row.kind == "checkpoint")]
    if tuned or others:
        who = others[0] if others else "`sft` trains"
        fix = f"its server answers with one model, and {who} another: give a backend that serves each checkpoint"
        unresolved.note("generation.backend", backend.name, f"{fix} (its `command`), or train nothing")


def check_shards(unresolved: UnresolvedConfig, config: Config) -> None:
    """Parts of a generation are the responses of the whole only where none depends on another."""
    backend, shards = unresolved.backend, config.run.shards
    if shards in (1, "auto") or backend is None or backend.draws_apart():
        return
    fix = f"{backend.name} draws all responses from one stream of random numbers, which parts cannot share"
    by_response = "random" in type(backend).model_fields
    remedy = "set generation.backend.random to by_response, or" if by_response else "choose another backend, auto, or"
    unresolved.note("run.shards", shards, f"{fix}: {remedy} leave run.shards out")


def check_budget(unresolved: UnresolvedConfig, config: Config) -> None:
    """Every budget, the config's and each row's own: its source has the prompts, and every round gets one."""
    common = [row for _, row in unresolved.placed_rows() if row.budget == config.budget and row.source is None]
    budgets = {"": (config.budget, common, unresolved.source)}
    for place, row in unresolved.placed_rows():
        if row not in common:
            budgets[f"{place}."] = (row.budget, [row], row.source or unresolved.source)
    for place, (budget, rows, source) in budgets.items():
        available = source.sizes().get("train") if source else None
        if available is not None and budget.prompts > available:
            fix = f"the source has {available} training prompts: lower it, or set source.train to {budget.prompts}"
            unresolved.note(f"{place}budget.prompts", budget.prompts, fix)
        most = max((row.planned_rounds for row in rows if budget.rounds == "share"), default=0)
        if budget.prompts < most:
            fix = f"a method has {most} rounds, and each needs a prompt: it should be at least {most}"
            unresolved.note(f"{place}budget.prompts", budget.prompts, fix)
        if budget.limit is not None:
            _check_units(unresolved, f"{place}budget", budget.limit, rows)
        if budget.limit is not None and budget.limit.unit == "generated" and config.evaluation.during:
            fix = "states are shares of a training's steps, whose number budget.generated leaves open: leave one of them out"
            unresolved.note(f"{place}budget.generated", budget.limit.amount, fix)
        if budget.limit is not None and budget.limit.amount < most:
            fix = f"a method has {most} rounds that share it: it should be at least {most}"
            unresolved.note(f"{place}budget.{budget.limit.unit}", budget.limit.amount, fix)


def _check_units(unresolved: UnresolvedConfig, field: str, limit: Spending, rows: Sequence[RowConfig]) -> None:
    """Refuse a limit in a unit that a row's trainer cannot keep: its row would have been trained on another budget."""
    for row in rows:
        trainer = next((round_.trainer for round_ in row.rounds if limit.unit not in round_.trainer.units()), None)
        if trainer is not None:
            keeps = " or ".join(f"budget.{known}" for known in sorted(trainer.units())) or "budget.prompts alone"
            fix = f"the trainer {trainer.title()!r} of the row {row.label!r} cannot keep to it: use {keeps}"
            unresolved.note(f"{field}.{limit.unit}", limit.amount, fix)


def check_epochs(unresolved: UnresolvedConfig, config: Config) -> None:
    """Refuse `epochs` where the budget decides how often a prompt is seen."""
    given: list[tuple[str, Mapping[str, Any], Spending | None]] = []
    given.append(("training", config.training.model_dump(exclude_unset=True), config.budget.limit))
    for index, entry in enumerate(config.methods):
        limit = (config.budget.changed(entry.budget) if entry.budget else config.budget).limit
        given.append((f"methods.{index}.training", entry.training, limit))
        for number, round_ in enumerate(entry.rounds or ()):
            given.append((f"methods.{index}.rounds.{number}.training", round_.training, limit))
    for field, section, limit in given:
        if limit is not None and "epochs" in section:
            fix = f"budget.{limit.unit} decides how often a prompt is seen: leave it out"
            unresolved.note(f"{field}.epochs", section["epochs"], fix)


def check_labels(unresolved: UnresolvedConfig) -> None:
    """No two rows of one label; the baseline is the label of a row."""
    labels = [row.label for row in unresolved.rows if row]
    for label in sorted({label for label in labels if labels.count(label) > 1}):
        unresolved.note("methods", label, "two rows have this label: give one of them another `label`")
    baseline = unresolved.raw.get("baseline")
    if labels and isinstance(baseline, str) and baseline not in labels and len(labels) == len(unresolved.rows):
        unresolved.note("baseline", baseline, f"no row has this label; {did_you_mean(baseline, labels)}")


def check_evaluators(unresolved: UnresolvedConfig) -> None:
    """No two evaluators of one label."""
    labels = [item.label for item in unresolved.evaluators]
    for label in sorted({label for label in labels if labels.count(label) > 1}):
        unresolved.note("evaluators", label, "two evaluators have this label: give one of them another `label`")
    for item in unresolved.evaluators:
        if item.each and not item.evaluator.opponents():
            unresolved.note(f"{item.place}.opponent", EACH, f"{item.evaluator.name!r} with these fields compares with no row")


def check_during(unresolved: UnresolvedConfig, config: Config) -> None:
    """The evaluators of intermediate states are there, and a row is trained in a way that has such states."""
    evaluation, labels = config.evaluation, [item.label for item in unresolved.evaluators]
    if evaluation.during is None:
        return
    for name in evaluation.during_evaluators or ():
        if not any(is_named(label, [name], labels) for label in labels):
            unresolved.note("evaluation.during_evaluators", name, f"no evaluator has this label; {did_you_mean(name, labels)}")
    reasons = {row.label: without_states(row) for row in unresolved.rows if row}
    if len(reasons) == len(unresolved.rows) and all(reasons.values()):
        listed = "; ".join(f"{label}: {reason}" for label, reason in reasons.items())
        fix = f"no row has intermediate states ({listed}): leave it out"
        unresolved.note("evaluation.during", list(evaluation.during), fix)


def check_opponents(unresolved: UnresolvedConfig) -> None:
    """Rows that evaluators compare with must be there; a row that could not be resolved is another problem."""
    if None in unresolved.rows:
        return
    known = {"baseline", "all", *(row.label for row in unresolved.rows if row)}
    for item in unresolved.evaluators:
        for label in item.evaluator.opponents():
            if label not in known:
                unresolved.note(item.place, label, f"no row has this label; {did_you_mean(label, known)}")


def check_evaluators_files(unresolved: UnresolvedConfig, missing: dict[str, str] | None = None) -> None:
    """The files that evaluators read are there; checked before judges, so that one evaluator's problems come in this order.

    Args:
        missing: where it is given, files that are only not here yet are noted in it, by field, and are no problems.
    """
    _check(unresolved, [(item.place, item.evaluator) for item in unresolved.evaluators], missing)


def check_machine(unresolved: UnresolvedConfig, missing: dict[str, str] | None = None) -> None:
    """The same of the source, the backend, the data builders and the trainings."""
    placed: list[tuple[str, Component | None]] = [("source", unresolved.source), ("generation.backend", unresolved.backend)]
    for place, row in unresolved.placed_rows():
        placed += [(f"{place}.source", row.source), *((f"{place}.data", round_.builder) for round_ in row.rounds)]
        placed += [(f"{place}.trainer", round_.trainer) for round_ in row.rounds]
    _check(unresolved, placed, missing)
    _check_trainings(unresolved, missing)


def _check_trainings(unresolved: UnresolvedConfig, missing: dict[str, str] | None) -> None:
    """Note what the machine lacks for settings of trainings, once for all rows that have the config's own."""
    shared = unresolved.config.training if unresolved.config else None
    lacking: dict[str, tuple[Any, str]] = {}
    for place, row in unresolved.placed_rows():
        for training in (round_.training for round_ in row.rounds):
            for name, reason in training.absent().items():
                value = getattr(training, name)
                of_all = shared is not None and value == getattr(shared, name)
                lacking[f"training.{name}" if of_all else f"{place}.training.{name}"] = value, reason
    for field, (value, reason) in lacking.items():
        if missing is None:
            unresolved.note(field, value, reason)
        else:
            missing[field] = f"{field} = {value!r}: {reason}"


def prepare_evaluators(comparison: Comparison, labels: Collection[str]) -> list[Problem]:
    """Let the evaluators of these labels download what they read; what could not be had."""
    problems = []
    for index, (label, evaluator) in enumerate(comparison.evaluators.items()):
        if label in labels:
            try:
                evaluator.prepare()
            except DataError as error:
                problems.append(Problem(f"evaluators.{index}", evaluator.name, str(error)))
    return problems


def pinned_source(unresolved: UnresolvedConfig, unreachable: dict[str, str] | None) -> Source | None:
    """The source with its branch as a commit; as it is where something is wrong with it already."""
    return _pinned(unresolved, unresolved.source, "source", "source", unreachable)


def pin_row_sources(unresolved: UnresolvedConfig, unreachable: dict[str, str] | None) -> None:
    """Do the same to the rows' own sources; the comparison's, given to a row again, is no source of its own."""
    pinned: dict[str, Source | None] = {}
    for index, (place, row) in enumerate(zip(unresolved.places, unresolved.rows, strict=True)):
        if row is None or row.source is None:
            continue
        name = repr(row.source)
        if name not in pinned:
            pinned[name] = _pinned(unresolved, row.source, f"{place}.source", row.source_name, unreachable)
        source = None if pinned[name] == unresolved.source else pinned[name]
        unresolved.rows[index] = replace(row, source=source)


def _pinned(
    unresolved: UnresolvedConfig, source: Source | None, place: str, name: str, unreachable: dict[str, str] | None
) -> Source | None:
    if source is None or any(problem.field.startswith(place) for problem in unresolved.problems):
        return source
    try:
        return source.pinned()
    except UnreachableError as error:
        if unreachable is None:
            unresolved.note(place, source.name, str(error))
        else:
            unreachable[name] = str(error)
    except DataError as error:
        unresolved.note(place, source.name, str(error))
    return source


def _check(
    unresolved: UnresolvedConfig, placed: Iterable[tuple[str, Component | None]], missing: dict[str, str] | None
) -> None:
    for place, component in placed:
        try:
            problems = _problems(component) if component else ()
        except ModuleNotFoundError as error:
            if (extra := missing_extra(error)) is None:
                raise
            unresolved.unchecked[place] = str(extra)
            continue
        for field, fix in problems:
            if missing is not None and component is not None and field in component.absent():
                missing[f"{place}.{field}"] = f"{place}.{field} = {_value_at(component, field)!r}: {fix}"
                continue
            # One problem for all components that take the config's reward.
            reward = unresolved.config.reward if unresolved.config else None
            shared = field.startswith("reward.") and reward is not None and getattr(component, "reward", None) == reward
            unresolved.note(field if shared else f"{place}.{field}", _value_at(component, field), fix)


def _problems(component: Component) -> Sequence[tuple[str, str]]:
    """Return the component's own problems, and one for a path that the system refuses (too long, of an unknown user)."""
    try:
        return component.problems()
    except (OSError, RuntimeError, ValueError) as error:
        return [("name", f"one of its fields names a file that cannot be looked for ({error}): correct that path")]


def _value_at(component: Component | None, field: str) -> Any:
    value: Any = component
    for name in field.split("."):
        value = value[int(name)] if isinstance(value, tuple) and name.isdecimal() else getattr(value, name, None)
    return value


def fill_null_rows(unresolved: UnresolvedConfig) -> None:
    """Null rows made what they are: the baseline, whatever it is, with other seeds."""
    baseline = unresolved.raw.get("baseline")
    base = next((row for row in unresolved.rows if row and row.label == baseline), None)
    if base is None:
        return
    if base.is_as_it_is and any(row and row.kind == "null" for row in unresolved.rows):
        fix = "a null row is the baseline trained again, and this one is not trained here: leave the null row out"
        unresolved.note("baseline", baseline, fix)
    if base.kind == "null":
        unresolved.note("baseline", baseline, "a null row is the baseline again: choose another row as the baseline")
    unresolved.rows = [
        replace(
            row,
            data=base.data,
            objective=base.objective,
            rounds=base.rounds,
            planned_rounds=base.planned_rounds,
            budget=base.budget,
            source=base.source,
        )
        if row and row.kind == "null"
        else row
        for row in unresolved.rows
    ]


def check_seeds(unresolved: UnresolvedConfig, config: Config) -> None:
    """A row with other seeds must not meet the seeds of the rest: it would be the same training.

    Where rows stop at different seeds, no evaluator may compare a row with all others: they would be others at each seed.
    """
    seeds = config.possible_seeds
    given = config.model_dump(mode="json")["seeds"]
    for offset in sorted({row.seed_offset for row in unresolved.rows if row and row.seed_offset}):
        met = [seed for seed in seeds if seed + offset in seeds]
        if met:
            fix = f"the null row trains with each seed + {offset}, and {met[0] + offset} is a seed itself: choose others"
            unresolved.note("seeds", given, fix)
    base = next((row for row in unresolved.rows if row and row.label == config.baseline), None)
    if config.adds_seeds and base and base.is_as_it_is:
        fix = f"seeds are added until rows are told from the baseline, and {base.label!r} has none: give a list of seeds"
        unresolved.note("seeds", given, fix)
    for evaluator in (item.evaluator for item in unresolved.evaluators):
        if config.adds_seeds and "all" in evaluator.opponents():
            fix = f"{evaluator.name} compares each row with all others, which would be other rows at each seed: give a list"
            unresolved.note("seeds", given, f"{fix} of seeds, or name its opponents")


def check_statistics(unresolved: UnresolvedConfig, config: Config) -> None:
    """Metrics that `statistics` names are those of the evaluators."""
    section = config.statistics
    if section is None or any(problem.field.startswith("evaluators") for problem in unresolved.problems):
        return
    known = {f"{item.label}/{metric.name}" for item in unresolved.evaluators for metric in item.evaluator.metrics()}
    named = [(f"statistics.primary.{place}", key) for place, key in enumerate(section.primary or ())]
    named += [(f"statistics.equivalent_within.{key}", key) for key in section.equivalent_within]
    for field, key in named:
        if key not in known:
            unresolved.note(field, key, f"no evaluator reports this metric; {did_you_mean(key, known)}")


def check_prompts(unresolved: UnresolvedConfig, config: Config) -> None:
    """Prompts are added where they decide only where rows have several seeds and an evaluator can take them in parts."""
    evaluation = config.evaluation
    if evaluation.until is None or evaluation.most is None:
        return
    base = next((row for row in unresolved.rows if row and row.label == config.baseline), None)
    reasons = []
    if config.adds_seeds:
        reasons.append("seeds are added until rows are decided too, and only one of the two can be: give a list of seeds")
    elif len(config.possible_seeds) == 1:
        reasons.append("one seed says nothing of others, so that no row could ever be decided: give three seeds or more")
    elif len(config.possible_seeds) == 2:
        reasons.append("two seeds of a row convict it next to never, however many prompts: give three seeds or more")
    if base and base.is_as_it_is:
        reasons.append(f"rows are told from the baseline, and {base.label!r} has no seeds: choose one that is trained here")
    metrics = [(item, metric) for item in unresolved.evaluators for metric in item.evaluator.metrics()]
    declared = (config.statistics.primary if config.statistics else None) or ()
    named = [item.evaluator for item, metric in metrics if f"{item.label}/{metric.name}" in declared]
    primary = [item.evaluator for item, metric in metrics if metric.primary]
    deciding = named or primary or [item.evaluator for item, _ in metrics[:1]]
    if deciding and not any(evaluator.divisible for evaluator in deciding):
        names = " and ".join(dict.fromkeys(evaluator.name for evaluator in deciding))
        reasons.append(f"{names}, whose metrics decide, cannot take prompts in parts: add an evaluator that can")
    for reason in reasons:
        unresolved.note("evaluation.until", evaluation.until, f"{reason}, or give evaluation.prompts in place of `until`")
    available = unresolved.source.sizes().get(evaluation.split) if unresolved.source else None
    if available is not None and evaluation.most > available:
        fix = f"the source has {available:,} prompts in its split {evaluation.split}: lower it to that, or raise the split"
        unresolved.note("evaluation.most", evaluation.most, fix)


def unused_settings(comparison: Comparison) -> list[str]:
    """Return a warning for each row whose trainer does not use a setting that the config's `training` section changes.

    The row's own settings are refused in that case (`harness.config.rows`); the section's hold for the other rows.
    """
    section, default = comparison.config.training, TrainingSettings()
    changed = {name for name in type(section).model_fields if getattr(section, name) != getattr(default, name)}
    warnings = []
    for row in comparison.rows:
        for title, carries in {round_.trainer.title(): round_.trainer.carries for round_ in row.rounds}.items():
            if unused := sorted(changed - carries):
                settings = ", ".join(f"training.{name}" for name in unused)
                warnings.append(
                    f"{row.label}: its trainer {title} does not use {settings}, which the other rows are trained with"
                )
    return warnings
