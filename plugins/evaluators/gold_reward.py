"""The source's own gold reward of the policy's answers: sampled, greedy, and what it is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness import EvaluationTask, Metric, Response, Sampling, Score
from harness_plugins.evaluators.sampled import SampledEvaluator

SAMPLED_MARKS = {"gold": "total", "chosen": "chosen", "known": "known", "degenerate": "degenerate"}
GREEDY_MARKS = {"greedy_gold": "total"}


class GoldReward(SampledEvaluator):
    """Mean gold reward of sampled answers, and of the greedy answer.

    Sampled answers come first: among interchangeable phrasings greedy decoding hides what the policy has learnt. A source
    may report `total` alone; a metric whose mark it does not report gets no scores.
    """

    name = "gold_reward"
    needs = frozenset({"gold"})

    def metrics(self) -> Sequence[Metric]:
        drawn = f"answers sampled at T = {self.temperature:g}"
        return (
            Metric("gold", f"gold reward of {drawn}", primary=True),
            Metric("greedy_gold", "gold reward of the greedy answer"),
            Metric("chosen", f"what the author of an answer chooses (style, format, number), {drawn}"),
            Metric("known", f"what the author of an answer must know, {drawn}"),
            Metric("degenerate", f"share of degenerate answers, {drawn}", higher_is_better=False, bounds=(0, 1)),
        )

    @property
    def greedy(self) -> Sampling:
        return Sampling(n=1, temperature=0.0, max_tokens=self.max_tokens)

    def samplings(self) -> Sequence[Sampling]:
        return (self.sampled, self.greedy)

    def evaluate(self, task: EvaluationTask) -> Iterable[Score]:
        yield from _scores(task, task.respond(self.sampled), SAMPLED_MARKS)
        yield from _scores(task, task.respond(self.greedy), GREEDY_MARKS)


def _scores(task: EvaluationTask, answers: Sequence[Sequence[Response]], names: Mapping[str, str]) -> Iterator[Score]:
    """One score per example, answer and metric; `names` maps metrics to the source's marks."""
    for example, responses in zip(task.examples, answers, strict=True):
        for sample, response in enumerate(responses):
            marks = task.gold(example, response)
            for metric, mark in names.items():
                if mark in marks:
                    yield Score(example.prompt.id, metric, float(marks[mark]), sample)
