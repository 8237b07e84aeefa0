"""FastChat's judging logic: its own functions fill the prompts and read the verdicts.

Its calls of a judge are written for openai < 1 and cannot run. They are replaced, first by one that notes the question, then by
one that gives our judge's answer.
"""

from __future__ import annotations

import ast
import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import DataError, EvaluationTask, JudgeAnswer, Judgment, Message
from harness_plugins.evaluators.fastchat.files import LARGEST_RATING, Row

WORDS = ("judgment", "g1_judgment", "g2_judgment")  # a row's fields for what the judge said, in the order of asking
STANDS_FOR = "gpt-4"  # FastChat asks judges of its own list alone; the template of this one is plain messages


@dataclass(frozen=True)
class Bench:
    """A set of questions with prompts for judges, and reference answers by question (empty: judged without)."""

    questions: tuple[Row, ...]
    prompts: Mapping[str, Row]
    references: Mapping[int, Row]

    def prompt(self, kind: str, question: Row, turn: int) -> tuple[Row, Row | None]:
        """The prompt for `single` or `pair`, and the reference answer where the category needs one (FastChat's rule)."""
        reference = self.references.get(question["question_id"]) if self.references and needs_reference(question) else None
        form = {("single", False): "single-v1", ("single", True): "single-math-v1"}
        form |= {("pair", False): "pair-v2", ("pair", True): "pair-math-v1"}
        name = form[kind, reference is not None] + ("-multi-turn" if turn == 2 else "")
        if name not in self.prompts:
            raise DataError(f"the file of judge prompts has no {name!r}: take FastChat's judge_prompts.jsonl")
        return self.prompts[name], reference


def needs_reference(question: Row) -> bool:
    """Return whether a question's category is judged with a reference answer: math, reasoning and coding."""
    return question["category"] in library().NEED_REF_CATS


def temperature(category: str) -> float:
    """FastChat's sampling temperature of a category; 0.7 where it has none."""
    return float(library().temperature_config.get(category, 0.7))


def library() -> Any:
    """`fastchat.llm_judge.common`, which warns of its own strings while it is compiled."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from fastchat.llm_judge import common
    except ImportError as error:
        raise DataError(f"FastChat cannot be imported ({error}): pip install 'alignment-harness[judge]'") from error
    return common


Match = Callable[[], Row]  # plays one of FastChat's matches


def single_match(bench: Bench, question: Row, answer: Row, turn: int, model: str) -> Match:
    common = library()
    prompt, reference = bench.prompt("single", question, turn)
    judge = common.Judge(STANDS_FOR, prompt, ref_based=reference is not None, multi_turn=turn == 2)
    match = common.MatchSingle(question, model, answer, judge, ref_answer=reference, multi_turn=turn == 2)
    return lambda: dict(common.play_a_match_single(match, output_file=""))


def pair_match(bench: Bench, question: Row, answers: tuple[Row, Row], turn: int, models: tuple[str, str]) -> Match:
    common = library()
    prompt, reference = bench.prompt("pair", question, turn)
    judge = common.Judge(STANDS_FOR, prompt, ref_based=reference is not None, multi_turn=turn == 2)
    match = common.MatchPair(question, *models, *answers, judge, ref_answer=reference, multi_turn=turn == 2)
    return lambda: dict(common.play_a_match_pair(match, output_file=""))


Played = tuple[Row, tuple[Judgment, ...]]  # a match as FastChat writes it, and what its judge said


def play(task: EvaluationTask, matches: Sequence[Match], parse: Callable[[JudgeAnswer], Any]) -> list[Played]:
    """Every match as FastChat writes it, judged by the task's judge; a row's `judge` then names the model that answered."""
    asked: list[list[Message]] = []

    def note(messages: list[Row]) -> str:
        asked.append([Message(message["role"], message["content"]) for message in messages])
        return ""

    counts = []
    with _answered_by(note):
        for match in matches:
            before = len(asked)
            match()
            counts.append(len(asked) - before)
    judgments = iter(task.judge(asked, parse))
    rows = []
    for match, count in zip(matches, counts, strict=True):
        own = tuple(next(judgments) for _ in range(count))
        rows.append((_played(match, own), own))
    return rows


def _played(match: Match, judgments: Sequence[Judgment]) -> Row:
    """A match's row. FastChat does not see what could not be read, since some of it ends its reader; the row has the words."""
    texts = iter([judgment.answer.text if judgment.parsed else "" for judgment in judgments])
    with _answered_by(lambda messages: next(texts)):
        row = match()
    words = zip((name for name in WORDS if name in row), judgments, strict=True)
    row |= {name: judgment.answer.text for name, judgment in words}
    versions = sorted({judgment.answer.model for judgment in judgments} - {""})  # a declined question has none
    return {**row, "judge": [", ".join(versions) or STANDS_FOR, row["judge"][1]], "tstamp": 0.0}


@contextlib.contextmanager
def _answered_by(answer: Callable[[list[Row]], str]) -> Iterator[None]:
    """FastChat's module with its call of a judge replaced; what it prints is dropped."""
    common = library()
    before = common.chat_completion_openai
    common.chat_completion_openai = lambda model, conversation, **parameters: answer(conversation.to_openai_api_messages())
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        common.chat_completion_openai = before


def read_rating(answer: JudgeAnswer) -> float | None:
    """A rating by FastChat's patterns and as a Python number, as FastChat reads it; None where it finds none, or ends at it.

    FastChat takes numbers beyond 1 to 10 too, and so do we, up to one that is no rating on any scale.
    """
    common = library()
    match = common.one_score_pattern.search(answer.text) or common.one_score_pattern_backup.search(answer.text)
    if match is None:
        return None
    try:
        rating = float(ast.literal_eval(match[1]))
    except (SyntaxError, ValueError, OverflowError):  # 05, digits of another script, hundreds of digits
        return None
    return rating if rating <= LARGEST_RATING else None


def read_winner(answer: JudgeAnswer) -> str | None:
    """A verdict by FastChat's rule: the first of [[A]], [[B]], [[C]] that occurs at all; None where none does."""
    return next((verdict for verdict in ("A", "B", "C") if f"[[{verdict}]]" in answer.text), None)
