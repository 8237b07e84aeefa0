"""Plugins -> components, with provenance. A registry is a value: load one, pass it on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Literal

import pluggy

from harness import hookspecs
from harness.errors import PluginError, did_you_mean
from harness.interfaces import Backend, Component, DataBuilder, Evaluator, Method, Objective, Source

Kind = Literal["data", "objective", "evaluator", "backend", "source", "method"]

_HOOKS: dict[Kind, tuple[str, type]] = {
    "data": ("harness_data_builders", DataBuilder),
    "objective": ("harness_objectives", Objective),
    "evaluator": ("harness_evaluators", Evaluator),
    "backend": ("harness_backends", Backend),
    "source": ("harness_sources", Source),
    "method": ("harness_methods", Method),
}
KINDS: tuple[Kind, ...] = tuple(_HOOKS)


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
        text = self.component.description if self.kind == "method" else (self.component.__doc__ or "")
        return str(text).strip().split("\n")[0]


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
            origins[entry.name] = (distribution.name, distribution.version)
            if manager.has_plugin(entry.name):
                raise PluginError(
                    f"two plugins use the entry-point name {entry.name!r}; one is from {distribution.name}: rename its entry point"
                )
            manager.register(_import(entry, distribution.name), name=entry.name)
        for plugin in extra:
            name = getattr(plugin, "__name__", type(plugin).__name__)
            origins[name] = ("(given in code)", "")
            manager.register(plugin, name=name)
        _check_hooks(manager, origins)
        return cls(_collect(manager, origins), manager)


def _entry_points() -> list[tuple[metadata.Distribution, metadata.EntryPoint]]:
    """Entry points of the group, each once, in a stable order."""
    found: dict[tuple[str, str, str], tuple[metadata.Distribution, metadata.EntryPoint]] = {}
    for distribution in metadata.distributions():
        for entry in distribution.entry_points:
            if entry.group == hookspecs.PROJECT:
                found.setdefault((distribution.name, entry.name, entry.value), (distribution, entry))
    return [found[key] for key in sorted(found)]


def _import(entry: metadata.EntryPoint, distribution: str) -> Any:
    try:
        plugin = entry.load()
        return plugin() if isinstance(plugin, type) else plugin  # a class keeps its state in an instance of its own
    except Exception as error:  # an import runs foreign code: whatever it raises is the plugin's fault, and is said so
        raise PluginError(
            f"plugin {entry.name!r} of {distribution} cannot be imported ({type(error).__name__}: {error}); "
            f"fix {entry.value}, or uninstall it with: pip uninstall {distribution}"
        ) from error


def _check_hooks(manager: pluggy.PluginManager, origins: Mapping[str, tuple[str, str]]) -> None:
    """Refuse hook implementations that no specification knows, wherever they are misspelt."""
    specified = [name for name in dir(hookspecs) if name.startswith("harness_")]
    for plugin_name, plugin in manager.list_name_plugin():
        for attribute in dir(plugin):
            if attribute.startswith("harness_") and attribute not in specified and callable(getattr(plugin, attribute)):
                raise PluginError(
                    f"plugin {plugin_name!r} of {origins[plugin_name][0]} implements {attribute!r}, which is no hook: "
                    + did_you_mean(attribute, specified)
                )
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(f"a plugin's hook does not fit its specification: {error}; see harness.hookspecs") from error


def _collect(
    manager: pluggy.PluginManager, origins: Mapping[str, tuple[str, str]]
) -> dict[Kind, dict[str, Registered]]:
    entries: dict[Kind, dict[str, Registered]] = {kind: {} for kind in KINDS}
    for kind, (hook, base) in _HOOKS.items():
        for implementation in getattr(manager.hook, hook).get_hookimpls():
            distribution, version = origins[implementation.plugin_name]
            for component in implementation.function():
                _check_component(component, base, hook, distribution)
                entry = Registered(kind, component.name, component, distribution, version, implementation.function.__module__)
                other = entries[kind].setdefault(component.name, entry)
                if other is not entry:
                    raise PluginError(
                        f"two plugins register the {kind} {component.name!r}: {other.module} of {other.distribution} and "
                        f"{entry.module} of {distribution}; rename one, or uninstall one of the two"
                    )
    return entries


def _check_component(component: Any, base: type, hook: str, distribution: str) -> None:
    right = isinstance(component, base) if base is Method else isinstance(component, type) and issubclass(component, base)
    if not right:
        raise PluginError(f"{hook} of {distribution} returned {component!r}: return a list of harness.{base.__name__}")
    if not isinstance(getattr(component, "name", None), str):
        raise PluginError(f"{component!r} of {distribution} has no name: set `name: ClassVar[str] = \"...\"` on the class")


def component_fields(component: type[Component]) -> list[tuple[str, str, Any, str]]:
    """(name, type, default, description) of each hyper-parameter, for documentation."""
    rows = []
    for name, info in component.model_fields.items():
        annotation = getattr(info.annotation, "__name__", str(info.annotation)).replace("typing.", "")
        rows.append((name, annotation, info.get_default(call_default_factory=True), info.description or ""))
    return rows
