"""A store, a scripted judge and what tests ask of it."""

from __future__ import annotations

import errno
import json
import os
from contextlib import closing
from io import FileIO
from pathlib import Path
from typing import Any

from models.judge.scripted import FakeClock, Script, ScriptedJudge

from harness.api.types import JudgeAnswer, Message
from harness.models.client import Clock
from harness.models.judge.answers import JudgeAnswers, JudgeCost
from harness.models.judge.judge import Judge
from harness.models.judge.settings import JudgeSettings
from harness.store import Store

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

    def spent(self, run: str = "run") -> JudgeCost:
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


def files_of_answers(store: Path) -> list[Path]:
    """One for each process that wrote answers."""
    return sorted((store / "judgments").glob("*.jsonl"))


def answers_in(bench: Bench) -> list[Any]:
    """The lines of answers, of all processes; a line that was torn when its process was killed is none."""
    lines = [line for path in files_of_answers(bench.folder / "store") for line in path.read_text().splitlines(keepends=True)]
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return [row for row in rows if "answer" in row]


class FullDisk(FileIO):
    """A file that takes so many bytes and no more, in the middle of a line as likely as not."""

    room = 10_000

    def write(self, data: Any) -> int:
        fits = memoryview(data)[: self.room - self.tell()]
        if not fits:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(fits)
