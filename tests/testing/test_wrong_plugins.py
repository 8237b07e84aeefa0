"""Plugins that are wrong in ways that Python would explain badly, or not at all: each is told what and how."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from distributions import write_distribution
from pydantic import ConfigDict, Field
from test_conformance import Echo, Leaky, Length, Margin, Targets, fault, verdict_of

from harness import (
    Analysis,
    Axes,
    BuildTask,
    DataError,
    Dataset,
    EvaluationTask,
    Example,
    Figure,
    GroupLogps,
    Importer,
    Line,
    Loss,
    Message,
    Method,
    Objective,
    Panel,
    PluginError,
    Prompt,
    Report,
    Response,
)
from harness.api.registry import Registry
from harness.testing import check
from harness.testing.verdict import CheckVerdict, Finding

EXACT = "give a torch tensor, computed from batch.policy"


def told(base: type, hook: str, **members: Any) -> tuple[str, str, str]:
    """The first fault of a subclass of `base` with these members."""
    return fault(type("Wrong", (base,), {"__doc__": "Wrong.", "__module__": __name__, **members}), hook)


def loss_of(value: Any) -> tuple[str, str, str]:
    return told(Margin, "harness_objectives", loss=lambda self, batch: value(self, batch))


# Objectives


@pytest.mark.parametrize(
    ("value", "said", "fix"),
    [
        (lambda self, batch: None, "loss() returned NoneType", "return harness.Loss(per_pair=…)"),
        (lambda self, batch: self.margin(batch), "loss() returned Tensor", "return harness.Loss(per_pair=…)"),
        (lambda self, batch: Loss(), "neither per_pair nor per_group", "the loss of each pair, [G, M]"),
        (lambda self, batch: Loss(per_pair=[[1.0]]), "per_pair is list", EXACT),
        (lambda self, batch: Loss(per_pair=self.margin(batch), metrics={"a": 0.5}), "the metric 'a' is float", EXACT),
        (
            lambda self, batch: Loss(per_pair=self.margin(batch), metrics={"a": batch.policy.chosen.mean()}),
            "the metric 'a' has shape []",
            "give [G] or [G, M]",
        ),
        (lambda self, batch: batch.views["polite"], "it reads batch.views['polite']", "name that view in views()"),
    ],
)
def test_what_loss_must_not_return(value: Any, said: str, fix: str) -> None:
    found = loss_of(value)
    assert (found[0], said in found[1], fix in found[2]) == ("loss", True, True), found


@pytest.mark.parametrize(
    ("views", "said"), [(["other"], "views() returned list"), ({"other": "please"}, "the view 'other' gives str")]
)
def test_what_views_must_not_return(views: Any, said: str) -> None:
    found = told(Margin, "harness_objectives", views=lambda self: views)
    assert found == ("loss", said, "return {name: a function from harness.Prompt to harness.Prompt}")


def test_a_loss_that_seeds_what_everybody_draws_from() -> None:
    def noisy(self: Margin, batch: GroupLogps) -> Loss:
        torch.manual_seed(0)
        return Loss(per_pair=self.margin(batch) * torch.rand(()))

    where, said, fix = told(Margin, "harness_objectives", loss=noisy)
    assert (where, said) == ("determinism", "it draws from or seeds the global generator of torch")
    assert fix == "use no random numbers and no state in loss()"


def test_a_loss_that_nobody_wrote() -> None:
    class Nothing(Objective):
        """Nothing."""

        name: ClassVar[str] = "nothing"

    assert fault(Nothing, "harness_objectives") == ("loss", "it has no loss()", "define loss() on the class, or mend its name")


def test_a_name_that_nothing_reads() -> None:
    class Misspelt(Margin):
        """Needs no reference, it thinks."""

        needs_refrence: ClassVar[bool] = False

    (advice,) = [finding for finding in verdict_of(Misspelt, "harness_objectives").findings if finding.status == "advice"]
    assert (advice.said, advice.fix) == ("nothing reads its 'needs_refrence'", "rename it if 'needs_reference' is meant")


@pytest.mark.parametrize("default", [torch.relu, torch.zeros(1)], ids=["function", "tensor"])
def test_a_field_that_json_cannot_hold(default: Any) -> None:
    class Held(Margin):
        """A field of any type."""

        model_config = ConfigDict(arbitrary_types_allowed=True)
        name: ClassVar[str] = "held"
        held: Any = Field(default, description="anything")

    where, said, fix = fault(Held, "harness_objectives")
    assert where == "json"
    assert said.startswith("its field 'held' cannot be written as JSON: ")
    assert fix == "use finite numbers, text, booleans, tuples and models of these as fields"


def test_a_field_that_comes_back_from_json_as_something_else() -> None:
    class Infinite(Margin):
        """A number without an end."""

        name: ClassVar[str] = "infinite"
        most: float | None = Field(float("inf"), description="infinity, which JSON has no word for")

    where, said, _ = fault(Infinite, "harness_objectives")
    assert where == "json"
    assert "'most' cannot be written as JSON" in said or "comes back as Infinite(most=None)" in said


def test_an_error_in_an_installed_plugin_names_its_own_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = '''
        from harness import Objective, hookimpl

        class Divides(Objective):
            """By zero."""

            name = "divides"

            def loss(self, batch):
                return 1 / 0

        @hookimpl
        def harness_objectives():
            return [Divides]
    '''
    site = write_distribution(tmp_path / "lib" / "site-packages", "my-plugin", code)
    monkeypatch.syspath_prepend(site)
    (verdict,) = check("divides", registry=Registry.load())
    del sys.modules["my_plugin"]
    assert verdict.failed[-1].said == "it raised ZeroDivisionError: division by zero"
    assert verdict.failed[-1].fix == f"mend {site / 'my_plugin.py'}, line 10"


# Data builders


class SetOrder(Targets):
    """The first of a set of words."""

    def rejected(self, task: BuildTask, target: str) -> tuple[Response, ...]:
        return tuple(Response(word) for word in {"one", "two", "three", "four", "five", "six", "seven", "eight"})


def seeds(self: Targets, task: BuildTask, target: str) -> tuple[Response, ...]:
    random.seed(0)
    return (Response(str(random.random())),)


@pytest.mark.parametrize(
    ("members", "where", "said", "fix"),
    [
        ({"build": lambda self, task: None}, "groups", "build() returned NoneType", "yield harness.Group("),
        ({"build": lambda self, task: [("a", "b")]}, "groups", "it yields tuple", "yield harness.Group("),
        ({"build": lambda self, task: task.smaple(2)}, "groups", "it asks for task.smaple", "did you mean 'sample'"),
        (
            {"build": lambda self, task: task.judge([[Message("user", "?")]], str)},
            "groups",
            "it asks a judge and does not say so",
            "judged: ClassVar[bool] = True",
        ),
        ({"needs": "target"}, "name", "needs is 'target'", "write needs = frozenset({…})"),
        ({"needs": frozenset({"targt"})}, "name", "needs is ['targt']", "some of target, ranked, gold"),
        ({"rejected": seeds}, "determinism", "the global generator of random", "draw from task.rng alone"),
    ],
)
def test_what_a_builder_must_not_do(members: Mapping[str, Any], where: str, said: str, fix: str) -> None:
    found = told(Targets, "harness_data_builders", **members)
    assert (found[0], said in found[1], fix in found[2]) == (where, True, True), found


def test_a_builder_that_leans_on_the_order_of_a_set() -> None:
    where, said, fix = fault(SetOrder, "harness_data_builders")
    assert (where, said) == ("order of sets", "two processes build different data")
    assert fix == "sort what comes out of a set before anything depends on its order"


def test_a_builder_that_cannot_be_imported_elsewhere_is_not_run_there() -> None:
    local = type("Local", (Targets,), {"__doc__": "Local.", "__module__": __name__, "name": "local"})
    (skipped,) = [finding for finding in verdict_of(local, "harness_data_builders").findings if finding.status == "not run"]
    assert skipped.said == "test_wrong_plugins.Local cannot be imported by another process"


def test_a_builder_that_shortens_its_task_has_not_accounted_for_the_rest() -> None:
    def shortened(self: Targets, task: BuildTask) -> Iterable[Any]:
        task.examples = task.examples[:3]
        return Targets.build(self, task)

    where, said, _ = told(Targets, "harness_data_builders", build=shortened)
    assert (where, said) == ("account", "of 16 prompts 3 gave a group and 0 were counted")


def test_a_text_that_is_rejected_twice_is_advice() -> None:
    twice = {"rejected": lambda self, task, target: (Response("x"), Response("x"))}
    wrong = type("Wrong", (Targets,), {"__doc__": "Wrong.", "__module__": __name__, **twice})
    said = {finding.check: finding.said for finding in verdict_of(wrong, "harness_data_builders").findings}
    assert said["responses"] == "the group of prompt 'train-0' rejects one text twice"


# Evaluators


def by_object(self: Length, task: EvaluationTask) -> Any:
    from harness import Score

    return [Score(example, "words", 1.0) for example in task.examples]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("members", "where", "said", "fix"),
    [
        ({"metrics": lambda self: None}, "metrics", "metrics() returned None", "a list of harness.Metric"),
        ({"metrics": lambda self: ["words"]}, "metrics", "metrics() returned ['words']", "a list of harness.Metric"),
        ({"evaluate": lambda self, task: None}, "scores", "evaluate() returned NoneType", "yield harness.Score("),
        ({"evaluate": lambda self, task: {"words": 1.0}}, "scores", "it yields str", "yield harness.Score("),
        ({"evaluate": by_object}, "scores", "a score's example is Example", "example.prompt.id"),
        ({"value": lambda self, answer: torch.tensor(1.0)}, "scores", "is tensor(1.)", "give a finite number"),
        (
            {"evaluate": lambda self, task: task.note("a", object())},
            "scores",
            "its note 'a' cannot be written as JSON",
            "lists and mappings",
        ),
        ({"samplings": lambda self: None}, "samplings", "samplings() returned None", "a list of harness.Sampling"),
    ],
)
def test_what_an_evaluator_must_not_do(members: Mapping[str, Any], where: str, said: str, fix: str) -> None:
    found = told(Length, "harness_evaluators", **members)
    assert (found[0], said in found[1], fix in found[2]) == (where, True, True), found


# Sources, backends, importers, methods


@pytest.mark.parametrize(
    ("members", "where", "said", "fix"),
    [
        ({"load": lambda self: {"train": ()}}, "load", "load() returned dict", "return harness.Dataset(splits)"),
        ({"load": lambda self: Dataset({"train": ({},), "heldout": ({},)})}, "load", "'train' holds dict", "harness.Example("),
        (
            {"load": lambda self: Dataset({"train": (Example("?"),), "heldout": (Example("!"),)})},
            "load",
            "an example whose prompt is str",
            "harness.Example(harness.Prompt.of(id, text), target)",
        ),
        ({"sizes": lambda self: {"trian": 1}}, "load", "sizes() names a split 'trian'", "one of sft, train, tuning, heldout"),
        ({"provides": frozenset({"targets"})}, "name", "provides is ['targets']", "target, ranked, gold, benchmarks"),
        ({"provides": frozenset({"gold"})}, "provides", "it has no gold()", "define gold() on the class"),
    ],
)
def test_what_a_source_must_not_do(members: Mapping[str, Any], where: str, said: str, fix: str) -> None:
    def load(self: Any) -> Dataset:
        return Dataset({"train": (Example(Prompt.of("a", "why ?")),), "heldout": (Example(Prompt.of("b", "how ?")),)})

    found = told(Leaky, "harness_sources", **{"load": load, **members})
    assert (found[0], said in found[1], fix in found[2]) == (where, True, True), found


def test_what_a_backend_must_not_do() -> None:
    found = told(Echo, "harness_backends", generate=lambda self, policy, prompts, sampling, report=None: None)
    assert found[1:] == ("generate() returned NoneType", "return a list of prompts' lists of harness.Response")
    _, said, fix = told(Echo, "harness_backends", generate=lambda self, policy: [])
    assert "takes 2 positional arguments" in said
    assert fix == f"mend the class Wrong of {__name__}: what it takes and returns is in harness.api.interfaces"


class Reader(Importer):
    """Reads nothing."""

    name: ClassVar[str] = "reader"


def unnamed(self: Importer, paths: Any) -> Any:
    raise DataError("no results")


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda self, paths: None, "read() returned NoneType"),
        (lambda self, paths: [], "a file of another tool gave 0 rows and no error"),
        (unnamed, "the error does not name the file (no results)"),
        (lambda self, paths: {}["annotations"], "it raised KeyError: 'annotations'"),
    ],
)
def test_what_an_importer_must_not_do(read: Any, said: str) -> None:
    found = told(Reader, "harness_importers", read=read)
    assert found[:2] == ("foreign file", said)
    assert "harness.DataError, naming the file" in found[2] or f"mend {__file__}, line " in found[2]


def test_a_method_is_spelt_as_a_component_is() -> None:
    with pytest.raises(PluginError, match="a component called 'My Method'"):
        fault(Method(name="My Method", description="d", data="preference", objective="dpo"), "harness_methods")


# Analyses


def report(**changes: Any) -> Report:
    """A report with a column, a row and a point, and these parts changed."""
    panel = Panel(Axes("across", "up", ["one"]), [Line("line", [1.0])])
    parts = {"columns": ["a"], "rows": [[1]], "figure": Figure("title", [panel]), "findings": [], "method": ["counted"]}
    return Report(**{**parts, **changes})


class Counting(Analysis):
    """An analysis that computes nothing."""

    name: ClassVar[str] = "counting"
    question: ClassVar[str] = "Whether one is one"
    minutes: ClassVar[float] = 1

    def run(self, context: Any) -> Report:
        return report()


def test_an_analysis_that_keeps_to_everything() -> None:
    verdict = verdict_of(Counting, "harness_analyses")
    assert verdict.ok, str(verdict)
    passed = [finding.check for finding in verdict.findings if finding.status == "passed"]
    assert passed[-5:] == ["description", "run", "report", "files", "determinism"]


@pytest.mark.parametrize(
    ("members", "check", "said"),
    [
        ({"question": "It ends."}, "description", "its question is 'It ends.'"),
        ({"question": None}, "description", "its question is None"),
        ({"minutes": 0}, "description", "its minutes are 0"),
        ({"needs": frozenset({"gould"})}, "name", "needs is ['gould']"),
        ({"run": lambda self, context: {"a": 1}}, "run", "run() returned dict"),
        ({"run": lambda self, context: {}["a"]}, "run", "it raised KeyError: 'a'"),
        ({"run": lambda self, context: report(rows=[])}, "report", "its table has no rows"),
        ({"run": lambda self, context: report(rows=[[1], [1, 2]])}, "report", "row 1 has 2 cells for 1 columns"),
        ({"run": lambda self, context: report(rows=[[{}]])}, "report", "row 0 has a cell of type dict"),
        ({"run": lambda self, context: report(figure=Figure("title", []))}, "report", "it has no figure"),
        (
            {"run": lambda self, context: report(figure=Figure("", [Panel(Axes("x", "y", ["1", "2"]), [Line("l", [1.0])])]))},
            "report",
            "the line 'l' has 1 points for 2 places",
        ),
        ({"run": lambda self, context: report(findings=["agrees"])}, "report", "its findings hold str"),
        ({"run": lambda self, context: report(method=[])}, "report", "it does not say how it measures"),
        ({"run": lambda self, context: report(rows=[[random.random()]])}, "determinism", "two runs differ in rows"),
    ],
)
def test_what_an_analysis_must_not_do(members: dict[str, Any], check: str, said: str) -> None:
    annotations = {name: ClassVar[Any] for name in members if name != "run"}
    wrong = type("Wrong", (Counting,), {"__doc__": "Wrong.", "__module__": __name__, "__annotations__": annotations, **members})
    failed = [finding for finding in verdict_of(wrong, "harness_analyses").findings if finding.status == "failed"]
    assert [finding.check for finding in failed] == [check]
    assert all(said in finding.said and finding.fix for finding in failed)


def test_a_field_that_no_command_gives_is_a_fault_of_an_analysis() -> None:
    class Asking(Counting):
        """An analysis with a field that has no default."""

        share: float = Field(gt=0, description="the share")

    (failed,) = [finding for finding in verdict_of(Asking, "harness_analyses").findings if finding.status == "failed"]
    assert failed.check == "behaviour" and "share" in failed.said


# What is printed


def test_checks_that_were_not_run_for_one_reason_take_one_line() -> None:
    skipped = [Finding(name, "not run", "there are no scores", "see above") for name in ("determinism", "samplings")]
    verdict = CheckVerdict("evaluator", "mine", "my-plugin 1.2", "my_plugin", (Finding("metrics", "passed"), *skipped))
    assert str(verdict).splitlines() == [
        "evaluator 'mine' of my-plugin 1.2 (my_plugin) conforms",
        "  ok   metrics",
        "  skip determinism, samplings: there are no scores",
        "                     → see above",
    ]
