"""Shuffled words: can a policy learn order alone?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from pydantic import Field

from harness import BuildTask, DataBuilder, Group, GroupLogps, Loss, Method, Objective, Response, hookimpl


class ShuffledWordsData(DataBuilder):
    """The target as chosen, its words in another order as rejected."""

    name: ClassVar[str] = "shuffled_words"
    needs = frozenset({"target"})

    def build(self, task: BuildTask) -> Iterable[Group]:
        for example in task.examples:
            words = (example.target or "").split()
            shuffled = " ".join(task.rng.sample(words, len(words)))
            if shuffled == " ".join(words):
                task.count("no other order of the target's words")
            else:
                yield Group(example.prompt, Response(" ".join(words)), (Response(shuffled),))


class ShuffledWords(Objective):
    """−log σ(β(h⁺/n⁺ − h⁻/n⁻)), where h(y) = log π(y|x) − log π_ref(y|x) and n(y) counts the response's tokens."""

    name: ClassVar[str] = "shuffled_words"

    beta: float = Field(1.0, gt=0, description="scale of the margin per token")

    def loss(self, batch: GroupLogps) -> Loss:
        from torch.nn.functional import logsigmoid

        assert batch.reference is not None
        policy, reference = batch.policy, batch.reference
        chosen = (policy.chosen - reference.chosen) / policy.chosen_tokens  # [G], nats per token
        rejected = (policy.rejected - reference.rejected) / policy.rejected_tokens  # [G, M]
        margin = self.beta * (chosen[:, None] - rejected)
        return Loss(per_pair=-logsigmoid(margin), metrics=batch.pair_metrics(margin))


@hookimpl
def harness_data_builders() -> list[type[DataBuilder]]:
    return [ShuffledWordsData]


@hookimpl
def harness_objectives() -> list[type[Objective]]:
    return [ShuffledWords]


@hookimpl
def harness_methods() -> list[Method]:
    words = "The target against its own words in another order"
    return [Method(name="shuffled_words", description=words, data="shuffled_words", objective="shuffled_words")]
