"""Swapped targets: a good answer to another question as the negative. An example of a plugin; no paper proposes it."""

from collections.abc import Iterable

from pydantic import Field

from harness import BuildTask, DataBuilder, Group, GroupLogps, Loss, Method, Objective, Response, hookimpl


class SwappedTargets(DataBuilder):
    """The target as chosen, the target of another prompt, drawn at random, as rejected."""

    name = "swapped_targets"
    needs = frozenset({"target"})

    def build(self, task: BuildTask) -> Iterable[Group]:
        targets = sorted({example.target for example in task.examples if example.target})
        for example in task.examples:
            others = [target for target in targets if target != example.target]
            if example.target and others:
                yield Group(example.prompt, Response(example.target), (Response(task.rng.choice(others)),))
            else:
                task.count("no target, or no other one")


class Hinge(Objective):
    """max(0, 1 − β(h⁺ − h⁻)), where h(y) = log π(y|x) − log π_ref(y|x)."""

    name = "example_hinge"
    beta: float = Field(0.1, gt=0, description="scale of the margin")

    def loss(self, batch: GroupLogps) -> Loss:
        chosen = batch.policy.chosen - batch.reference.chosen  # [G], nats
        rejected = batch.policy.rejected - batch.reference.rejected  # [G, M], nats
        margin = self.beta * (chosen[:, None] - rejected)
        return Loss(per_pair=(1 - margin).clamp(min=0), metrics=batch.pair_metrics(margin))


@hookimpl
def harness_data_builders() -> list[type[DataBuilder]]:
    return [SwappedTargets]


@hookimpl
def harness_objectives() -> list[type[Objective]]:
    return [Hinge]


@hookimpl
def harness_methods() -> list[Method]:
    return [
        Method(name="swapped", description="The target, or another prompt's", data="swapped_targets", objective="example_hinge")
    ]
