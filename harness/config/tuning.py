"""Resolve the `tuning` section: the search space of every row, checked value by value, and rows with settings put in.

A setting is a dotted path into a row's entry: `training.learning_rate`, `objective.beta`, `data.temperature`,
`trainer.arguments`. Settings are put into the entry as the config wrote it, which is then resolved again, so that a trial is
checked as any row is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from harness.api.registry import Registry
from harness.api.spaces import SearchSpace, SpaceValue, declared_spaces
from harness.config.problems import ABSENT
from harness.config.rows import Resolver, RowConfig
from harness.config.schema import MethodEntry, valid_reward
from harness.config.spaces import EVERY_ROW, OFF, SpaceSection, TuningSection
from harness.config.sweep import with_settings
from harness.errors import ConfigError, Problem, did_you_mean
from harness.training.settings import TrainingSettings

if TYPE_CHECKING:
    from harness.config.unresolved import UnresolvedConfig

PARTS = ("training", "objective", "data", "trainer")  # of an entry, in which a setting can lie
Settings = Mapping[str, SpaceValue]


@dataclass(frozen=True)
class Dimension:
    """One setting that a row searches.

    Attributes:
        whole: only integers are drawn.
        place: where the config gives the space; empty where a component declares it.
    """

    space: SearchSpace
    whole: bool
    place: str = ""

    @property
    def probes(self) -> tuple[SpaceValue, ...]:
        """The values by which the space is checked: all choices, or both ends."""
        if self.space.choices:
            return self.space.choices
        assert self.space.low is not None and self.space.high is not None
        ends = (self.space.low, self.space.high)
        return tuple(int(end) if self.whole and end == int(end) else end for end in ends)


@dataclass(frozen=True)
class TunedEntry:
    """An entry of `methods` that trains, with the settings that its rows search together.

    Attributes:
        series: the label of its rows, without the round.
        place: of the entry in the config.
        row: the row of its last round, whose score decides.
        entry: as the config has it.
        space: setting -> its dimension; empty where nothing is searched.
        default: why it keeps its own settings: `off` in the config, or all are `fixed` by the entry; None where it searches.
    """

    series: str
    place: str
    row: RowConfig
    entry: Mapping[str, Any]
    space: Mapping[str, Dimension]
    default: Literal["off", "fixed"] | None = None


@dataclass(frozen=True)
class Tuning:
    """The search of a comparison, resolved.

    Attributes:
        evaluator: label of the evaluator that decides.
        metric: its metric.
        higher_is_better: the metric's direction.
        entries: series -> what is searched.
        opponents: labels of rows that the evaluator compares trials with; none of them is tuned.
    """

    section: TuningSection
    registry: Registry
    raw: Mapping[str, Any]
    evaluator: str
    metric: str
    higher_is_better: bool
    entries: Mapping[str, TunedEntry]
    opponents: tuple[str, ...] = ()

    @property
    def searched(self) -> Mapping[str, TunedEntry]:
        """The entries that have trials."""
        return {series: entry for series, entry in self.entries.items() if entry.default is None}

    def with_settings(self, row: RowConfig, settings: Settings) -> RowConfig:
        """Return a row of a searched entry with settings put in.

        Raises:
            ConfigError: they do not go together, though each is possible by itself.
        """
        entry = self.entries[row.series]
        rows, problems = _resolved(self.registry, self.raw, entry.place, with_settings(entry.entry, settings))
        changed = next((one for one in rows if one.label == row.label), None)
        if changed is None or problems:
            raise ConfigError(problems, f"settings of {row.label}")
        # Its source is pinned and its budget checked already: the rounds alone are new.
        return replace(row, rounds=changed.rounds)

    def settled(self, rows: Sequence[RowConfig], chosen: Mapping[str, Settings], baseline: str) -> list[RowConfig]:
        """Return all rows, those of searched entries with the chosen settings; null rows follow the baseline."""
        settled = [
            self.with_settings(row, chosen[row.series]) if row.series in chosen and row.rounds and row.kind != "null" else row
            for row in rows
        ]
        base = next(row for row in settled if row.label == baseline)
        return [replace(row, rounds=base.rounds) if row.kind == "null" else row for row in settled]


def _resolved(registry: Registry, raw: Mapping[str, Any], place: str, entry: Any) -> tuple[list[RowConfig], list[Problem]]:
    """Resolve one entry by itself: its rows, and its problems."""
    problems: list[Problem] = []
    resolver = Resolver(registry, problems, valid_reward(raw.get("reward")))
    training = resolver.training(raw.get("training"), {}, "")
    rows = resolver.rows(entry, place, training, resolver.budget(raw.get("budget")))
    return [row for row in rows if row is not None], problems


def check_tuning(unresolved: UnresolvedConfig, registry: Registry) -> Tuning | None:
    """Resolve the search of a config and note its problems; None where it has none, or a problem."""
    config = unresolved.config
    if config is None:
        return None
    section = config.tuning
    if section is None:
        for index, entry in enumerate(config.methods):
            if entry.tuning is not None:
                fix = "the config has no `tuning` section, so nothing is searched: add one, or leave this out"
                unresolved.note(f"methods.{index}.tuning", _written(entry.tuning), fix)
        return None
    known = len(unresolved.problems)
    if find_spec("optuna") is None:
        fix = "optuna is not installed, and draws the trials: pip install 'alignment-harness[tuning]', or leave `tuning` out"
        unresolved.note("tuning", ABSENT, fix)
    if config.evaluation.split == "tuning":
        fix = "settings are chosen on the tuning split, which must not be evaluated on too: write heldout"
        unresolved.note("evaluation.split", "tuning", fix)
    _check_seeds(unresolved, section)
    entries = {entry.series: entry for entry in _entries(unresolved, section, registry)}
    _check_names(unresolved, section, entries)
    for searched in entries.values():
        _check_values(unresolved, registry, section, searched)
    metric = _metric(unresolved, section, entries)
    if metric is None or len(unresolved.problems) > known:
        return None
    (label, name, higher), opponents = metric
    return Tuning(section, registry, unresolved.raw, label, name, higher, entries, opponents)


def _written(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {path: space.model_dump(mode="json") for path, space in value.items()}
    return value


def _check_seeds(unresolved: UnresolvedConfig, section: TuningSection) -> None:
    """Refuse a seed that the board uses too: its training would have been chosen for its own luck."""
    assert unresolved.config is not None
    offsets = {0, *(row.seed_offset for row in unresolved.rows if row)}
    board = {seed + offset for seed in unresolved.config.possible_seeds for offset in offsets}
    if met := sorted(board & set(section.seeds)):
        fix = f"{met[0]} is a seed of the board, and settings would be chosen for its luck: take others, such as [100]"
        unresolved.note("tuning.seeds", list(section.seeds), fix)


# Search spaces


def _entries(unresolved: UnresolvedConfig, section: TuningSection, registry: Registry) -> Iterator[TunedEntry]:
    """Yield the entries that train. Null rows train as the baseline does, and follow it."""
    rows: dict[str, RowConfig] = {}
    for place, row in unresolved.placed_rows():
        if row.rounds and row.kind != "null":
            rows[place] = max(row, rows.get(place, row), key=lambda one: len(one.rounds))
    for place, row in rows.items():
        written = unresolved.raw["methods"][int(place.rpartition(".")[2])]
        entry = MethodEntry.model_validate(written)
        raw = {"method": written} if isinstance(written, str) else {k: v for k, v in written.items() if k != "tuning"}
        if entry.tuning == OFF:
            yield TunedEntry(row.series, place, row, raw, {}, "off")
            continue
        space = _space(unresolved, section, entry, row, place, _fixed(entry, registry))
        yield TunedEntry(row.series, place, row, raw, space, None if space else "fixed")


def _space(
    unresolved: UnresolvedConfig, section: TuningSection, entry: MethodEntry, row: RowConfig, place: str, fixed: set[str]
) -> dict[str, Dimension]:
    """Return a row's dimensions: declared, then the config's by `all`, method and label, then the row's own.

    Args:
        fixed: settings that the entry sets itself, which are not searched.
    """
    models = _models(row)
    space = {
        f"{part}.{name}": Dimension(declared, models[part].model_fields[name].annotation is int)
        for part, model in models.items()
        for name, declared in declared_spaces(model).items()
        if part != "training" or all(name in round_.trainer.carries for round_ in row.rounds)
    }
    given: list[tuple[str, Mapping[str, SpaceSection]]] = [
        (f"tuning.spaces.{key}", section.spaces.get(key, {})) for key in dict.fromkeys((EVERY_ROW, row.method, row.series))
    ]
    for where, sections in given:
        for path, chosen in sections.items():
            if where.endswith(f".{EVERY_ROW}") and not _has(models, path):
                continue
            space = _with(space, path, chosen, f"{where}.{path}", models)
    space = {path: dimension for path, dimension in space.items() if path not in fixed}
    for path, chosen in (entry.tuning if isinstance(entry.tuning, Mapping) else {}).items():
        where = f"{place}.tuning.{path}"
        if path in fixed and not chosen.off:
            fix = f"the row sets {path} itself, and cannot search it too: leave one of them out"
            unresolved.note(where, _written({path: chosen})[path], fix)
            continue
        space = _with(space, path, chosen, where, models)
    return space


def _with(
    space: dict[str, Dimension], path: str, chosen: SpaceSection, where: str, models: Mapping[str, type[BaseModel]]
) -> dict[str, Dimension]:
    """Return a space with one dimension replaced, added or, where it is off, left out."""
    rest = {name: dimension for name, dimension in space.items() if name != path}
    if chosen.space is None:
        return rest
    return {**rest, path: Dimension(chosen.space, _is_whole(path, chosen.space, models), where)}


def _models(row: RowConfig) -> dict[str, type[BaseModel]]:
    """Return the classes in which a row's settings lie; a part that differs between rounds has none."""
    models: dict[str, type[BaseModel]] = {"training": TrainingSettings}
    for part, components in (
        ("objective", [round_.objective for round_ in row.rounds]),
        ("data", [round_.builder for round_ in row.rounds]),
        ("trainer", [round_.trainer for round_ in row.rounds]),
    ):
        classes = {type(component) for component in components}
        if len(classes) == 1 and None not in components:
            models[part] = next(cls for cls in classes if issubclass(cls, BaseModel))
    return models


def _fixed(entry: MethodEntry, registry: Registry) -> set[str]:
    """Return the settings that the entry, or any round of it, sets itself."""
    fields: list[tuple[str, Mapping[str, Any]]] = [("training", entry.training)]
    fields += [(part, section.fields) for part in PARTS[1:] if (section := getattr(entry, part)) is not None]
    rounds = entry.rounds or (registry.get("method", entry.method).component.rounds if entry.method else ())
    fields += [(part, getattr(round_, part)) for round_ in rounds for part in ("training", "objective", "data")]
    return {f"{part}.{name}" for part, given in fields for name in given}


def _has(models: Mapping[str, type[BaseModel]], path: str) -> bool:
    part, _, name = path.partition(".")
    return part in models and name.split(".")[0] in models[part].model_fields


def _is_whole(path: str, space: SearchSpace, models: Mapping[str, type[BaseModel]]) -> bool:
    """Return whether integers alone are drawn: for an integer field, or a nested one with integer ends."""
    part, _, name = path.partition(".")
    info = models[part].model_fields.get(name) if part in models else None
    if info is not None:
        return info.annotation is int
    return all(float(end).is_integer() for end in (space.low, space.high) if end is not None) and "." in name


def _check_names(unresolved: UnresolvedConfig, section: TuningSection, entries: Mapping[str, TunedEntry]) -> None:
    """Refuse spaces of rows that there are none of, settings that lie nowhere, and intervals where a grid needs values."""
    methods = {entry.row.method for entry in entries.values()}
    known = [EVERY_ROW, *sorted({*methods, *entries})]
    for name, sections in section.spaces.items():
        if name not in known:
            fix = f"no row that trains has this label or method; {did_you_mean(name, known)}"
            unresolved.note(f"tuning.spaces.{name}", _written(sections), fix)
            continue
        for path, chosen in sections.items():
            applies = [entry for entry in entries.values() if name in (EVERY_ROW, entry.row.method, entry.series)]
            place = f"tuning.spaces.{name}.{path}"
            if path.partition(".")[0] not in PARTS:
                _note_part(unresolved, place, chosen)
            elif name == EVERY_ROW and not any(_has(_models(entry.row), path) for entry in applies):
                unresolved.note(place, chosen.model_dump(mode="json"), "no row has this setting: leave it out")
    for entry in entries.values():
        own = MethodEntry.model_validate(unresolved.raw["methods"][int(entry.place.rpartition(".")[2])]).tuning
        for path, chosen in (own if isinstance(own, Mapping) else {}).items():
            if path.partition(".")[0] not in PARTS:
                _note_part(unresolved, f"{entry.place}.tuning.{path}", chosen)


def _note_part(unresolved: UnresolvedConfig, place: str, chosen: SpaceSection) -> None:
    fix = f"a setting begins with {', '.join(f'{part}.' for part in PARTS)}, as in training.learning_rate"
    unresolved.note(place, chosen.model_dump(mode="json"), fix)


def _check_values(unresolved: UnresolvedConfig, registry: Registry, section: TuningSection, entry: TunedEntry) -> None:
    """Refuse a space with a value that its field does not take, and an interval where a grid needs values."""
    for path, dimension in entry.space.items():
        if path.partition(".")[0] not in PARTS:
            continue  # noted by its name
        place = dimension.place or f"{entry.place}.tuning.{path}"
        if section.sampler == "grid" and not dimension.space.choices:
            fix = "a grid needs values: list them, as in [0.01, 0.1], or take the sampler random"
            unresolved.note(place, str(dimension.space), f"{entry.series} searches {path} in an interval, and {fix}")
        for value in dimension.probes:
            _, problems = _resolved(registry, unresolved.raw, entry.place, with_settings(entry.entry, {path: value}))
            if problems:
                whose = "" if dimension.place else f" (the space that {path} declares)"
                unresolved.note(place, value, f"{entry.series} cannot have it: {problems[0].fix}{whose}")
                break
        limited = unresolved.config is not None and entry.row.budget.limit is not None
        if path == "training.epochs" and limited:
            fix = "the budget's limit decides how often a prompt is seen, so it would change nothing: leave it out"
            unresolved.note(place, str(dimension.space), fix)


# The metric


def _metric(
    unresolved: UnresolvedConfig, section: TuningSection, entries: Mapping[str, TunedEntry]
) -> tuple[tuple[str, str, bool], tuple[str, ...]] | None:
    """Return the evaluator's label, metric and direction, and the opponents; None with a problem noted."""
    listed = [(item, metric) for item in unresolved.evaluators for metric in item.evaluator.metrics()]
    keys = {f"{item.label}/{metric.name}": (item, metric) for item, metric in listed}
    first = next((f"{item.label}/{metric.name}" for item, metric in listed if metric.primary), next(iter(keys), None))
    key = section.metric or first
    if key not in keys:
        if keys:
            unresolved.note("tuning.metric", key, f"no evaluator of the config has it; {did_you_mean(str(key), keys)}")
        return None
    item, metric = keys[key]
    if metric.higher_is_better is None:
        unresolved.note("tuning.metric", key, "neither more nor less of it is better: choose a metric with a direction")
        return None
    if not item.evaluator.reads_split:
        fix = f"{item.evaluator.name} brings its own questions, which the board is evaluated on: choose a metric of the split's"
        unresolved.note("tuning.metric", key, fix)
        return None
    assert unresolved.config is not None
    baseline = unresolved.config.baseline
    opponents = tuple(baseline if label == "baseline" else label for label in item.evaluator.opponents())
    labels = {row.label: row.series for row in unresolved.rows if row}
    tuned = [label for label in opponents if label == "all" or ((e := entries.get(labels.get(label, ""))) and not e.default)]
    if tuned:
        fix = f"{item.evaluator.name} compares with {tuned[0]}, which is tuned itself: choose another metric, or opponent"
        unresolved.note("tuning.metric", key, fix)
        return None
    return (item.label, metric.name, metric.higher_is_better), opponents
