"""Every question to a judge and its answer, kept as they arrive: in the store's `judgments` folder, shared by processes.

The key of a question is the hash of the judge, the messages, the parameters and the slot: 0, or 1 where an answer that could
not be read was asked for once more. What an answer cost is in its line, so that the spending is true after a crash. Of two
answers to one question, which two runs at once may both pay for, the earlier counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.api.types import JudgeAnswer
from harness.models.judge.answer_files import Lines, OwnFile, Place
from harness.store import key_of

VERSION = 1  # raise it when the same question must be asked again
FOLDER = "judgments"


@dataclass(frozen=True)
class JudgeCost:
    """The cost of a judge, paid or possibly paid: calls that no HTTP status refused, their tokens, US dollars."""

    calls: int = 0
    tokens: int = 0
    usd: float = 0.0

    def __add__(self, other: JudgeCost) -> JudgeCost:
        return JudgeCost(self.calls + other.calls, self.tokens + other.tokens, self.usd + other.usd)

    def __sub__(self, other: JudgeCost) -> JudgeCost:
        return JudgeCost(self.calls - other.calls, self.tokens - other.tokens, self.usd - other.usd)


@dataclass(frozen=True)
class Kept:
    """An answer to be kept, and what it cost."""

    key: str
    question: Mapping[str, object]
    answer: JudgeAnswer
    cost: JudgeCost


def question_key(question: Mapping[str, object]) -> str:
    """Return the key of a question: judge, messages, parameters and slot."""
    return key_of("judgment", VERSION, question, {})


class JudgeAnswers:
    """The answers of all judges in a store.

    Every method raises StoreError where a file is damaged, or cannot be read or written.

    Args:
        root: the store's folder.
        run: names the run whose spending is counted.
    """

    def __init__(self, root: Path, run: str) -> None:
        self.run = run
        self._lines = Lines(root / FOLDER)
        self._own = OwnFile(root / FOLDER)
        self._earliest: dict[str, tuple[float, Place]] = {}  # of each key: when its answer was kept, and where it is
        self._spent = JudgeCost()

    def close(self) -> None:
        self._own.close()

    def find(self, keys: Iterable[str]) -> dict[str, JudgeAnswer]:
        """Return the answers to those of `keys` that any process has written."""
        self._look()
        places = {self._earliest[key][1]: key for key in keys if key in self._earliest}
        return {places[place]: _answer(row["answer"]) for place, row in self._lines.at(places)}

    def keep(self, batch: list[Kept], lost: JudgeCost) -> None:
        """Write answers and what they cost; they are on the disk when this returns.

        Args:
            lost: what else was paid, for requests whose answers never came.

        Raises:
            StoreWriteError: the disk is full, or the folder read-only. Some of them may have been written.
        """
        noted = {"run": self.run, "at": time.time()}
        rows = [
            {**noted, "key": item.key, "question": item.question, "answer": _row(item.answer), "cost": vars(item.cost)}
            for item in batch
        ]
        if lost != JudgeCost():
            rows.append({**noted, "cost": vars(lost)})
        self._own.add(rows)

    def spent(self) -> JudgeCost:
        """Return what all processes of this run have paid so far."""
        self._look()
        return self._spent

    def _look(self) -> None:
        """Take in what was written since the last look."""
        for place, row in self._lines.new():
            if row["run"] == self.run:
                self._spent += JudgeCost(**row["cost"])
            if "key" in row:
                written = row["at"], place
                self._earliest[row["key"]] = min(written, self._earliest.get(row["key"], written))


def _row(answer: JudgeAnswer) -> dict[str, object]:
    """Return an answer as JSON. Answers of versions that knew no thoughts have no such field, nor have those without one."""
    return {name: value for name, value in vars(answer).items() if name != "thought" or value}


def _answer(row: dict[str, Any]) -> JudgeAnswer:
    top = row.pop("top_logprobs")
    return JudgeAnswer(**row, top_logprobs=None if top is None else tuple((token, logprob) for token, logprob in top))
