"""Self-rewarding: written judgments are parsed and averaged, likelihood judgments follow Bayes' rule, ties are dropped."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError
from test_builders import ScriptedTask, example, responses

from harness import Message, Prompt, Response
from harness_plugins.baselines.self_rewarding import (
    LikelihoodJudgment,
    SelfRewarding,
    WrittenJudgment,
    read_judgment,
    read_score,
)


class JudgingTask(ScriptedTask):
    """A scripted task that also judges: by what each question contains, or by given log-probabilities."""

    judgments: dict[str, list[str]]
    logps_by_prefix: dict[str, list[list[float]]]
    questions: list[str]

    def respond(self, prompts: list[Prompt], n: int = 1, **asked: Any) -> list[list[Response]]:
        self.questions = [prompt.text for prompt in prompts]
        self.sampling = asked
        found = [next(texts for part, texts in self.judgments.items() if part in prompt.text) for prompt in prompts]
        return [[Response(text) for text in texts[:n]] for texts in found]

    def logps(self, responses: Any, *, prefix: str = "", policy: str = "current") -> list[list[float]]:
        return self.logps_by_prefix[prefix]


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Clear and complete. Score: 4", 4.0),
        ("score = 3.5", 3.5),
        ("**Score: 2**", 2.0),
        ("Score: **2**", 2.0),
        ("**Score:**\n\n 4", 4.0),
        ("Score: 0 to 5? Score: 0", 0.0),
        ("Score" + " " * 20_000 + "3", math.nan),  # at once: a pattern that looks for it everywhere would not end
        ("first I thought Score: 1, then\nScore: 5", 5.0),
        ("Score: 9", math.nan),
        ("I like it", math.nan),
        ("", math.nan),
    ],
)
def test_the_last_score_in_range_is_read(text: str, score: float) -> None:
    assert read_score(text) == pytest.approx(score, nan_ok=True)


def written_task() -> JudgingTask:
    task = JudgingTask(
        [example("a"), example("b"), example("c")],
        [responses("good", "bad", "middling"), responses("one", "two", "three"), responses("x", "y", "")],
    )
    task.judgments = {
        "Answer: good": ["Score: 5", "Score: 4", "none"],
        "Answer: bad": ["Score: 1", "Score: 1", "Score: 2"],
        "Answer: middling": ["Score: 3", "Score: 3", "Score: 3"],
        "Answer: one": ["Score: 2"] * 3,
        "Answer: two": ["Score: 2"] * 3,
        "Answer: three": ["Score: 2"] * 3,
        "Answer: ": ["no idea"] * 3,
    }
    return task


def test_best_against_worst_by_the_mean_of_what_could_be_read() -> None:
    task = written_task()
    (group,) = SelfRewarding(samples=3).build(task)
    assert (group.chosen.text, [r.text for r in group.rejected]) == ("good", ["bad"])
    assert group.info == {"chosen_score": 4.5, "rejected_score": pytest.approx(4 / 3), "unread": 0.0}
    assert task.counted == {"all samples tie": 1, "fewer than two samples with a readable judgment": 1}
    assert task.sampling["temperature"] == 0.7 and task.sampling["top_p"] == 0.9


def test_what_a_model_wrote_is_put_into_the_question_once() -> None:
    task = JudgingTask([example("a")], [responses("I say {prompt} and {response}", "else")])
    task.judgments = {"": ["Score: 1"]}
    list(SelfRewarding(samples=2).build(task))
    assert "Answer: I say {prompt} and {response}\n" in task.questions[0]


def test_a_dialogue_is_asked_about_with_its_roles() -> None:
    prompt = Prompt("x", (Message("user", "hello"), Message("assistant", "yes"), Message("user", "more")))
    assert "user: hello\nassistant: yes\nuser: more" in WrittenJudgment()._ask(prompt, Response("fine"))


def test_likelihood_is_the_posterior_mean_of_the_levels() -> None:
    task = JudgingTask([example("a")], [responses("good", "bad")])
    task.logps_by_prefix = {"ask 2": [[math.log(0.1), math.log(0.6)]], "ask 10": [[math.log(0.3), math.log(0.2)]]}
    judge = LikelihoodJudgment(kind="likelihood", request="ask {score}", levels=(2, 10))
    ((good, bad),) = judge.scores(task, task.samples, (1.0, 1.0))
    assert good == pytest.approx((2 * 0.1 + 10 * 0.3) / 0.4)
    assert bad == pytest.approx((2 * 0.6 + 10 * 0.2) / 0.8)
    (group,) = SelfRewarding(samples=2, judge=judge).build(task)
    assert (group.chosen.text, group.rejected[0].text) == ("good", "bad")


def test_a_question_without_its_places_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"\{prompt\} and \{response\}"):
        SelfRewarding(judge={"kind": "written", "question": "is this good?"})
    with pytest.raises(ValidationError, match="kind"):
        SelfRewarding(judge={"kind": "guess"})


@pytest.mark.parametrize(
    ("judgment", "score"),
    [
        (Response("<think>Score: 1?</think>Score: 4"), 4.0),
        (Response("perhaps Score: 1</think>Score: 4"), 4.0),
        (Response("Score: 4 <think>or Score: 1"), math.nan),
        (Response("Score: 4, and", finished=False), math.nan),
        (Response("Score: 4"), 4.0),
    ],
)
def test_a_judgment_is_read_whole_and_without_its_thoughts(judgment: Response, score: float) -> None:
    assert read_judgment(judgment) == pytest.approx(score, nan_ok=True)
