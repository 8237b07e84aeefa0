"""Checks of a data builder: whole groups, every prompt accounted for, the same data under the same seed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from harness.api.interfaces import DataBuilder
from harness.api.types import Group, Response
from harness.sandbox.scripted import EXAMPLES, ScriptedBuild
from harness.testing.chance import elsewhere, generators_left_alone
from harness.testing.verdict import Advice, Fault, Finding, run

OWN_RANDOMNESS = "draw from task.rng alone: no random.random(), numpy.random or torch generator of its own, no clock"


def check_builder(builder: DataBuilder) -> Iterator[Finding]:
    """Run every check of a builder, on a scripted policy and the sandbox's prompts, in its first and its second round."""
    yield (first := run("groups", partial(_groups, builder)))
    later = {"account": _account, "determinism": _repeats, "order of sets": _order_of_sets, "responses": _responses}
    for name, check in later.items():
        if first.status == "passed":
            yield run(name, partial(check, builder))
        else:
            yield Finding(name, "not run", "there are no whole groups", "see above")


def build(builder: DataBuilder, round: int = 0) -> tuple[ScriptedBuild, list[Group]]:
    """Build on a scripted task; return the task and the groups."""
    task = ScriptedBuild(builder.required(), round=round, judged=builder.asks_judge())
    groups: Any = builder.build(task)
    if isinstance(groups, Group) or not hasattr(groups, "__iter__"):
        raise Fault(
            f"build() returned {type(groups).__name__}", "yield harness.Group(prompt, chosen, rejected), or return a list"
        )
    return task, list(groups)


def digest(builder: DataBuilder) -> str:
    """Return a hash of the groups that a builder makes."""
    return hashlib.sha256(repr(_content(build(builder)[1])).encode()).hexdigest()


def _groups(builder: DataBuilder) -> None:
    """Check that groups are of the task's own prompts, at most one each."""
    for number in (0, 1):
        task, groups = build(builder, number)
        known = {example.prompt for example in ScriptedBuild().examples}
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
                f"it makes no group from {EXAMPLES} prompts (counted: {dict(task.counted) or 'nothing'})",
                "check what it drops; it met good, poor, empty and cut-off answers",
            )


def _check_group(group: Any) -> None:
    if not isinstance(group, Group):
        raise Fault(f"it yields {type(group).__name__}", "yield harness.Group(prompt, chosen, rejected)")
    kind = type(group.rejected).__name__
    if not isinstance(group.chosen, Response):
        raise Fault(f"a group's chosen is {type(group.chosen).__name__}", "give harness.Response(text)")
    if not isinstance(group.rejected, tuple) or not all(isinstance(item, Response) for item in group.rejected):
        inside = " of ".join([kind, *sorted({type(item).__name__ for item in group.rejected})]) if kind != "str" else kind
        raise Fault(f"a group's rejected is {inside}", "give a tuple of harness.Response, as in (Response(text),)")
    for name, value in group.info.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise Fault(f"a group's info {name!r} is {value!r}", "give finite numbers: the build report averages them")


def _account(builder: DataBuilder) -> None:
    """Check that each prompt gives a group or is counted with a reason: a board shows what a method could not use."""
    task, groups = build(builder)
    counted = sum(task.counted.values())
    if len(groups) + counted != EXAMPLES:
        raise Fault(
            f"of {EXAMPLES} prompts {len(groups)} gave a group and {counted} were counted",
            'call task.count("why") once for each example that gives no group',
        )


def _repeats(builder: DataBuilder) -> None:
    with generators_left_alone(OWN_RANDOMNESS):
        first, second = _content(build(builder)[1]), _content(build(builder)[1])
        if first != second:
            raise Fault("two builds with one seed differ", OWN_RANDOMNESS)


def _order_of_sets(builder: DataBuilder) -> None:
    """Check that another process, where sets of texts have another order, builds the same data."""
    if elsewhere(builder, "harness.testing.builders:digest") != digest(builder):
        raise Fault("two processes build different data", "sort what comes out of a set before anything depends on its order")


def _content(groups: Sequence[Group]) -> list[tuple[object, ...]]:
    return [(group.prompt.id, group.chosen, group.rejected, sorted(group.info.items())) for group in groups]


def _responses(builder: DataBuilder) -> None:
    """Check that no response is empty, and none is chosen and rejected at once: neither can be learnt from."""
    _, groups = build(builder)
    for group in groups:
        if not all(response.text for response in (group.chosen, *group.rejected)):
            raise Fault(f"the group of prompt {group.prompt.id!r} holds an empty response", "leave it out and count it")
        if any((group.chosen.text, group.chosen.finished) == (other.text, other.finished) for other in group.rejected):
            raise Fault(
                f"the group of prompt {group.prompt.id!r} rejects its own chosen response",
                "compare texts, leave it out, count it",
            )
    for group in groups:
        if len({response.text for response in group.rejected}) < len(group.rejected):
            raise Advice(
                f"the group of prompt {group.prompt.id!r} rejects one text twice", "it then counts twice: is that meant?"
            )
