"""Does the policy's implicit reward agree with held-out preferences?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from harness import EvaluationTask, Evaluator, Metric, Response, Score, UnavailableError


class PreferenceAccuracy(Evaluator):
    """The response ranked first against the one ranked last, under the implicit reward h(y) = lp_policy(y) - lp_reference(y).

    The reference is the starting model. DPO's factor beta scales h and cannot change its sign, so it is left out. An exact
    tie counts half: the starting model itself, whose h is 0 everywhere, reads 0.5. Sums over tokens, not means, as in the
    reward that DPO trains. Examples with fewer than two ranked responses get no score.
    """

    name = "preference_accuracy"
    needs = frozenset({"ranked"})
    divisible: ClassVar[bool] = True

    def metrics(self) -> Sequence[Metric]:
        return (
            Metric(
                "pair_accuracy",
                "share of pairs whose implicit reward prefers the chosen one; a tie is half",
                primary=True,
                bounds=(0, 1),
            ),
            Metric("margin", "implicit reward of the chosen response minus the rejected one's, nats", higher_is_better=None),
            Metric(
                "likelihood",
                "share of pairs whose chosen response is the likelier under the policy alone; a tie is half",
                bounds=(0, 1),
            ),
        )

    def evaluate(self, task: EvaluationTask) -> Iterable[Score]:
        pairs = [_pair(example.ranked) for example in task.examples]
        # Both are asked for before a number is looked at: so they can be computed in shards.
        policy, reference, lacking = task.logps(pairs), list[list[float]](), None
        try:
            reference = task.logps(pairs, reference=True)
        except UnavailableError as error:  # some models have nothing that the reference's could be compared with
            lacking = error
        for example, pair, lp in zip(task.examples, pairs, policy, strict=True):
            if pair:
                yield Score(example.prompt.id, "likelihood", _preferred(lp[0], lp[1]))
        if lacking is not None:
            raise lacking
        for example, pair, lp, lr in zip(task.examples, pairs, policy, reference, strict=True):
            if not pair:
                continue
            chosen, rejected = lp[0] - lr[0], lp[1] - lr[1]
            yield Score(example.prompt.id, "pair_accuracy", _preferred(chosen, rejected))
            yield Score(example.prompt.id, "margin", chosen - rejected)


def _pair(ranked: Sequence[str]) -> list[Response]:
    """The first and the last of a ranking; nothing where there are not two."""
    return [Response(ranked[0]), Response(ranked[-1])] if len(ranked) > 1 else []


def _preferred(chosen: float, rejected: float) -> float:
    return 0.5 * ((chosen > rejected) + (chosen >= rejected))
