"""Entry points -> components: provenance, and errors that name the distribution and the fix."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from distributions import write_distribution

from harness import Evaluator, PluginError, hookimpl
from harness.api.registry import KINDS, Registry

METHODS = """
    from harness import Method, hookimpl

    @hookimpl
    def harness_methods():
        return [Method(name="{name}", description="a test's")]
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path, whose modules are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def refused() -> str:
    with pytest.raises(PluginError) as caught:
        Registry.load()
    return str(caught.value)


def test_built_ins_come_through_entry_points_with_their_origin() -> None:
    registry = Registry.load()
    assert all(registry.entries[kind] for kind in KINDS)
    for kind in KINDS:
        for name, entry in registry.entries[kind].items():
            assert (entry.kind, entry.name) == (kind, name)
            assert entry.distribution == "alignment-harness"
            assert entry.distribution_version
            assert entry.module.startswith("harness_plugins.")
            assert entry.summary


def test_a_third_party_plugin_is_found_with_its_origin(site: Path) -> None:
    write_distribution(site, "my-plugin", METHODS.format(name="mine"))
    entry = Registry.load().get("method", "mine")
    assert (entry.distribution, entry.distribution_version, entry.module) == ("my-plugin", "1.2", "my_plugin")


def test_a_class_is_instantiated(site: Path) -> None:
    code = """
        from harness import Method, hookimpl

        class Plugin:
            def __init__(self):
                self.label = "of_an_instance"

            @hookimpl
            def harness_methods(self):
                return [Method(name=self.label, description="d")]
    """
    write_distribution(site, "my-plugin", code, {"mine": "my_plugin:Plugin"})
    assert Registry.load().get("method", "of_an_instance").distribution == "my-plugin"


def test_two_distributions_may_use_one_entry_point_name(site: Path) -> None:
    write_distribution(site, "first", METHODS.format(name="one"), {"sources": "first"})
    write_distribution(site, "second", METHODS.format(name="two"), {"sources": "second"})
    assert {"one", "two"} <= set(Registry.load().names("method"))


def test_two_distributions_that_register_one_name(site: Path) -> None:
    write_distribution(site, "first", METHODS.format(name="same"))
    write_distribution(site, "second", METHODS.format(name="same"))
    message = refused()
    assert message == (
        "two plugins register the method 'same': second of second and first of first; rename one, or uninstall one of the two"
    ) or message == (
        "two plugins register the method 'same': first of first and second of second; rename one, or uninstall one of the two"
    )


def test_a_name_of_a_built_in(site: Path) -> None:
    write_distribution(site, "second-dpo", METHODS.format(name="dpo"))
    message = refused()
    assert "two plugins register the method 'dpo'" in message
    assert "second-dpo" in message
    assert "harness_plugins.baselines of alignment-harness" in message


def test_a_misspelt_hook(site: Path) -> None:
    write_distribution(site, "my-plugin", METHODS.format(name="x").replace("harness_methods", "harness_metods"))
    message = refused()
    assert "my-plugin" in message
    assert "'harness_metods', which is no hook: did you mean 'harness_methods'" in message


def test_a_hook_without_its_mark(site: Path) -> None:
    write_distribution(site, "my-plugin", METHODS.format(name="x").replace("@hookimpl", ""))
    assert refused() == (
        "plugin my-plugin of my-plugin defines 'harness_methods' without a mark: write @harness.hookimpl above it"
    )


def test_a_hook_with_an_argument_that_no_specification_has(site: Path) -> None:
    write_distribution(site, "my-plugin", METHODS.format(name="x").replace("methods()", "methods(config)"))
    message = refused()
    assert message.startswith("a hook of plugin my-plugin of my-plugin does not fit its specification")
    assert "config" in message
    assert "\n" not in message


def test_an_import_that_fails(site: Path) -> None:
    write_distribution(site, "my-plugin", "import no_such_library\n")
    assert refused() == (
        "plugin 'my-plugin' of my-plugin cannot be imported (ModuleNotFoundError: No module named 'no_such_library'); "
        "fix my_plugin, or uninstall it with: pip uninstall my-plugin"
    )


def test_a_registration_hook_that_fails(site: Path) -> None:
    write_distribution(site, "my-plugin", METHODS.format(name="x").replace("description", "descripton"))
    assert "harness_methods of my-plugin failed (ValidationError" in refused()


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("None", "returned None: return a list of subclasses of harness.DataBuilder"),
        ("[3]", "returned 3 in its list: return a list of subclasses of harness.DataBuilder"),
        ("[DataBuilder]", 'has no name: set `name: ClassVar[str] = "..."` on the class'),
        ("[type('B', (Objective,), {'name': 'x'})]", "in its list: return a list of subclasses of harness.DataBuilder"),
    ],
)
def test_a_hook_that_returns_what_it_must_not(site: Path, returned: str, said: str) -> None:
    code = f"""
        from harness import DataBuilder, Objective, hookimpl

        @hookimpl
        def harness_data_builders():
            return {returned}
    """
    write_distribution(site, "my-plugin", code)
    message = refused()
    assert "harness_data_builders of my-plugin" in message
    assert said in message


def test_one_object_behind_two_entry_points(site: Path) -> None:
    write_distribution(site, "my-plugin", METHODS.format(name="x"), {"one": "my_plugin", "two": "my_plugin"})
    assert refused() == (
        "plugin two of my-plugin is the same object as plugin one of my-plugin: remove one of the two entry points"
    )


def test_a_distribution_that_is_found_twice_counts_once(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_distribution(site, "my-plugin", METHODS.format(name="new"))
    older = write_distribution(tmp_path / "older", "My.Plugin", METHODS.format(name="old"), {"gone": "no_such_module"})
    monkeypatch.setattr(sys, "path", [*sys.path, str(older)])
    assert "new" in Registry.load().names("method")


def test_extra_plugins_are_given_in_code() -> None:
    class Plugin:
        @hookimpl
        def harness_methods(self) -> list[object]:
            from harness import Method

            return [Method(name="in_code", description="d")]

    registry = Registry.load(extra=[Plugin()])
    assert registry.get("method", "in_code").distribution == "(given in code)"
    assert [entry.kind for entry in registry.find("in_code")] == ["method"]


def test_an_unknown_name_gets_a_hint() -> None:
    with pytest.raises(PluginError, match="no method is called 'dop': did you mean 'dpo'"):
        Registry.load().get("method", "dop")


ANALYSIS = """
    from harness import Analysis, hookimpl

    class Mine(Analysis):
        name = "{name}"
        question = "Whether"
        minutes = 1

    @hookimpl
    def harness_analyses():
        return [Mine]
"""


@pytest.mark.parametrize("name", ["my-question", "my_question", "m2"])
def test_an_analysis_is_found_with_its_origin(site: Path, name: str) -> None:
    write_distribution(site, "my-plugin", ANALYSIS.format(name=name))
    entry = Registry.load().get("analysis", name)
    assert (entry.distribution, entry.module, entry.summary) == ("my-plugin", "my_plugin", "Whether")


@pytest.mark.parametrize("name", ["all", "list", "../up", "My-Question", "a--b", ""])
def test_a_name_that_cannot_be_an_argument_and_a_folder_is_refused(site: Path, name: str) -> None:
    write_distribution(site, "my-plugin", ANALYSIS.format(name=name))
    assert f"harness_analyses of my-plugin returned an analysis called {name!r}: write small letters" in refused()


@pytest.mark.parametrize(
    "name", ["", "../up", "a/b", "\x1b[31mred", "a b", "<b>", "=1+1", "-x", ".x", "a\nb", "x" * 81, "\u202ex"]
)
def test_a_name_that_is_no_word_is_refused(name: str) -> None:
    """It would reach terminals, pages, spreadsheets and file names."""

    class Odd(Evaluator):
        """An evaluator."""

    Odd.name = name

    class Plugin:
        @hookimpl
        def harness_evaluators(self) -> list[type[Evaluator]]:
            return [Odd]

    with pytest.raises(PluginError, match="returned a component called") as refused:
        Registry.load([Plugin()])
    assert str(refused.value).isprintable()
