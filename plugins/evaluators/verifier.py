"""Verifiable answers: the share of a policy's answers that a rule finds right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field, model_validator

from harness import EvaluationTask, Metric, Response, Sampling, Score, Verdict, Verifier
from harness_plugins.evaluators.sampled import SampledEvaluator


class VerifiedAnswers(SampledEvaluator):
    """The share of right answers by GSM8K's, MATH's or multiple choice's rule, or by a Python function.

    Examples without a reference get no score, and are counted in the row's provenance.
    """

    name = "verifier"

    max_tokens: int = Field(512, ge=1, description="the longest answer, in tokens: long enough to reason in")
    checker: str = Field(description=Verifier.model_fields["checker"].description)
    reference: Literal["target", "reference"] | None = Field(
        "target", description=Verifier.model_fields["reference"].description
    )

    @model_validator(mode="after")
    def _can_verify(self) -> VerifiedAnswers:
        self.verifier()
        return self

    def verifier(self) -> Verifier:
        """Return the rule that marks answers."""
        return Verifier(checker=self.checker, reference=self.reference)

    def required(self) -> frozenset[str]:
        return self.verifier().needs

    def problems(self) -> Sequence[tuple[str, str]]:
        return self.verifier().problems()

    def fingerprint(self) -> str:
        return self.verifier().fingerprint()

    def metrics(self) -> Sequence[Metric]:
        drawn = f"answers sampled at T = {self.temperature:g}"
        return (
            Metric("accuracy", f"share of {drawn} that {self.checker} finds right", primary=True, bounds=(0, 1)),
            Metric("greedy_accuracy", "1 where the greedy answer is right", bounds=(0, 1)),
            Metric("any_right", f"1 where one of {self.n} {drawn} is right (pass@{self.n})", bounds=(0, 1)),
            Metric(
                "unread",
                f"share of {drawn} without a final answer to read: they count as wrong",
                higher_is_better=False,
                bounds=(0, 1),
            ),
        )

    @property
    def greedy(self) -> Sampling:
        return Sampling(n=1, temperature=0.0, max_tokens=self.max_tokens)

    def samplings(self) -> Sequence[Sampling]:
        return (self.sampled, self.greedy)

    def evaluate(self, task: EvaluationTask) -> Iterable[Score]:
        sampled = self._verdicts(task, task.respond(self.sampled))
        greedy = self._verdicts(task, task.respond(self.greedy))
        if missing := sum(verdicts is None for verdicts in sampled):
            task.note("without_reference", missing)
        for example, drawn, best in zip(task.examples, sampled, greedy, strict=True):
            if drawn is None or best is None:
                continue
            name = example.prompt.id
            for sample, verdict in enumerate(drawn):
                yield Score(name, "accuracy", verdict.value, sample)
                yield Score(name, "unread", float(not verdict.read), sample)
            yield Score(name, "any_right", max(verdict.value for verdict in drawn))
            yield Score(name, "greedy_accuracy", best[0].value)

    def _verdicts(self, task: EvaluationTask, answers: Sequence[Sequence[Response]]) -> list[list[Verdict] | None]:
        return self.verifier().verdicts(task.examples, answers)
