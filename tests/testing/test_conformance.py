"""Every built-in component conforms; broken ones are told what is wrong and how to mend it."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pydantic import Field

from harness import (
    Backend,
    BuildTask,
    ChatTemplate,
    DataBuilder,
    Dataset,
    EvaluationTask,
    Evaluator,
    Example,
    Group,
    GroupLogps,
    HarnessError,
    Loss,
    Method,
    Metric,
    Objective,
    Paper,
    PluginError,
    Policy,
    Prompt,
    Response,
    Sampling,
    Score,
    Source,
    hookimpl,
)
from harness.api.registry import KINDS, Kind, Registry
from harness.sandbox.untrained import untrained_policy
from harness.testing import CheckVerdict, assert_conforms, check
from harness.testing.conformance import check_registered

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "train_dpo.py"
SMALL: dict[str, dict[str, Any]] = {
    "sandbox": {"sft": 20, "train": 20, "tuning": 5, "heldout": 20},
    "lm_eval": {"limit": 1},
    "trl": {"trainer": "dpo"},
    "command": {"command": f"{sys.executable} {SCRIPT} --start {{start}} --data {{data}} --out {{out}} --seed {{seed}}"},
}
BUILT_IN = [
    # tests/cli/test_analyze.py runs every analysis on a tiny comparison; here each starts worker processes as well.
    pytest.param(kind, name, marks=[pytest.mark.slow] if name == "lm_eval" or kind == "analysis" else [], id=f"{kind}-{name}")
    for kind in KINDS
    for name in Registry.load().names(kind)
]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.mark.parametrize(("kind", "name"), BUILT_IN)
def test_every_built_in_component_conforms(kind: Kind, name: str, registry: Registry) -> None:
    verdict = check_registered(registry.get(kind, name), registry, SMALL.get(name, {}))
    assert verdict.ok, str(verdict)


def verdict_of(component: Any, hook: str) -> CheckVerdict:
    """A component given in code, checked."""

    class Plugin:
        pass

    def register(self: Any) -> list[Any]:
        return [component]

    register.__name__ = hook
    setattr(Plugin, hook, hookimpl(register))
    (verdict,) = check(component.name, registry=Registry.load(extra=[Plugin()]))
    return verdict


def fault(component: Any, hook: str) -> tuple[str, str, str]:
    """The first fault: (check, what was found, the fix)."""
    verdict = verdict_of(component, hook)
    assert not verdict.ok, str(verdict)
    assert repr(component.name) in str(verdict)
    first = verdict.failed[0]
    return first.check, first.said, first.fix


# Objectives


class Margin(Objective):
    """−log σ of the policy's own margin: the smallest objective that conforms."""

    name: ClassVar[str] = "margin"
    paper: ClassVar[Paper | None] = Paper("A title", "2305.18290")
    needs_reference: ClassVar[bool] = False

    def margin(self, batch: GroupLogps) -> torch.Tensor:
        return batch.policy.chosen[:, None] - batch.policy.rejected

    def loss(self, batch: GroupLogps) -> Loss:
        return Loss(per_pair=-torch.nn.functional.logsigmoid(self.margin(batch)))


class Mean(Margin):
    """The mean over the batch instead of each pair's loss."""

    def loss(self, batch: GroupLogps) -> Loss:
        return Loss(per_pair=self.margin(batch).mean())


class WithoutMask(Margin):
    """A sum over negatives that counts slots without one."""

    def loss(self, batch: GroupLogps) -> Loss:
        return Loss(per_group=(self.margin(batch) ** 2).mean(1))


class NotFinite(Margin):
    """log σ written out, which overflows."""

    def loss(self, batch: GroupLogps) -> Loss:
        return Loss(per_pair=(1 + (-self.margin(batch)).exp()).log())


class InSinglePrecision(Margin):
    """Everything cast to single precision."""

    def loss(self, batch: GroupLogps) -> Loss:
        return Loss(per_pair=-torch.nn.functional.logsigmoid(self.margin(batch).float()))


class Ordered(Margin):
    """The first negative counts more."""

    def loss(self, batch: GroupLogps) -> Loss:
        weights = torch.arange(1, batch.policy.rejected.shape[1] + 1, dtype=torch.float64)
        return Loss(per_pair=-torch.nn.functional.logsigmoid(self.margin(batch)) / weights)


class ThroughTheView(Margin):
    """A margin under another prompt, with its gradient."""

    def views(self) -> Mapping[str, Callable[[Prompt], Prompt]]:
        return {"other": lambda prompt: prompt.prefixed("please")}

    def loss(self, batch: GroupLogps) -> Loss:
        view = batch.views["other"].policy
        return Loss(per_pair=-torch.nn.functional.logsigmoid(self.margin(batch) - (view.chosen[:, None] - view.rejected)))


class Noisy(Margin):
    """Noise without a seed."""

    def loss(self, batch: GroupLogps) -> Loss:
        return Loss(per_pair=self.margin(batch) * torch.rand(()))


class BatchBaseline(Margin):
    """Groups compared with the batch's mean."""

    def loss(self, batch: GroupLogps) -> Loss:
        margin = self.margin(batch)
        return Loss(per_pair=(margin - batch.policy.chosen.mean()) ** 2)


class InPlace(Margin):
    """The batch changed under the trainer's hands."""

    def loss(self, batch: GroupLogps) -> Loss:
        loss = Loss(per_pair=-torch.nn.functional.logsigmoid(self.margin(batch)))
        batch.policy.chosen_tokens.add_(1)
        return loss


class WithoutGradient(Margin):
    """A loss of detached numbers."""

    def loss(self, batch: GroupLogps) -> Loss:
        return Loss(per_pair=self.margin(batch).detach())


class Crash(Margin):
    """A reference that was not asked for."""

    def loss(self, batch: GroupLogps) -> Loss:
        return Loss(per_pair=batch.reference.chosen)  # type: ignore[union-attr]


def test_the_smallest_objective_conforms() -> None:
    verdict = verdict_of(Margin, "harness_objectives")
    assert {finding.status for finding in verdict.findings} == {"passed"}
    assert str(verdict).startswith("objective 'margin' of (given in code) (test_conformance) conforms\n")


@pytest.mark.parametrize(
    ("objective", "where", "said", "fix"),
    [
        (Mean, "loss", "per_pair has shape [] for 4 groups of at most 3 negatives", "return [4, 3], [G, M], one value each"),
        (WithoutMask, "mask", "changes with what stands in slots without a response", "masked_fill(~batch.policy.mask, 0.0)"),
        (NotFinite, "gradients", "is not finite for unlikely responses", "use logsigmoid"),
        (InSinglePrecision, "float64", "a batch in float64 gives a loss in torch.float32", "no tensors of a fixed dtype"),
        (Ordered, "order", "changes with the order of the negatives", "ranks_rejected: ClassVar[bool] = True"),
        (
            ThroughTheView,
            "views",
            "a gradient in batch.views['other'].policy.chosen",
            "write .detach() where batch.views['other']",
        ),
        (Noisy, "determinism", "two calls on one batch differ in the loss", "no random numbers"),
        (BatchBaseline, "groups", "groups trained on one by one give", "no mean, maximum or rank over the batch"),
        (InPlace, "inputs", "loss() changes the batch it is given", "x + y instead of x += y"),
        (WithoutGradient, "loss", "does not depend on the policy's log-probabilities", "compute it from batch.policy"),
        (
            Crash,
            "loss",
            "batch.reference and batch.mismatched were not asked for",
            "set needs_reference: ClassVar[bool] = True",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_broken_objective_is_told_what_and_how(objective: type[Objective], where: str, said: str, fix: str) -> None:
    objective.name = "broken"
    found = fault(objective, "harness_objectives")
    assert found[0] == where
    assert said in found[1]
    assert fix in found[2]


def test_a_ranking_may_depend_on_its_order() -> None:
    class Ranked(Ordered):
        """The same, said."""

        name: ClassVar[str] = "ranked"
        ranks_rejected: ClassVar[bool] = True

    assert verdict_of(Ranked, "harness_objectives").ok


# Documentation


class Undocumented(Margin):
    name: ClassVar[str] = "undocumented"
    beta: float = 0.1


class HalfDocumented(Undocumented):
    """Something."""

    name: ClassVar[str] = "half_documented"


class WrongPaper(Margin):
    """Something."""

    name: ClassVar[str] = "wrong_paper"
    paper: ClassVar[Paper | None] = Paper("A title", "arXiv:2305.18290v2")


class Spelling(Margin):
    """Something."""

    name: ClassVar[str] = "My-Loss"


@pytest.mark.parametrize(
    ("objective", "where", "said", "fix"),
    [
        (Undocumented, "documentation", "the class has no docstring", "say in one line what it computes"),
        (HalfDocumented, "documentation", "no description of beta", "write beta: … = Field(…, description="),
        (WrongPaper, "paper", "the paper's arXiv number is 'arXiv:2305.18290v2'", "as in '2305.18290'"),
        (Spelling, "name", "its name is 'My-Loss'", "small letters, digits and single underscores"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_must_be_said_of_a_component(objective: type[Objective], where: str, said: str, fix: str) -> None:
    found = fault(objective, "harness_objectives")
    assert (found[0], said in found[1], fix in found[2]) == (where, True, True)


def test_fields_without_bounds_and_without_a_paper_are_advice() -> None:
    class Loose(Margin):
        """Something."""

        name: ClassVar[str] = "loose"
        paper: ClassVar[Paper | None] = None
        beta: float = Field(0.1, description="scale")

    verdict = verdict_of(Loose, "harness_objectives")
    assert verdict.ok
    assert [finding.check for finding in verdict.findings if finding.status == "advice"] == ["bounds", "search spaces", "paper"]


def test_required_fields_can_be_given() -> None:
    class Required(Margin):
        """Something."""

        name: ClassVar[str] = "required"
        beta: float = Field(gt=0, description="scale")

    class Plugin:
        @hookimpl
        def harness_objectives(self) -> list[type[Objective]]:
            return [Required]

    registry = Registry.load(extra=[Plugin()])
    (without,) = check("required", registry=registry)
    assert without.ok and without.findings[-1].status == "not run"
    (given,) = check("required", {"beta": 0.5}, registry=registry)
    assert given.ok and given.findings[-1].status == "passed"
    (refused,) = check("required", {"beta": -1}, registry=registry)
    assert not refused.ok and "beta = -1" in refused.failed[0].said


# Builders


class Targets(DataBuilder):
    """The target alone: the smallest builder that conforms."""

    name: ClassVar[str] = "broken"
    needs = frozenset({"target"})

    def build(self, task: BuildTask) -> Iterable[Group]:
        for example in task.examples:
            if example.target:
                yield Group(example.prompt, Response(example.target), self.rejected(task, example.target))
            else:
                task.count("no target")

    def rejected(self, task: BuildTask, target: str) -> tuple[Response, ...]:
        return (Response(f"{target} ."),)


class OwnRandom(Targets):
    """Python's own generator."""

    def rejected(self, task: BuildTask, target: str) -> tuple[Response, ...]:
        return (Response(f"{random.random()}"),)


class Silent(Targets):
    """Drops without counting."""

    def build(self, task: BuildTask) -> Iterable[Group]:
        return [group for group in super().build(task) if len(group.chosen.text) % 2]


class Prefixed(Targets):
    """Trains on the prefixed prompt."""

    def build(self, task: BuildTask) -> Iterable[Group]:
        for group in super().build(task):
            yield Group(group.prompt.prefixed("please"), group.chosen, group.rejected)


class Lists(Targets):
    """A list of texts."""

    def rejected(self, task: BuildTask, target: str) -> tuple[Response, ...]:
        return [target]  # type: ignore[return-value]


class Peeks(Targets):
    """Gold that was not asked for."""

    def build(self, task: BuildTask) -> Iterable[Group]:
        task.gold([[Response("a")] for _ in task.examples])
        return super().build(task)


class Itself(Targets):
    """The chosen response rejected."""

    def rejected(self, task: BuildTask, target: str) -> tuple[Response, ...]:
        return (Response(target),)


class NoTarget(Targets):
    """Relies on every example's target."""

    def build(self, task: BuildTask) -> Iterable[Group]:
        for example in task.examples:
            yield Group(example.prompt, Response(example.target.strip()), (Response("x"),))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("builder", "where", "said", "fix"),
    [
        (OwnRandom, "determinism", "two builds with one seed differ", "draw from task.rng alone"),
        (Silent, "account", "gave a group and 1 were counted", 'call task.count("why")'),
        (Prefixed, "groups", "is not one of the task's", "give example.prompt as it is"),
        (Lists, "groups", "a group's rejected is list of str", "give a tuple of harness.Response"),
        (Peeks, "groups", "it asks for task.gold, and its needs do not name 'gold'", "add 'gold' to `needs`"),
        (Itself, "responses", "rejects its own chosen response", "leave it out, count it"),
        (NoTarget, "groups", "it raised AttributeError", "test_conformance.py, line "),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_broken_builder_is_told_what_and_how(builder: type[DataBuilder], where: str, said: str, fix: str) -> None:
    found = fault(builder, "harness_data_builders")
    assert found[0] == where
    assert said in found[1]
    assert fix in found[2]


# Evaluators


class Length(Evaluator):
    """Words of one answer: the smallest evaluator that conforms."""

    name: ClassVar[str] = "broken"

    def metrics(self) -> list[Metric]:
        return [Metric("words", "words per answer", higher_is_better=None)]

    def samplings(self) -> list[Sampling]:
        return [Sampling()]

    def evaluate(self, task: EvaluationTask) -> Iterable[Score]:
        for example, (answer,) in zip(task.examples, task.respond(Sampling()), strict=True):
            yield Score(example.prompt.id, "words", self.value(answer))

    def value(self, answer: Response) -> float:
        return float(len(answer.text.split()))


class Undeclared(Length):
    """Another name in metrics()."""

    def metrics(self) -> list[Metric]:
        return [Metric("characters", "characters per answer")]


class NotANumber(Length):
    """A mean of nothing."""

    def value(self, answer: Response) -> float:
        return float("nan")


class OutOfBounds(Length):
    """A share in percent."""

    def metrics(self) -> list[Metric]:
        return [Metric("words", "share of words", bounds=(0, 1))]


class Dice(Length):
    """Chance."""

    def value(self, answer: Response) -> float:
        return random.random()


class Twice(Length):
    """Two scores in one place."""

    def evaluate(self, task: EvaluationTask) -> Iterable[Score]:
        return [*super().evaluate(task), *super().evaluate(task)]


@pytest.mark.parametrize(
    ("evaluator", "where", "said", "fix"),
    [
        (Undeclared, "scores", "it scores 'words'", "name it in metrics(), which has characters"),
        (NotANumber, "scores", "the 'words' of 'train-0' is nan", "no score for it"),
        (OutOfBounds, "scores", "and its bounds are (0, 1)", "correct its bounds"),
        (Dice, "determinism", "two evaluations of one policy differ", "task.seed"),
        (Twice, "scores", "twice (example, metric, sample)", "Score.sample"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_broken_evaluator_is_told_what_and_how(evaluator: type[Evaluator], where: str, said: str, fix: str) -> None:
    found = fault(evaluator, "harness_evaluators")
    assert found[0] == where
    assert said in found[1]
    assert fix in found[2]


def test_an_evaluator_that_needs_what_is_not_here_is_not_run() -> None:
    class NeedsServer(Length):
        """A judge far away."""

        name: ClassVar[str] = "needs_server"

        def evaluate(self, task: EvaluationTask) -> Iterable[Score]:
            raise HarnessError("no judge answers at http://localhost")

    verdict = verdict_of(NeedsServer, "harness_evaluators")
    assert verdict.ok
    statuses = {finding.check: finding.status for finding in verdict.findings}
    assert (statuses["metrics"], statuses["scores"], statuses["determinism"]) == ("passed", "not run", "not run")


# Backends, sources and methods


class Echo(Backend):
    """The prompt's first words: the smallest backend that conforms."""

    name: ClassVar[str] = "broken"

    def generate(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        report: Callable[[int, int], None] | None = None,
    ) -> list[list[Response]]:
        answers = [[self.said(prompt) for _ in range(sampling.n)] for prompt in prompts]
        if report is not None:
            report(sampling.n * len(prompts), sampling.n * len(prompts))
        return answers

    def said(self, prompt: Prompt) -> Response:
        return Response(prompt.text[:4], tokens=2)


class Restless(Echo):
    """Another answer each time."""

    def said(self, prompt: Prompt) -> Response:
        return Response(str(random.random()), tokens=2)


class Talkative(Echo):
    """Past the limit."""

    def said(self, prompt: Prompt) -> Response:
        return Response(prompt.text, tokens=1000)


class Mistaken(Echo):
    """Ids of another text."""

    def said(self, prompt: Prompt) -> Response:
        return Response(prompt.text[:4], tokens=2, ids=(50, 3))


class Endless(Echo):
    """Past the end of its turn."""

    def said(self, prompt: Prompt) -> Response:
        tokenizer = untrained_policy()[1]
        return ChatTemplate(tokenizer).sampled([50, tokenizer.eos_token_id, 51], finished=False)


class Single(Echo):
    """One answer whatever is asked for."""

    def generate(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        report: Callable[[int, int], None] | None = None,
    ) -> list[list[Response]]:
        return [[self.said(prompt)] for prompt in prompts]


def test_the_smallest_backend_conforms() -> None:
    assert verdict_of(Echo, "harness_backends").ok


@pytest.mark.parametrize(
    ("backend", "said", "fix"),
    [
        (Restless, "one seed gives two answers", "seeded by sampling.seed"),
        (Talkative, "an answer is longer than sampling.max_tokens", "Response.finished to False"),
        (Mistaken, "an answer's ids are not those of its text", "sampled(ids, finished), or leave ids out"),
        (Endless, "an answer goes on after a token that ends it", "end it at each of policy.stop_ids"),
        (Single, "it gave [1, 1] answers", "give 3 per prompt, in the prompts' order"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_broken_backend_is_told_what_and_how(backend: type[Backend], said: str, fix: str) -> None:
    found = fault(backend, "harness_backends")
    assert found[0] == "generate"
    assert said in found[1]
    assert fix in found[2]


def test_a_source_that_draws_without_a_seed() -> None:
    class Lottery(Source):
        """Other questions each time."""

        name: ClassVar[str] = "lottery"

        def load(self) -> Dataset:
            drawn = [Example(Prompt.of(f"{index}", f"why {random.random()} ?"), "because") for index in range(2)]
            return Dataset({"train": (drawn[0],), "heldout": (drawn[1],)})

    where, said, fix = fault(Lottery, "harness_sources")
    assert (where, said) == ("determinism", "two loads differ")
    assert "seed what is drawn with a field" in fix


class Leaky(Source):
    """One prompt everywhere."""

    name: ClassVar[str] = "leaky"

    def load(self) -> Dataset:
        examples = (Example(Prompt.of("a", "why ?"), "because"),)
        return Dataset({"train": examples, "heldout": examples})


def test_a_source_whose_evaluation_is_in_its_training() -> None:
    where, said, fix = fault(Leaky, "harness_sources")
    assert (where, fix) == ("splits", "split by the prompt's text")
    assert said == "1 prompts are in 'train' and in 'heldout' ('why ?')"


def test_a_method_that_names_no_builder() -> None:
    method = Method(name="lost", description="d", data="self_contrst", objective="dpo")
    where, said, _ = fault(method, "harness_methods")
    assert where == "parts"
    assert "did you mean 'self_contrast'" in said


# The functions themselves


def test_a_name_that_nobody_registered() -> None:
    with pytest.raises(PluginError, match="nothing is called 'dop': did you mean 'dpo'"):
        check("dop")


def test_assert_conforms_prints_the_verdict() -> None:
    assert_conforms("dpo", beta=0.5)
    with pytest.raises(AssertionError, match=r"FIX  behaviour +beta = -1"):
        assert_conforms("dpo", beta=-1)
