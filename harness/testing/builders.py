"""What a data builder must keep to: whole groups, every prompt accounted for, the same data under the same seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

from harness.interfaces import DataBuilder
from harness.testing.scripted import ScriptedBuild
from harness.testing.verdict import Fault, Finding, run
from harness.types import Group, Response


def check_builder(builder: DataBuilder) -> Iterator[Finding]:
    """Every check of a builder, on a scripted policy and the sandbox's prompts, in its first round and in its second."""
    for name, check in (("groups", _groups), ("account", _account), ("determinism", _repeats), ("responses", _responses)):
        yield run(name, partial(check, builder))


def _build(builder: DataBuilder, round: int = 0) -> tuple[ScriptedBuild, list[Group]]:
    task = ScriptedBuild(builder.required(), round=round)
    return task, list(builder.build(task))


def _groups(builder: DataBuilder) -> None:
    """Groups of the task's own prompts, at most one each."""
    for number in (0, 1):
        task, groups = _build(builder, number)
        known = {example.prompt for example in task.examples}
        for group in groups:
            _check_group(group)
            if group.prompt not in known:
                raise Fault(
                    f"a group's prompt {group.prompt.id!r} is not one of the task's",
                    "give example.prompt as it is: prefixes are for sampling (task.sample(prefix=…)), not for training",
                )
        names = [group.prompt.id for group in groups]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise Fault(
                f"it gives several groups for one prompt ({twice[0]!r})",
                "give one group with several rejected responses, or every method's budget counts differently",
            )
        if not groups:
            raise Fault(
                f"it makes no group from {len(task.examples)} prompts (counted: {dict(task.counted) or 'nothing'})",
                "check what it drops; it met good, poor, empty and cut-off answers",
            )


def _check_group(group: Group) -> None:
    if not isinstance(group, Group):
        raise Fault(f"it yields {type(group).__name__}", "yield harness.Group(prompt, chosen, rejected)")
    if not isinstance(group.rejected, tuple) or not all(isinstance(item, Response) for item in (group.chosen, *group.rejected)):
        raise Fault(
            f"a group holds {group!r}", "give harness.Response for chosen, and a tuple of harness.Response for rejected"
        )
    for name, value in group.info.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise Fault(f"a group's info {name!r} is {value!r}", "give finite numbers: the build report averages them")


def _account(builder: DataBuilder) -> None:
    """Each prompt gives a group or is counted with a reason: a board says what a method could not use."""
    task, groups = _build(builder)
    counted = sum(task.counted.values())
    if len(groups) + counted != len(task.examples):
        raise Fault(
            f"of {len(task.examples)} prompts {len(groups)} gave a group and {counted} were counted",
            'call task.count("why") once for each example that gives no group',
        )


def _repeats(builder: DataBuilder) -> None:
    if _said(_build(builder)[1]) != _said(_build(builder)[1]):
        raise Fault(
            "two builds with one seed differ",
            "draw from task.rng alone: no random.random(), numpy.random or torch generator of its own, no order of a set",
        )


def _said(groups: Sequence[Group]) -> list[tuple[object, ...]]:
    return [(group.prompt.id, group.chosen, group.rejected, dict(group.info)) for group in groups]


def _responses(builder: DataBuilder) -> None:
    """Nothing empty, nothing that is chosen and rejected at once: neither can be learnt from."""
    _, groups = _build(builder)
    for group in groups:
        if not all(response.text for response in (group.chosen, *group.rejected)):
            raise Fault(f"the group of prompt {group.prompt.id!r} holds an empty response", "leave it out and count it")
        if any((group.chosen.text, group.chosen.finished) == (other.text, other.finished) for other in group.rejected):
            raise Fault(
                f"the group of prompt {group.prompt.id!r} rejects its own chosen response",
                "compare texts, leave it out, count it",
            )
