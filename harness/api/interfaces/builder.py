"""The interface of data builders, which make the groups that rows train on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from harness.api.interfaces.component import Component
from harness.api.types import Example, Group, JudgeAnswer, Judgment, Message, Prompt, Response

if TYPE_CHECKING:
    import numpy as np

    from harness.models.reward import Reward
    from harness.models.sentence import SentenceEmbedder


class BuildTask(Protocol):
    """The services that a data builder may ask for.

    Every service goes through the store: two methods that ask for the same samples share them, and a request for 64 reuses the
    32 already there.

    Attributes:
        examples: the prompts of this round, with target and ranked responses where the source has them.
        round: counted from 0.
        rng: seeded by the run and the round.
    """

    examples: Sequence[Example]
    round: int
    rng: random.Random

    def sample(
        self,
        n: int,
        *,
        prefix: str = "",
        temperature: float = 1.0,
        top_p: float = 1.0,
        policy: Literal["start", "current"] = "current",
    ) -> list[list[Response]]:
        """n responses per example from the round's policy; `prefix` goes before the last user turn."""
        ...

    def respond(
        self,
        prompts: Sequence[Prompt],
        n: int = 1,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_tokens: int | None = None,
        policy: Literal["start", "current"] = "current",
    ) -> list[list[Response]]:
        """n responses to each of any prompts, such as a question to the policy about its own answers."""
        ...

    def logps(
        self, responses: Sequence[Sequence[Response]], *, prefix: str = "", policy: Literal["start", "current"] = "current"
    ) -> list[list[float]]:
        """Summed log-probabilities in nats of responses to the examples; `prefix` goes before the last user turn.

        With `run.shards`, what is asked for before a number is read is computed on all devices: ask for all of them first.
        """
        ...

    def similarity(self, embedder: str | SentenceEmbedder, responses: Sequence[Sequence[Response]]) -> list[np.ndarray]:
        """Cosine of each response's embedding with its example's target, one array per example.

        `embedder` is `tfidf` (words and word pairs, inverse document frequency over all texts given) or `hidden` (mean
        last hidden state of the starting policy), or a `SentenceEmbedder`.
        """
        ...

    def reward(self, model: Reward, responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        """A reward's value of each example's responses; equal requests are computed once.

        NaN where there is none: the judge's answer could not be read, or the example has no reference to verify by.
        """
        ...

    def gold(self, responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        """The source's gold reward per example and response; an error where the source has none."""
        ...

    def judge(
        self, conversations: Sequence[Sequence[Message]], parse: Callable[[JudgeAnswer], Any], **parameters: Any
    ) -> list[Judgment]:
        """The reading of each conversation by the config's judge, as `EvaluationTask.judge`; the builder must be `judged`."""
        ...

    def count(self, reason: str, examples: int = 1) -> None:
        """Count examples that gave no group, for the build report."""
        ...


class DataBuilder(Component):
    """Makes the groups a round trains on."""

    needs: ClassVar[frozenset[Literal["target", "ranked", "gold"]]] = frozenset()
    ranks_rejected: ClassVar[bool] = False  # a group's rejected responses are in order, best first
    judged: ClassVar[bool] = False  # asks a judge: the config needs a `judge` section, and its field `judge` may change fields

    def required(self) -> frozenset[str]:
        """Return what it asks of the source with these fields: `needs`, unless a field takes something's place."""
        return self.needs

    def asks_judge(self) -> bool:
        """Return whether it asks a judge with these fields: `judged`, unless a field decides."""
        return self.judged

    def has_rejected(self) -> bool:
        """Whether its groups have rejected responses with these fields."""
        return True

    def responses_per_prompt(self) -> int | None:
        """How many responses `build` asks for per training prompt, over all its requests; None if it cannot tell.

        Progress is shown with it; no result depends on it.
        """
        return None

    def build(self, task: BuildTask) -> Iterable[Group]:
        """Yield at most one group per example of `task.examples`."""
        raise NotImplementedError
