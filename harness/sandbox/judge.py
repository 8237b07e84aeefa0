"""A judge for the sandbox: verdicts from the gold reward, spoilt by noise and by a liking for the answer shown first.

It reads prompts that mark their parts as FastChat's do (`[User Question]`, `[The Start of Assistant A's Answer]` …), as
`pairwise_judge`'s own prompt does too. Noise is drawn from the question's text: the same question gets the same verdict.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cached_property

from harness.api.types import SplitName
from harness.sandbox import gold, tasks
from harness.sandbox.world import build_dataset

MODEL = "sandbox-judge"
INDEXED: dict[SplitName, int] = {"tuning": 300, "heldout": 600}  # others are looked for, which takes seconds each
UNKNOWN = "I can judge answers to the sandbox's questions alone."
_QUESTION = re.compile(r"\[(?:User )?Question\]\n(.*?)\n\n\[The Start", re.DOTALL)
_ANSWER = re.compile(r"\[The Start of Assistant( [AB])?'s Answer\]\n(.*?)\n\[The End of Assistant", re.DOTALL)


@dataclass(frozen=True)
class SandboxJudge:
    """Marks by gold.

    Attributes:
        noise: standard deviation, in points of gold, of what is added to each answer's mark.
        bias: points of gold added to the answer shown first.
        tie: how far marks must lie apart for a preference.
        seed: of the world's draw and of the noise.
    """

    noise: float = 1.0
    bias: float = 0.5
    tie: float = 0.5
    seed: int = 0

    @cached_property
    def _tasks(self) -> dict[str, tasks.Task]:
        dataset = build_dataset(INDEXED, 0.0, self.seed)
        return {
            example.prompt.text: tasks.Task.from_dict(example.metadata["task"]) for name in INDEXED for example in dataset[name]
        }

    def __call__(self, prompt: str) -> str:
        """A verdict, `[[A]]`, `[[B]]` or `[[C]]`, or a rating from 1 to 10; an excuse where it knows no such question."""
        question = _QUESTION.search(prompt)
        answers = [text for _, text in _ANSWER.findall(prompt)]
        task = self._task(question[1]) if question else None
        if task is None or len(answers) not in (1, 2):
            return UNKNOWN
        rng = random.Random(f"sandbox judge {self.seed} {prompt}")
        marks = [gold.mark(task, answer).total + rng.gauss(0.0, self.noise) for answer in answers]
        if len(marks) == 1:
            return f"Rating: [[{min(10, max(1, round(1 + 0.9 * marks[0])))}]]"
        gap = marks[0] + self.bias - marks[1]
        return "[[C]]" if abs(gap) < self.tie else "[[A]]" if gap > 0 else "[[B]]"

    def _task(self, question: str) -> tasks.Task | None:
        text = question.strip()
        return self._tasks.get(text) or tasks.find_task(text)
