"""FastChat's files (questions, answers, judgments) and the figures that its `show_result` computes from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from harness import DataError, read_text, write_atomically
from harness_plugins.evaluators.validation import ForeignRow, Label, Text, checked, named, parsed

RELEASE = "v0.2.36"
ADDRESS = f"https://raw.githubusercontent.com/lm-sys/FastChat/{RELEASE}/fastchat/llm_judge/data"
NEED_REFERENCES = ("math", "reasoning", "coding")  # categories that FastChat judges with a reference answer
UNREAD = -1  # FastChat's score of an answer that it cannot read
LARGEST_RATING = 1000  # FastChat's judges rate from 1 to 10, and FastChat takes any number

Row = dict[str, Any]


@dataclass(frozen=True)
class Published:
    """A file of FastChat's repository; the hash is of the copy that the tests read."""

    path: str
    sha256: str

    def unlike(self, content: bytes) -> str:
        """Return how content differs from this file's, as the end of a sentence; '' if it does not."""
        found = hashlib.sha256(content).hexdigest()
        return "" if found == self.sha256 else f"has SHA-256 {found}, expected {self.sha256}"


MT_QUESTIONS = Published("mt_bench/question.jsonl", "119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7")
MT_REFERENCES = Published(
    "mt_bench/reference_answer/gpt-4.jsonl", "f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f"
)
PROMPTS = Published("judge_prompts.jsonl", "fd283293406d024f44c174b094ef48031d0687a4682fd3a56b29b138f80281b6")
VICUNA_QUESTIONS = Published("vicuna_bench/question.jsonl", "c248c5c98ba45bb0c2aadae2f270e643bd32679c6c306a3b2a503ac4254cdaa5")


def fetch(path: Path, published: Published) -> None:
    """Download one of FastChat's files and check it before it is put in place.

    Raises:
        DataError: the network or the file is not as it should be.
    """
    from urllib.error import URLError
    from urllib.request import urlopen

    url = f"{ADDRESS}/{published.path}"
    try:
        with urlopen(url, timeout=60) as answer:
            content = answer.read()
    except (URLError, OSError) as error:
        raise DataError(f"{path} is not there and {url} cannot be fetched ({error}): put a copy there") from error
    if unlike := published.unlike(content):
        raise DataError(f"{url} {unlike}: put a copy you trust at {path}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)  # others may fetch it too
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}): give a path that can, or put a copy there") from error


def read_lines(path: Path, needed: Sequence[str]) -> list[Row]:
    """Return the rows of a JSON-lines file, each with the fields `needed`; raises as `read_numbered` does."""
    return [row for _, row in read_numbered(path, needed)]


def read_numbered(path: Path, needed: Sequence[str]) -> list[tuple[int, Row]]:
    """Return the rows of a JSON-lines file with the numbers of their lines, each with the fields `needed`.

    Raises:
        DataError: names file and line.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        raise DataError(f"{path}:1 begins a JSON array: write one object per line, e.g. with `jq -c '.[]' FILE`")
    lines = text.split("\n")  # FastChat's texts hold other line breaks as they are
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = parsed(line, f"{path}:{number}", "JSON")
        missing = [name for name in needed if not isinstance(row, dict) or name not in row]
        if missing:
            raise DataError(f"{path}:{number} has no {missing[0]!r}: it should be a row as FastChat writes it")
        rows.append((number, row))
    return rows


def write_lines(path: Path, rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read_answers(path: Path) -> dict[int, Row]:
    """Return a model's answers by question; of a question that was answered twice the last, as FastChat reads it."""
    return {row["question_id"]: row for row in read_lines(path, ("question_id", "choices"))}


def answer_row(question_id: int, model: str, turns: Sequence[str]) -> Row:
    """One question's answers as FastChat writes them; its id and time are constant, so that equal answers give equal files."""
    choices = [{"index": 0, "turns": list(turns)}]
    return {
        "question_id": question_id,
        "answer_id": f"{model}-{question_id}",
        "model_id": model,
        "choices": choices,
        "tstamp": 0.0,
    }


def file_name(label: str) -> str:
    """A row's label as a file name."""
    return "".join(character if character.isalnum() or character in "._-" else "_" for character in label).lstrip(".") or "row"


Numbered = tuple[int, Row]  # a line's number and its row
Winner = Literal["model_1", "model_2", "tie", "error"]


class JudgedRow(ForeignRow):
    """The fields that FastChat's single judgments and its judgments of pairs share."""

    question_id: int = Field(ge=0, lt=2**31)
    judge: list[Text] = Field(min_length=1)
    turn: Literal[1, 2]


class SingleRow(JudgedRow):
    """A rating of one model's answer; -1 where it could not be read."""

    model: Label
    score: Annotated[float, Field(ge=UNREAD, le=LARGEST_RATING, allow_inf_nan=False)]


class PairRow(JudgedRow):
    """Two models' answers compared in both orders."""

    model_1: Label
    model_2: Label
    g1_winner: Winner
    g2_winner: Winner


def read_judgments(path: Path) -> list[Row]:
    """Return judgments, single or of pairs; one that a second run of FastChat appended replaces the first."""
    return [row for _, row in last_of_each(all_judgments(path))]


def all_judgments(path: Path) -> list[Numbered]:
    """Return all rows of a file of judgments, repeated ones too, as `show_result` reads them.

    Raises:
        DataError: names file, line and field.
    """
    fix = "give judgments as FastChat writes them (model_judgment/*.jsonl)"
    rows = read_numbered(path, ("question_id", "judge", "turn"))
    for number, row in rows:
        checked(SingleRow if "model" in row else PairRow, row, f"{path}:{number}", fix)
        if "model" not in row and row["model_1"] == row["model_2"]:
            raise DataError(f"{path}:{number} compares {named(row['model_1'])} with itself: {fix}")
    return rows


def last_of_each(rows: Iterable[Numbered]) -> list[Numbered]:
    """The last judgment of each answer or pair by each judge, as FastChat's viewer takes it; a pair is one in either order."""
    kept: dict[tuple[Any, ...], Numbered] = {}
    for number, row in rows:
        kept[(*judged(row), *row["judge"])] = (number, row)
    return list(kept.values())


def judged(row: Row) -> tuple[Any, ...]:
    """The subject of a judgment: question, turn, and the model or the two models."""
    models = (row["model"],) if "model" in row else sorted((row["model_1"], row["model_2"]))
    return (row["question_id"], row["turn"], *models)


@dataclass(frozen=True)
class SingleResult:
    """One model's mean scores as FastChat's `show_result --mode single` gives them; None where a turn has no score."""

    first: float | None
    second: float | None
    average: float | None
    unparsed: int


def single_results(rows: Sequence[Row]) -> dict[str, SingleResult]:
    """Per model; judgments that could not be read are counted and not averaged."""
    found = {}
    for model in sorted({row["model"] for row in rows}):
        own = [row for row in rows if row["model"] == model]
        read = [row for row in own if row["score"] != UNREAD]
        turns = [[row["score"] for row in read if row["turn"] == turn] for turn in (1, 2)]
        means = [sum(turn) / len(turn) if turn else None for turn in (*turns, turns[0] + turns[1])]
        found[model] = SingleResult(means[0], means[1], means[2], len(own) - len(read))
    return found


@dataclass(frozen=True)
class PairResult:
    """One model against a baseline as FastChat's `show_result --mode pairwise-baseline` gives it."""

    win: int
    loss: int
    tie: int
    unparsed: int

    @property
    def judged(self) -> int:
        """Pairs whose verdicts could be read."""
        return self.win + self.loss + self.tie

    @property
    def adjusted_win_rate(self) -> float:
        """A tie is half a win."""
        return (self.win + 0.5 * self.tie) / self.judged


def pair_outcome(row: Row) -> str:
    """`model_1`, `model_2`, `tie`, or `error` where an order could not be read. A win is one in both orders."""
    winners = (row["g1_winner"], row["g2_winner"])
    if "error" in winners:
        return "error"
    return str(winners[0]) if winners[0] == winners[1] else "tie"


def turned(row: Row, model: str) -> Row:
    """A judgment of a pair with `model` as its first."""
    if row["model_1"] == model:
        return row
    other = {"model_1": "model_2", "model_2": "model_1"}
    winners = {name: other.get(row[name], row[name]) for name in ("g1_winner", "g2_winner")}
    return {**row, "model_1": row["model_2"], "model_2": row["model_1"], **winners}


def pair_results(rows: Sequence[Row], baseline: str) -> dict[str, PairResult]:
    """Per model that met the baseline."""
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        models = {row["model_1"]: "model_1", row["model_2"]: "model_2"}
        if baseline not in models or len(models) < 2:
            continue
        model = next(name for name in models if name != baseline)
        outcome = pair_outcome(row)
        kind = {models[model]: "win", models[baseline]: "loss", "tie": "tie", "error": "unparsed"}[outcome]
        found.setdefault(model, dict.fromkeys(("win", "loss", "tie", "unparsed"), 0))[kind] += 1
    return {model: PairResult(**counts) for model, counts in sorted(found.items())}
