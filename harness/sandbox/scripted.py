"""Tasks whose policy is a script: they answer a component at once, without a model, and always the same.

Examples are the sandbox's. Answers are picked from good, half-good and foreign ones, some empty, some cut off, so that a
component meets what policies really say.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from harness import sandbox
from harness.api.interfaces import BuildTask, EvaluationTask
from harness.api.types import Example, JudgeAnswer, Judgment, Message, Prompt, Response, Sampling
from harness.errors import HarnessError, did_you_mean
from harness.sandbox.untrained import untrained_policy

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.models.reward import Reward
    from harness.models.sentence import SentenceEmbedder

EXAMPLES = 16
_EMPTY, _CUT = 0.08, 0.08  # shares of answers that say nothing, and that end at the length limit


class Fault(Exception):  # noqa: N818  a verdict on a component, not an error of the run
    """A fault of a component, and its fix; each a sentence without a full stop."""

    def __init__(self, said: str, fix: str) -> None:
        super().__init__(said)
        self.said, self.fix = said, fix


class _NoService(Fault, AttributeError):  # noqa: N818  as `Fault`
    """So that `getattr(task, name, None)` stays what it is."""


class _Scripted:
    """The base of both tasks: the examples with only what `needs` names, and a script that answers."""

    protocol: ClassVar[type] = BuildTask

    def __init__(self, needs: frozenset[str], judged: bool, examples: int) -> None:
        self.needs, self.judged = needs, judged
        splits = sandbox.build_dataset({"sft": 1, "train": examples, "tuning": 0, "heldout": 1}, 0.12, 0)
        self._whole = {example.prompt.id: example for example in splits["train"]}
        self.examples: Sequence[Example] = [self._given(example) for example in self._whole.values()]
        # Real sources have gaps: the last example lacks what others have.
        self.examples[-1:] = [replace(self.examples[-1], target=None, ranked=())]

    def __getattr__(self, name: str) -> Any:
        offered = [known for known in (*vars(self.protocol), *self.protocol.__annotations__) if not known.startswith("_")]
        if name in offered:
            raise HarnessError(f"the scripted task has no service {name!r}")
        raise _NoService(f"it asks for task.{name}, which no task has", did_you_mean(name, offered).rstrip("?"))

    def judge(
        self, conversations: Sequence[Sequence[Message]], parse: Callable[[JudgeAnswer], Any], **parameters: Any
    ) -> list[Judgment]:
        """A judge that scores from 1 to 10 in FastChat's form, and prefers A, B or neither in it, by the question alone."""
        if not self.judged:
            raise Fault("it asks a judge and does not say so", "set judged: ClassVar[bool] = True on the class")

        def judged(conversation: Sequence[Message]) -> Judgment:
            rng = random.Random(" ".join(message.content for message in conversation))
            said = f"Rating: [[{rng.randint(1, 10)}]]. Verdict: [[{rng.choice('ABC')}]]"
            answer = JudgeAnswer(said, "scripted")
            return Judgment(answer, parse(answer))

        return [judged(conversation) for conversation in conversations]

    def _given(self, example: Example) -> Example:
        return replace(
            example,
            target=example.target if "target" in self.needs else None,
            ranked=example.ranked if "ranked" in self.needs else (),
        )

    def reward(self, model: Reward, responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        """Some number for each response, always the same."""
        rows = zip(self.examples, responses, strict=True)
        return [[self._logp(example.prompt, response, "reward") for response in row] for example, row in rows]

    def _asks(self, need: str, service: str) -> None:
        if need not in self.needs:
            raise Fault(f"it asks for task.{service}, and its needs do not name {need!r}", f"add {need!r} to `needs`")

    def _answer(self, prompt: Prompt, *reason: object) -> Response:
        """One answer, decided by the prompt and by what it is drawn for."""
        rng = random.Random(" ".join(map(str, (prompt.id, prompt.text, *reason))))
        own, other = self._whole.get(prompt.id), rng.choice(list(self._whole.values()))
        texts = [other.target or "", *(own.ranked if own else ()), (own.target or "").rpartition(" ")[0] if own else ""]
        if rng.random() < _EMPTY:
            return Response("", tokens=1)
        words = rng.choice([text for text in texts if text]).split()
        if rng.random() < _CUT and len(words) > 1:
            return Response(" ".join(words[:-1]), finished=False, tokens=len(words) - 1)
        return Response(" ".join(words), tokens=len(words) + 1)

    def _logp(self, prompt: Prompt, response: Response, *reason: object) -> float:
        """Nats; between 0.2 and 1.2 a word."""
        per_word = 0.2 + random.Random(" ".join(map(str, (prompt.id, response.text, *reason)))).random()
        return -per_word * (len(response.text.split()) + 1)


class ScriptedBuild(_Scripted):
    """A `BuildTask`.

    Attributes:
        counted: reason -> examples that gave no group, as the builder counts them.
    """

    def __init__(
        self,
        needs: frozenset[str] = frozenset({"target", "ranked", "gold"}),
        *,
        round: int = 0,
        examples: int = EXAMPLES,
        judged: bool = True,
    ) -> None:
        super().__init__(needs, judged, examples)
        self.round = round
        self.rng = random.Random(f"groups {round}")
        self.counted: Counter[str] = Counter()

    def sample(
        self, n: int, *, prefix: str = "", temperature: float = 1.0, top_p: float = 1.0, policy: str = "current"
    ) -> list[list[Response]]:
        drawn = (prefix, temperature, top_p, policy, self.round)
        return [[self._answer(example.prompt, *drawn, index) for index in range(n)] for example in self.examples]

    def respond(
        self,
        prompts: Sequence[Prompt],
        n: int = 1,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_tokens: int | None = None,
        policy: str = "current",
    ) -> list[list[Response]]:
        """Answers that end with a judgment, `Score: 0` to `Score: 5`: for prompts that ask for one."""

        def judged(prompt: Prompt, index: int) -> Response:
            answer = self._answer(prompt, temperature, top_p, policy, self.round, index)
            points = random.Random(f"{prompt.id} {prompt.text} {index}").randint(0, 5)
            return replace(answer, text=f"{answer.text} Score: {points}".strip())

        return [[judged(prompt, index) for index in range(n)] for prompt in prompts]

    def logps(self, responses: Sequence[Sequence[Response]], *, prefix: str = "", policy: str = "current") -> list[list[float]]:
        return [
            [self._logp(example.prompt, response, prefix, policy) for response in row]
            for example, row in zip(self.examples, responses, strict=True)
        ]

    def similarity(self, embedder: str | SentenceEmbedder, responses: Sequence[Sequence[Response]]) -> list[np.ndarray]:
        """Shared words, as a cosine; 0 where there is no target."""
        import numpy as np

        self._asks("target", "similarity")
        rows = zip(self.examples, responses, strict=True)
        return [np.array([_overlap(response.text, example.target or "") for response in row]) for example, row in rows]

    def gold(self, responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        self._asks("gold", "gold")
        rows = zip(self._whole.values(), responses, strict=True)
        return [[float(sandbox.marks(example, response)["total"]) for response in row] for example, row in rows]

    def count(self, reason: str, examples: int = 1) -> None:
        self.counted[reason] += examples


class ScriptedEvaluation(_Scripted):
    """An `EvaluationTask`.

    Attributes:
        asked: every sampling that the evaluator asked answers for.
        notes: what it noted.
    """

    protocol: ClassVar[type] = EvaluationTask

    def __init__(
        self,
        needs: frozenset[str] = frozenset({"target", "ranked", "gold", "benchmarks"}),
        *,
        folder: Path,
        examples: int = EXAMPLES,
        judged: bool = True,
    ) -> None:
        super().__init__(needs, judged, examples)
        self.seed, self.folder, self.label = 0, folder, "scripted"
        self.files = folder / "files"
        self.files.mkdir(parents=True, exist_ok=True)
        self.asked: list[Sampling] = []
        self.notes: dict[str, Any] = {}

    def respond(self, sampling: Sampling) -> list[list[Response]]:
        self.asked.append(sampling)
        drawn = (sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.seed)
        return [[self._answer(example.prompt, *drawn, index) for index in range(sampling.n)] for example in self.examples]

    def logps(self, responses: Sequence[Sequence[Response]], *, reference: bool = False) -> list[list[float]]:
        return [
            [self._logp(example.prompt, response, reference) for response in row]
            for example, row in zip(self.examples, responses, strict=True)
        ]

    def respond_to(self, prompts: Sequence[Prompt], sampling: Sampling, row: str | None = None) -> list[list[Response]]:
        drawn = (sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.seed, row)
        return [[self._answer(prompt, *drawn, index) for index in range(sampling.n)] for prompt in prompts]

    def opponents(self) -> Mapping[str, list[list[Response]]]:
        """One other row, whose answers are drawn like the policy's own."""
        sampling = self.asked[0] if self.asked else Sampling()
        return {"other": self.respond_to([example.prompt for example in self.examples], sampling, "other")}

    def note(self, name: str, value: Any) -> None:
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            said = f"its note {name!r} cannot be written as JSON ({error})"
            raise Fault(said, "use text, finite numbers, lists and mappings") from error
        self.notes[name] = value

    def gold(self, example: Example, response: Response) -> Mapping[str, float]:
        self._asks("gold", "gold")
        return sandbox.marks(self._whole[example.prompt.id], response)

    def benchmarks(self) -> Path:
        self._asks("benchmarks", "benchmarks")
        folder = self.folder / "benchmarks"
        folder.mkdir(exist_ok=True)
        sandbox.write_benchmarks(folder)
        return folder

    def policy(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        return untrained_policy()


def _overlap(first: str, second: str) -> float:
    """The cosine of two texts' sets of words."""
    one, two = set(first.split()), set(second.split())
    return len(one & two) / (len(one) * len(two)) ** 0.5 if one and two else 0.0
