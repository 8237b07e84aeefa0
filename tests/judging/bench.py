"""A store, a scripted judge and what tests ask of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from judging.scripted import FakeClock, Script, ScriptedJudge

from harness.judging.answers import JudgeAnswers, Spending
from harness.judging.client import Clock
from harness.judging.judge import Judge
from harness.judging.settings import JudgeSettings
from harness.store import Store
from harness.types import JudgeAnswer, Message

KEY = "sk-very-secret-0123456789"


class Bench:
    """A store, a scripted judge, and as many processes' worth of `Judge` as a test wants."""

    def __init__(self, folder: Path, script: Script) -> None:
        self.folder = folder
        self.clock = FakeClock()
        self.server = ScriptedJudge(script)
        self.notes: list[str] = []

    def judge(self, *, run: str = "run", key: str | None = KEY, **fields: Any) -> Judge:
        settings = JudgeSettings(model="scripted", base_url=self.server.url, api_key_env="KEY", **fields)
        clock = Clock(self.clock.now, self.clock.sleep, lambda: 1_000_000_000.0)
        return Judge(settings, Store(self.folder / "store"), run, key, lambda done, total, note: self.notes.append(note), clock)

    def spent(self, run: str = "run") -> Spending:
        """What was written down of a run's spending."""
        with closing(JudgeAnswers(self.folder / "store", run)) as answers:
            return answers.spent()


def conversations(*texts: str) -> list[tuple[Message, ...]]:
    return [(Message("user", text),) for text in texts]


def rating(answer: JudgeAnswer) -> int | None:
    digits = "".join(character for character in answer.text if character.isdigit())
    return int(digits) if digits else None


def always(*texts: str, **parameters: Any) -> Any:
    return conversations(*texts), rating, parameters


def answers_in(bench: Bench) -> list[Any]:
    with sqlite3.connect(bench.folder / "store" / "judgments.sqlite") as connection:
        found = connection.execute("SELECT * FROM answers").fetchall()
    connection.close()
    return found
