"""Every question to a judge and its answer, kept as they arrive: one SQLite file in the store, shared by processes.

The key of a question is the hash of the judge, the messages, the parameters and the slot: 0, or 1 where an answer that could
not be read was asked for once more. Spending is written with the answer, in one transaction, so that it is true after a crash.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import StoreError, StoreWriteError
from harness.store import canonical, key_of
from harness.types import JudgeAnswer

VERSION = 1  # raise it when the same question must be asked again
FILE = "judgments.sqlite"
WAIT_SECONDS = 60.0  # for another process to finish writing
UNWRITABLE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY)
SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, question TEXT NOT NULL, answer TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS spending (run TEXT PRIMARY KEY, calls INTEGER NOT NULL, tokens INTEGER NOT NULL, usd REAL NOT NULL);
"""


@dataclass(frozen=True)
class Spending:
    """What was paid for, or may have been: calls that no HTTP status refused, their tokens, US dollars."""

    calls: int = 0
    tokens: int = 0
    usd: float = 0.0

    def __add__(self, other: Spending) -> Spending:
        return Spending(self.calls + other.calls, self.tokens + other.tokens, self.usd + other.usd)

    def __sub__(self, other: Spending) -> Spending:
        return Spending(self.calls - other.calls, self.tokens - other.tokens, self.usd - other.usd)


@dataclass(frozen=True)
class Kept:
    """An answer to be kept, and what it cost."""

    key: str
    question: dict[str, Any]
    answer: JudgeAnswer
    cost: Spending


def question_key(question: dict[str, Any]) -> str:
    """The address of a question: judge, messages, parameters and slot."""
    return key_of("judgment", VERSION, question, {})


class JudgeAnswers:
    """The answers of all judges in a store.

    Args:
        root: the store's folder.
        run: names the run whose spending is counted.

    Raises:
        StoreError: the file is damaged or locked.
        StoreWriteError: the disk is full, or the file read-only.
    """

    def __init__(self, root: Path, run: str) -> None:
        self.path = root / FILE
        self.run = run
        with self._explained():
            self._connection = sqlite3.connect(self.path, timeout=WAIT_SECONDS, check_same_thread=False, isolation_level=None)
            self._connection.executescript(SCHEMA)

    def close(self) -> None:
        self._connection.close()

    def find(self, keys: Iterable[str]) -> dict[str, JudgeAnswer]:
        """Those of `keys` that are there."""
        found = {}
        with self._explained():
            for key in keys:
                row = self._connection.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    found[key] = _answer(json.loads(row[0]))
        return found

    def keep(self, batch: list[Kept], lost: Spending) -> None:
        """Write answers and what they cost, all or none.

        Args:
            lost: what else was paid, for requests whose answers never came.
        """
        cost = sum((item.cost for item in batch), lost)
        rows = [(item.key, canonical(item.question), canonical(vars(item.answer)), time.time()) for item in batch]
        with self._explained(), self._transaction():
            self._connection.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", rows)
            self._connection.execute(
                "INSERT INTO spending VALUES (?, ?, ?, ?) ON CONFLICT (run) DO UPDATE SET "
                "calls = calls + excluded.calls, tokens = tokens + excluded.tokens, usd = usd + excluded.usd",
                (self.run, cost.calls, cost.tokens, cost.usd),
            )

    def spent(self) -> Spending:
        """What this run has paid so far, by all its processes."""
        with self._explained():
            row = self._connection.execute("SELECT calls, tokens, usd FROM spending WHERE run = ?", (self.run,)).fetchone()
        return Spending(*row) if row else Spending()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # a full disk has ended it
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in UNWRITABLE:  # the low byte is the kind
                fix = "make room or choose another store with --store, and run again"
                raise StoreWriteError(f"the judges' answers cannot be written to {self.path} ({error}): {fix}") from error
            fix = "if it is damaged, move it away, and judges are asked again"
            raise StoreError(f"the judges' answers in {self.path} cannot be read or written ({error}): {fix}") from error


def _answer(row: dict[str, Any]) -> JudgeAnswer:
    top = row.pop("top_logprobs")
    return JudgeAnswer(**row, top_logprobs=None if top is None else tuple((token, logprob) for token, logprob in top))
