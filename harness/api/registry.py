"""Plugins -> components, with provenance. A registry is a value: load one, pass it on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from typing import Any, Literal

import pluggy

from harness.api import hookspecs
from harness.api.interfaces import Analysis, Backend, DataBuilder, Evaluator, Importer, Objective, Source, Trainer
from harness.api.methods import Method
from harness.errors import PluginError, did_you_mean
from harness.extras import missing_extra

Kind = Literal["data", "objective", "evaluator", "backend", "source", "importer", "method", "analysis", "trainer"]

_HOOKS: dict[Kind, tuple[str, type]] = {
    "data": ("harness_data_builders", DataBuilder),
    "objective": ("harness_objectives", Objective),
    "evaluator": ("harness_evaluators", Evaluator),
    "backend": ("harness_backends", Backend),
    "source": ("harness_sources", Source),
    "importer": ("harness_importers", Importer),
    "method": ("harness_methods", Method),
    "analysis": ("harness_analyses", Analysis),
    "trainer": ("harness_trainers", Trainer),
}
KINDS: tuple[Kind, ...] = tuple(_HOOKS)

# Names appear in terminals, pages, file names and keys.
NAME = re.compile(r"\w[\w.+-]{0,79}")
# `harness analyze` takes names as arguments beside these words, and writes into a folder of each name.
ANALYSIS_NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
RESERVED_ANALYSIS_NAMES = ("all", "list")


@dataclass(frozen=True)
class Registered:
    """A component (a class, or a `Method` value) and where it came from."""

    kind: Kind
    name: str
    component: Any
    distribution: str
    distribution_version: str
    module: str

    @property
    def summary(self) -> str:
        """One line of documentation."""
        attribute = {"method": "description", "analysis": "question"}.get(self.kind, "__doc__")
        return str(getattr(self.component, attribute, "") or "").strip().split("\n")[0]


@dataclass(frozen=True)
class Registry:
    """Everything that can be named in a config."""

    entries: Mapping[Kind, Mapping[str, Registered]]
    manager: pluggy.PluginManager = field(repr=False, compare=False)

    def get(self, kind: Kind, name: str) -> Registered:
        """The component called `name`; `PluginError` with a hint if there is none."""
        try:
            return self.entries[kind][name]
        except KeyError:
            raise PluginError(f"no {kind} is called {name!r}: {did_you_mean(name, self.entries[kind])}") from None

    def find(self, name: str) -> list[Registered]:
        """Every component called `name`, of any kind."""
        return [entries[name] for entries in self.entries.values() if name in entries]

    def names(self, kind: Kind) -> list[str]:
        return sorted(self.entries[kind])

    @classmethod
    def load(cls, extra: Iterable[Any] = ()) -> Registry:
        """Load every installed plugin of the entry-point group `harness`, then the modules or objects in `extra`.

        Raises:
            PluginError: a plugin fails to import, implements an unknown hook, or registers what it must not; the message
                names the distribution and the fix.
        """
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        origins: dict[str, tuple[str, str]] = {}
        for distribution, entry in _entry_points():
            name = f"{entry.name} of {distribution.name}"
            origins[name] = (distribution.name, distribution.version)
            _register(manager, _import(entry, distribution.name), name)
        for plugin in extra:
            name = f"{getattr(plugin, '__name__', type(plugin).__name__)} (given in code)"
            origins[name] = ("(given in code)", "")
            _register(manager, plugin, name)
        return cls(_collect(manager, origins), manager)


def _entry_points() -> list[tuple[metadata.Distribution, metadata.EntryPoint]]:
    """Entry points of the group in a stable order; of a distribution that is found twice, the one that Python imports."""
    first: dict[str, metadata.Distribution] = {}
    for distribution in metadata.distributions():
        first.setdefault(re.sub(r"[-_.]+", "-", distribution.name or "").lower(), distribution)
    found = {
        (distribution.name, entry.name, entry.value): (distribution, entry)
        for distribution in first.values()
        for entry in distribution.entry_points
        if entry.group == hookspecs.PROJECT
    }
    return [found[key] for key in sorted(found)]


def _import(entry: metadata.EntryPoint, distribution: str) -> Any:
    try:
        plugin = entry.load()
        return plugin() if isinstance(plugin, type) else plugin  # a class keeps its state in an instance of its own
    except Exception as error:  # an import runs foreign code: whatever it raises is the plugin's fault, and is said so
        missing = missing_extra(error)
        reason, fix = f"{type(error).__name__}: {error}", f"fix {entry.value}"
        if missing is not None:
            reason, fix = str(missing).split(": ")
        raise PluginError(
            f"plugin {entry.name!r} of {distribution} cannot be imported ({reason}); "
            f"{fix}, or uninstall it with: pip uninstall {distribution}"
        ) from error


def _register(manager: pluggy.PluginManager, plugin: Any, name: str) -> None:
    """Register a plugin, unless something in it looks like a hook and would never be called."""
    specified = [hook for hook in dir(hookspecs) if hook.startswith("harness_")]
    for attribute in dir(plugin):
        if not attribute.startswith("harness_") or not callable(getattr(plugin, attribute)):
            continue
        if attribute not in specified:
            raise PluginError(f"plugin {name} implements {attribute!r}, which is no hook: {did_you_mean(attribute, specified)}")
        if manager.parse_hookimpl_opts(plugin, attribute) is None:
            raise PluginError(f"plugin {name} defines {attribute!r} without a mark: write @harness.hookimpl above it")
    try:
        manager.register(plugin, name=name)
    except pluggy.PluginValidationError as error:
        reason = str(error).split("\n")[-1]
        raise PluginError(
            f"a hook of plugin {name} does not fit its specification ({reason}): see harness.api.hookspecs"
        ) from error
    except ValueError as error:
        other = manager.get_name(plugin)
        raise PluginError(f"plugin {name} is the same object as plugin {other}: remove one of the two entry points") from error


def _collect(manager: pluggy.PluginManager, origins: Mapping[str, tuple[str, str]]) -> dict[Kind, dict[str, Registered]]:
    entries: dict[Kind, dict[str, Registered]] = {kind: {} for kind in KINDS}
    for kind, (hook, base) in _HOOKS.items():
        for implementation in getattr(manager.hook, hook).get_hookimpls():
            distribution, version = origins[implementation.plugin_name]
            for component in _components(implementation, base, f"{hook} of {distribution}"):
                entry = Registered(kind, component.name, component, distribution, version, implementation.function.__module__)
                other = entries[kind].setdefault(component.name, entry)
                if other is not entry:
                    raise PluginError(
                        f"two plugins register the {kind} {component.name!r}: {other.module} of {other.distribution} and "
                        f"{entry.module} of {distribution}; rename one, or uninstall one of the two"
                    )
    return entries


def _components(implementation: pluggy.HookImpl, base: type, where: str) -> list[Any]:
    """Check and return what a registration hook returns."""
    try:
        returned = implementation.function()
    except Exception as error:  # foreign code, as in `_import`
        raise PluginError(f"{where} failed ({type(error).__name__}: {error}): mend it, or uninstall its plugin") from error
    wanted = f"return a list of {'values' if base is Method else 'subclasses'} of harness.{base.__name__}"
    if not isinstance(returned, list | tuple):
        raise PluginError(f"{where} returned {returned!r}: {wanted}")
    for component in returned:
        right = isinstance(component, base) if base is Method else isinstance(component, type) and issubclass(component, base)
        if not right:
            raise PluginError(f"{where} returned {component!r} in its list: {wanted}")
        if not isinstance(getattr(component, "name", None), str):
            raise PluginError(f'{component!r} of {where} has no name: set `name: ClassVar[str] = "..."` on the class')
        if base is Analysis:
            _check_analysis_name(component.name, where)
        elif not NAME.fullmatch(component.name):
            fix = "letters, digits and _ . + -, 80 at most, and a letter or digit first"
            raise PluginError(f"{where} returned a component called {component.name[:100]!a}: write {fix}")
    return list(returned)


def _check_analysis_name(name: str, where: str) -> None:
    if name in RESERVED_ANALYSIS_NAMES or not ANALYSIS_NAME.fullmatch(name):
        raise PluginError(
            f"{where} returned an analysis called {name!r}: write small letters, digits and single hyphens or underscores, a "
            f"letter first, and none of {', '.join(RESERVED_ANALYSIS_NAMES)}"
        )


@cache
def _installed() -> Registry:
    return Registry.load()


def source_named(name: str, fields: Mapping[str, Any]) -> Source:
    """Return an installed source with these fields, for sources that are made of others.

    Raises:
        PluginError: no source is called so.
        pydantic.ValidationError: a field is unknown or wrong.
    """
    source: Source = _installed().get("source", name).component.model_validate(fields)
    return source
