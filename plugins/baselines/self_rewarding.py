"""Self-rewarding's data: the policy answers, and then says how good its answers are."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from harness import BuildTask, DataBuilder, Group, Message, Paper, PolicyReward, Prompt, Response, divide

PAPER = Paper("Self-Rewarding Language Models", "2401.10020", "§2.2 and §3.1")

# The additive scale of the paper's Figure 2, in words of our own.
QUESTION = """Rate the answer below from 0 to 5. Start at 0 and add one point for each of these that holds:
- it has something to do with what the user asked;
- it covers a good part of what the user asked;
- it answers the essentials of it in a useful way;
- it is clear, complete and well organised, and speaks to the user as a helpful assistant;
- it is of expert quality: insightful, fitted to this user, without anything superfluous.

User: {prompt}

Answer: {response}

Give your reasons in at most 100 words, then end with a line of the form "Score: <points>"."""

Samples = Sequence[Sequence[Response]]  # per example

# Bounded, since this reads what a model wrote: blanks that three parts could each take would be gone over again and again.
_SCORE = re.compile(r"score\s{0,4}[:=]?\s{0,4}\*{0,4}\s{0,4}(\d+(?:\.\d+)?)", re.IGNORECASE)
_HIGHEST = 5


class _Judge(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class WrittenJudgment(_Judge):
    """LLM-as-a-judge, the paper's way: ask the policy for reasons and a score, several times, and take the mean."""

    kind: Literal["written"] = "written"
    question: str = Field(QUESTION, description="what the policy is asked; {prompt} and {response} are put in")
    times: int = Field(3, ge=1, le=64, description="judgments per response (§3.1.2: three, averaged)")
    max_tokens: int = Field(256, ge=8, description="longest judgment, in tokens")

    @field_validator("question")
    @classmethod
    def _has_both(cls, question: str) -> str:
        if "{prompt}" not in question or "{response}" not in question:
            raise ValueError("it should contain {prompt} and {response}")
        return question

    def scores(self, task: BuildTask, responses: Samples, sampling: tuple[float, float]) -> list[list[float]]:
        """Mean score of each response in 0 to 5; NaN where no judgment could be read."""
        asked = [
            Prompt(f"{example.prompt.id} answer {number}", (Message("user", self._ask(example.prompt, response)),))
            for example, row in zip(task.examples, responses, strict=True)
            for number, response in enumerate(row)
        ]
        temperature, top_p = sampling
        judged = iter(task.respond(asked, self.times, temperature=temperature, top_p=top_p, max_tokens=self.max_tokens))
        return [[_mean([read_judgment(judgment) for judgment in next(judged)]) for _ in row] for row in responses]

    def _ask(self, prompt: Prompt, response: Response) -> str:
        turns = prompt.messages
        dialogue = turns[0].content if len(turns) == 1 else "\n".join(f"{turn.role}: {turn.content}" for turn in turns)
        parts = {"prompt": dialogue, "response": response.text}
        return re.sub(r"\{(prompt|response)\}", lambda match: parts[match[1]], self.question)


class LikelihoodJudgment(_Judge):
    """The score that the policy would most likely have been asked for, had it given this response.

    The mean of `levels` under P(level | prompt, response) ∝ P(response | request for level, prompt): Bayes' rule with equal
    priors. Not the paper's way: it is for policies that follow requests for a quality but were never taught to write judgments.
    """

    kind: Literal["likelihood"]
    request: str = Field(
        "Please produce a good response that merits a perfect score of {score} out of 10.",
        description="goes before the prompt; {score} becomes each level",
    )
    levels: tuple[int, ...] = Field((2, 4, 6, 8, 10), min_length=2, description="the scores asked for")

    @field_validator("request")
    @classmethod
    def _names_a_score(cls, request: str) -> str:
        if "{score}" not in request:
            raise ValueError("it should contain {score}, or all requests are equal")
        return request

    def scores(self, task: BuildTask, responses: Samples, sampling: tuple[float, float]) -> list[list[float]]:
        """Expected level of each response."""
        judgment = PolicyReward(policy="likelihood", request=self.request, levels=self.levels)
        by_level = [task.logps(responses, prefix=request) for request in judgment.requests()]
        return [
            [judgment.expected([values[row][column] for values in by_level]) for column in range(len(responses[row]))]
            for row in range(len(responses))
        ]


class SelfRewarding(DataBuilder):
    """The best against the worst of own samples, by the policy's own judgment.

    Prompts whose samples all get one score are dropped and counted, and so are samples without a readable judgment: a judgment
    that was cut off is none, and thoughts (`<think>…</think>`) are not read.
    """

    name: ClassVar[str] = "self_rewarding"
    version: ClassVar[int] = 2
    paper: ClassVar[Paper | None] = PAPER

    samples: int = Field(4, ge=2, le=256, description="N, own samples per prompt")
    temperature: float = Field(0.7, gt=0, description="of samples and judgments (§3.1.2)")
    top_p: float = Field(0.9, gt=0, le=1, description="of samples and judgments")
    judge: Annotated[WrittenJudgment | LikelihoodJudgment, Field(discriminator="kind")] = Field(
        WrittenJudgment(), description="how the policy judges: `{kind: written}` or `{kind: likelihood}`, with their fields"
    )

    def responses_per_prompt(self) -> int:
        return self.samples * (1 + (self.judge.times if isinstance(self.judge, WrittenJudgment) else 0))

    def build(self, task: BuildTask) -> Iterable[Group]:
        sampling = (self.temperature, self.top_p)
        samples = task.sample(self.samples, temperature=self.temperature, top_p=self.top_p)
        judged = self.judge.scores(task, samples, sampling)
        for example, responses, scores in zip(task.examples, samples, judged, strict=True):
            read = [(score, response) for score, response in zip(scores, responses, strict=True) if not math.isnan(score)]
            kept = [(score, response) for score, response in read if response.text]
            if len(kept) < 2:
                task.count("fewer than two samples with a readable judgment")
                continue
            best, worst = max(kept, key=lambda pair: pair[0]), min(kept, key=lambda pair: pair[0])
            if best[0] == worst[0]:
                task.count("all samples tie")
            elif best[1].text == worst[1].text:
                task.count("equal sides")
            else:
                info = {"chosen_score": best[0], "rejected_score": worst[0], "unread": float(len(responses) - len(read))}
                yield Group(example.prompt, best[1], (worst[1],), info)


def read_judgment(judgment: Response) -> float:
    """Return a judgment's score, thoughts unread; NaN where it was cut off, ends within a thought, or names none."""
    parts = divide(judgment.text)
    return read_score(parts.answer) if judgment.finished and parts.closed else math.nan


def read_score(text: str) -> float:
    """The last score in 0 to 5 that a judgment names; NaN if there is none."""
    found = [float(value) for value in _SCORE.findall(text)]
    return found[-1] if found and found[-1] <= _HIGHEST else math.nan


def _mean(scores: Sequence[float]) -> float:
    """Mean of what could be read."""
    read = [score for score in scores if not math.isnan(score)]
    return sum(read) / len(read) if read else math.nan
