"""The confounders every board must show: length, repetition, empty and truncated answers, distance from the start."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness import EvaluationTask, Metric, ReadResponse, Response, Score
from harness_plugins.evaluators.sampled import SampledEvaluator


class ResponseStats(SampledEvaluator):
    """Statistics of sampled answers.

    `kl` is lp_policy(y) - lp_reference(y) of the policy's own answers, whose mean is the Monte-Carlo estimate of the
    sequence KL(policy || starting model); single values may be negative. It needs samples of the policy itself and is
    reported at temperature 1 alone. A truncated answer contributes the tokens it has. Answers are scored as text: where a
    tokenizer can spell one text in several ways, the tokens scored may not be those sampled.

    With `evaluation.response` in the config, the tokens of thoughts are counted apart. Under `thinking: strip` all but these
    and `kl` are of the answer without thoughts; `kl` is of the whole, as it was sampled.
    """

    name = "response_stats"

    def metrics(self) -> Sequence[Metric]:
        metrics = (
            Metric("tokens", "tokens per answer, where the backend counts them", higher_is_better=None, bounds=(0, None)),
            Metric("characters", "characters per answer", higher_is_better=None, bounds=(0, None)),
            Metric("empty", "share of answers without a word", higher_is_better=False, bounds=(0, 1)),
            Metric("truncated", "share of answers cut off by the length limit", higher_is_better=False, bounds=(0, 1)),
            Metric(
                "thought_tokens",
                "tokens of thoughts, with `evaluation.response`",
                higher_is_better=None,
                optional=True,
                bounds=(0, None),
            ),
            Metric(
                "open_thought",
                "share of answers that end in a thought, as above",
                higher_is_better=False,
                optional=True,
                bounds=(0, 1),
            ),
            Metric(
                "repetition",
                "share of an answer's word 3-grams that occurred in it before",
                higher_is_better=False,
                bounds=(0, 1),
            ),
        )
        kl = Metric("kl", "lp_policy - lp_reference of own answers, nats: estimates KL to the start", higher_is_better=None)
        return (*metrics, kl) if self.temperature == 1 else metrics

    def evaluate(self, task: EvaluationTask) -> Iterable[Score]:
        answers = task.respond(self.sampled)
        for example, responses in zip(task.examples, answers, strict=True):
            for sample, response in enumerate(responses):
                for metric, value in _statistics(response).items():
                    yield Score(example.prompt.id, metric, value, sample)
        if self.temperature != 1:
            return
        policy, reference = task.logps(answers), task.logps(answers, reference=True)
        for example, of_policy, of_reference in zip(task.examples, policy, reference, strict=True):
            for sample, (lp, lr) in enumerate(zip(of_policy, of_reference, strict=True)):
                yield Score(example.prompt.id, "kl", lp - lr, sample)


def _statistics(response: Response) -> dict[str, float]:
    values = {
        "characters": float(len(response.text)),
        "empty": float(not response.text.strip()),
        "truncated": float(not response.finished),
        "repetition": repetition(response.text),
    }
    if isinstance(response, ReadResponse):
        values |= {"thought_tokens": float(response.thought_tokens), "open_thought": float(not response.closed)}
    return values if response.tokens is None else {"tokens": float(response.tokens), **values}


def repetition(text: str) -> float:
    """The share of word 3-grams that occurred before; words are split at white space, and fewer than three repeat nothing."""
    words = text.split()
    grams = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
