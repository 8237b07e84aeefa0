"""What a data builder asks of a policy, found by letting it build on a scripted one: for `harness plan --gpu`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.api.interfaces import DataBuilder
from harness.sandbox.scripted import ScriptedBuild
from harness.api.types import Prompt, Response

Request = tuple[Any, ...]  # what two requests must have in common to share their samples


@dataclass(frozen=True)
class Demand:
    """Per prompt of a round.

    Attributes:
        samples: request -> samples drawn; of two builders with one request the larger serves both.
        scored: responses whose log-probability is asked for.
        negatives: rejected responses of a group, on average.
        known: False where the builder could not be run on the script; the rest is then a guess of one negative.
    """

    samples: dict[Request, float] = field(default_factory=dict)
    scored: float = 0.0
    negatives: float = 1.0
    known: bool = True


class _Counting(ScriptedBuild):
    """The scripted task, and what it was asked for."""

    def __init__(self, builder: DataBuilder, round: int) -> None:
        super().__init__(builder.required(), round=round)
        self.drawn: dict[Request, float] = {}
        self.scored = self.answers = 0

    def _answer(self, prompt: Prompt, *reason: object) -> Response:
        """A whole answer, and another one each time: what a builder leaves out of a script says nothing of a real policy."""
        self.answers += 1
        return Response(f"{super()._answer(prompt, *reason).text} {self.answers}".strip())

    def sample(self, n: int, **asked: Any) -> list[list[Response]]:
        request = ("sample", *sorted(asked.items()))
        self.drawn[request] = max(n, self.drawn.get(request, 0))
        return super().sample(n, **asked)

    def respond(self, prompts: Sequence[Prompt], n: int = 1, **asked: Any) -> list[list[Response]]:
        request = ("respond", len(self.drawn), *sorted(asked.items()))
        self.drawn[request] = n * len(prompts) / len(self.examples)
        return super().respond(prompts, n, **asked)

    def logps(self, responses: Sequence[Sequence[Response]], **asked: Any) -> list[list[float]]:
        self.scored += sum(map(len, responses))
        return super().logps(responses, **asked)


def probe(builder: DataBuilder, round: int = 0) -> Demand:
    """Build sixteen prompts of a scripted policy, and count."""
    task = _Counting(builder, round)
    try:
        groups = list(builder.build(task))
    except Exception:  # a plugin that the script does not suit: its own checks say why
        groups = []
    if not groups:
        return Demand(known=False)
    negatives = sum(len(group.rejected) for group in groups) / len(groups)
    return Demand(task.drawn, task.scored / len(task.examples), negatives)
