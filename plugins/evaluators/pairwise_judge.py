"""A judge compares two answers in both orders: against the target, another row's answers, or all rows'."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Any, ClassVar, Literal

from pydantic import Field

from harness import (
    UNREAD_METRICS,
    DataError,
    EvaluationTask,
    Example,
    JudgeAnswer,
    Judgment,
    Message,
    Metric,
    Questions,
    Response,
    Score,
    unread_shares,
)
from harness_plugins.evaluators.fastchat import files as fastchat
from harness_plugins.evaluators.fastchat.files import Row
from harness_plugins.evaluators.sampled import SampledEvaluator

TARGET = "target"
JUDGMENTS = "judgments.jsonl"  # what a board shows beside the answers
ANSWERS = {"answer_a", "answer_b"}  # what a prompt must show
VALUES = {"A": 1.0, "B": 0.0, "C": 0.5}  # of the answer shown first
# Arena-Hard's labels, as ours: how clearly an answer is better is not told apart.
LABELS = {"A>>B": "A", "A>B": "A", "A=B": "C", "B>A": "B", "B>>A": "B"}
LABEL = re.compile(r"\[\[([AB<>=]+)\]\]", re.IGNORECASE)
SYSTEM = (
    "You compare two answers to the same question. Judge them by whether they do what was asked, are correct, clear and "
    "complete, without padding. The order in which you see them, their length as such and the names A and B mean nothing."
)
QUESTION = """[User Question]
{question}

[The Start of Assistant A's Answer]
{answer_a}
[The End of Assistant A's Answer]

[The Start of Assistant B's Answer]
{answer_b}
[The End of Assistant B's Answer]

Say in two sentences at most what decides between them. Then write your verdict on a line of its own: """
ENDINGS = {
    "[[A]]": "[[A]] if the answer of Assistant A is better, [[B]] if that of Assistant B is, [[C]] if neither is.",
    "[[A>>B]]": "[[A>>B]] if the answer of Assistant A is much better, [[A>B]] if it is slightly better, [[A=B]] if both are "
    "about as good, [[B>A]] if that of Assistant B is slightly better, [[B>>A]] if it is much better.",
}
TEMPLATE = QUESTION + ENDINGS["[[A]]"]


class PairwiseJudge(SampledEvaluator):
    """Wins, ties and losses by a judge that sees each pair of answers in both orders.

    A win is one in both orders, a loss likewise, and everything else a tie; `win_rate` is the mean over both orders, a verdict
    of neither counting half. Two answers with the same words are a tie and not asked about. A pair of which a verdict could
    not be read, asked twice, has no score. Sample s of the row meets sample s of its opponent.
    """

    name = "pairwise_judge"
    judged: ClassVar[bool] = True

    n: int = Field(1, ge=1, le=64, description="answers sampled per example; each meets one of the opponent's")
    opponent: str = Field("baseline", description="`target`, `baseline`, the label of a row, or `all` for every other row")
    prompts: str | None = Field(None, description="a FastChat `judge_prompts.jsonl` to judge by; our own prompt if absent")
    prompt_name: str = Field("pair-v2", description="which of those prompts; its `output_format` must be `verdicts`")
    verdicts: Literal["[[A]]", "[[A>>B]]"] = Field(
        "[[A]]",
        description="the labels that a prompt asks for: FastChat's [[A]], [[B]], [[C]], or Arena-Hard's five from [[A>>B]] to "
        "[[B>>A]], of which much and slightly better count alike",
    )
    judge: dict[str, Any] = Field(default_factory=dict, description="changed fields of the config's `judge` section")

    def metrics(self) -> Sequence[Metric]:
        against = f"against {self.opponent}" if self.opponent != "all" else "against every other row"
        return (
            Metric(
                "win_rate", f"share of verdicts won {against}, over both orders; a tie is half", primary=True, bounds=(0, 1)
            ),
            Metric("win", f"share of pairs won in both orders {against}", bounds=(0, 1)),
            Metric("tie", "share of pairs that neither side won in both orders", higher_is_better=None, bounds=(0, 1)),
            Metric("loss", f"share of pairs lost in both orders {against}", higher_is_better=False, bounds=(0, 1)),
            Metric(
                "agreement",
                "share of pairs on which both orders agree: what is missing to 1 is position bias or noise",
                bounds=(0, 1),
            ),
            Metric(
                "first",
                "share of verdicts for the answer shown first; 0.5 is without bias",
                higher_is_better=None,
                bounds=(0, 1),
            ),
            *UNREAD_METRICS,
        )

    def problems(self) -> Sequence[tuple[str, str]]:
        try:
            _Prompt.read(self.prompts, self.prompt_name, self.verdicts)
        except PromptError as error:
            return [(error.field, error.fix)]
        return ()

    def fingerprint(self) -> str:
        """Return a hash of the prompt's text if it comes from a file."""
        if self.prompts is None:
            return ""
        prompt = _Prompt.read(self.prompts, self.prompt_name, self.verdicts)
        return hashlib.sha256(json.dumps([prompt.system, prompt.template]).encode()).hexdigest()[:32]

    def opponents(self) -> Sequence[str]:
        return () if self.opponent == TARGET else (self.opponent,)

    def asks(self, examples: Sequence[Example], opponents: int) -> Questions:
        prompt = _Prompt.read(self.prompts, self.prompt_name, self.verdicts)
        pairs = self.n * (1 if self.opponent == TARGET else opponents)
        tokens = 0
        for example in examples:
            asked = prompt.conversation(_Pair(example, "", "", 0), False)
            theirs = len((example.target or "").encode()) if self.opponent == TARGET else self.max_tokens
            tokens += sum(len(message.content.encode()) for message in asked) + self.max_tokens + theirs
        return Questions(2 * pairs * len(examples), 2 * pairs * tokens)

    def evaluate(self, task: EvaluationTask) -> Iterable[Score]:
        prompt = _Prompt.read(self.prompts, self.prompt_name, self.verdicts)
        pairs = list(self._pairs(task))
        asked = [pair for pair in pairs if pair.ours != pair.theirs]
        orders = [prompt.conversation(pair, swapped) for pair in asked for swapped in (False, True)]
        verdicts = iter(task.judge(orders, READERS[self.verdicts]) if orders else [])
        words: list[dict[str, Any]] = []
        for pair in pairs:
            judged = [next(verdicts), next(verdicts)] if pair.ours != pair.theirs else None
            yield from pair.scores(judged)
            words += pair.words(judged or ())
        lines = "".join(f"{json.dumps(line)}\n" for line in words)
        (task.files / JUDGMENTS).write_text(lines, encoding="utf-8")

    def _pairs(self, task: EvaluationTask) -> Iterator[_Pair]:
        """Every pair of answers. `sample` counts through the opponents, sorted by label, and the samples of each."""
        others: Mapping[str, Sequence[Sequence[Response]]] = task.opponents()
        answers = task.respond(self.sampled)
        for index, (example, responses) in enumerate(zip(task.examples, answers, strict=True)):
            if self.opponent == TARGET:
                theirs = [] if example.target is None else [[Response(example.target)] * self.n]
            else:
                theirs = [others[label][index] for label in sorted(others)]
            for number, opposing in enumerate(theirs):
                for sample, (ours, other) in enumerate(zip(responses, opposing, strict=True)):
                    yield _Pair(example, ours.text, other.text, number * self.n + sample)


class _Pair:
    """Two answers to one example."""

    def __init__(self, example: Example, ours: str, theirs: str, sample: int) -> None:
        self.example, self.ours, self.theirs, self.sample = example, ours, theirs, sample

    def words(self, judged: Sequence[Judgment]) -> Iterator[dict[str, Any]]:
        """Return the judge's words in both orders, with the verdict for our answer."""
        for judgment, won in zip(judged, (("A", "B"), ("B", "A")), strict=False):
            unread = "declined" if judgment.declined else "cut off" if judgment.cut_off else "not read"
            verdict = {won[0]: "won", won[1]: "lost", "C": "tied"}.get(judgment.value, unread)
            order = "shown first" if won[0] == "A" else "shown second"
            line = {"example": self.example.prompt.id, "sample": self.sample, "verdict": f"{verdict}, {order}"}
            yield line | {"words": judgment.answer.text}

    def scores(self, judged: Sequence[Judgment] | None) -> Iterator[Score]:
        """Scores from both orders' judgments; None stands for two answers with the same words."""
        values = {"win_rate": 0.5, "win": 0.0, "tie": 1.0, "loss": 0.0} | unread_shares(judged or ())
        if judged is not None:
            values = unread_shares(judged)
            if all(judgment.parsed for judgment in judged):
                values |= _outcome(*(VALUES[judgment.value] for judgment in judged))
        for metric, value in values.items():
            yield Score(self.example.prompt.id, metric, value, self.sample)


def _outcome(shown_first: float, other_first: float) -> dict[str, float]:
    """From the verdicts of both orders, each as the value of the answer shown first."""
    ours = (shown_first, 1 - other_first)
    win, loss = float(min(ours) == 1), float(max(ours) == 0)
    return {
        "win_rate": sum(ours) / 2,
        "win": win,
        "tie": 1 - win - loss,
        "loss": loss,
        "agreement": float(ours[0] == ours[1]),
        "first": (shown_first + other_first) / 2,
    }


def read_verdict(answer: JudgeAnswer) -> str | None:
    """The last [[A]], [[B]] or [[C]] of an answer; None where there is none."""
    labels = re.findall(r"\[\[([ABC])\]\]", answer.text)
    return labels[-1] if labels else None


def last_label(answer: JudgeAnswer) -> str | None:
    """Return the last of Arena-Hard's labels in an answer; None where there is none, or the last is none of the five.

    Arena-Hard v2 reads the last one too. Its v0.1 gives no score where labels differ.
    """
    labels = [label.upper() for label in LABEL.findall(answer.text)]
    return labels[-1] if labels and labels[-1] in LABELS else None


def read_label(answer: JudgeAnswer) -> str | None:
    """Return an Arena-Hard label as A, B or C, however clearly one is better; Arena-Hard counts a much better answer thrice."""
    label = last_label(answer)
    return None if label is None else LABELS[label]


READERS: Mapping[str, Callable[[JudgeAnswer], str | None]] = {"[[A]]": read_verdict, "[[A>>B]]": read_label}


class PromptError(DataError):
    """A file of prompts from which none can be taken: the evaluator's field that is wrong, and the fix."""

    def __init__(self, field: str, value: str, fix: str) -> None:
        super().__init__(f"{field} = {value!r}: {fix}")
        self.field, self.fix = field, fix


class _Prompt:
    """A judge's instructions."""

    def __init__(self, system: str, template: str) -> None:
        self.system, self.template = system, template

    @classmethod
    def read(cls, path: str | None, name: str, form: str) -> _Prompt:
        """Our own, or one of FastChat's file, that asks for verdicts of a form.

        Raises:
            PromptError: the file, the prompt or its form is not there.
        """
        if path is None:
            return cls(SYSTEM, QUESTION + ENDINGS[form])
        try:
            rows = fastchat.read_lines(Path(path), ("name", "system_prompt", "prompt_template", "output_format"))
        except DataError as error:
            raise PromptError("prompts", path, f"{error}; give FastChat's judge_prompts.jsonl, or one like it") from error
        usable = {row["name"]: row for row in rows if _compares_answers(row, form)}
        if name not in usable:
            names = ", ".join(usable) or "none at all"
            asking = "" if form == "[[A]]" else f" that asks for {form}"
            fix = f"{path} has no such single-turn pairwise prompt{asking}; it has {names}"
            raise PromptError("prompt_name", name, fix)
        return cls(usable[name]["system_prompt"], usable[name]["prompt_template"])

    def conversation(self, pair: _Pair, swapped: bool) -> tuple[Message, ...]:
        first, second = (pair.theirs, pair.ours) if swapped else (pair.ours, pair.theirs)
        filled = self.template.format(question=_dialogue(pair.example), answer_a=first, answer_b=second)
        return (Message("system", self.system), Message("user", filled))


def _compares_answers(row: Row, form: str) -> bool:
    """Return whether a prompt of FastChat's compares two answers and has only fields that we fill in."""
    try:
        filled = {name for _, name, _, _ in Formatter().parse(row["prompt_template"]) if name is not None}
    except (TypeError, ValueError):
        return False
    return row["output_format"] == form and ANSWERS <= filled <= ANSWERS | {"question"}


def _dialogue(example: Example) -> str:
    messages = example.prompt.messages
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in messages)
