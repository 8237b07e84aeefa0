"""A server that fails at times: every question is asked until it is answered, and when the server wants to be asked."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from models.judge.bench import Bench, always, answers_in
from models.judge.scripted import FakeClock

from harness.errors import StageError
from harness.models.server import HttpReply, completion


def limited(prompt: str, times: int) -> Any:
    said = {0: {"retry-after": "90"}, 1: {"retry-after": "Sun, 09 Sep 2001 01:46:50 GMT"}, 2: {"retry-after-ms": "2500"}}
    return HttpReply({"error": {"message": "slow down"}}, 429, said[times]) if times in said else "[[1]]"


@pytest.mark.parametrize("bench", [limited], indirect=True)
def test_retry_after_is_honoured_in_seconds_as_a_date_and_in_milliseconds(bench: Bench) -> None:
    assert bench.judge().judge(*always("a"))[0].value == 1
    assert bench.clock.slept == [90.0, 10.0, 2.5]


def impatient(prompt: str, times: int) -> Any:
    return HttpReply({"error": {"message": "slow down"}}, 429, {"retry-after": "0"}) if times < 2 else "[[1]]"


@pytest.mark.parametrize("bench", [impatient], indirect=True)
def test_a_retry_after_of_nothing_leaves_the_time_that_doubles(bench: Bench) -> None:
    assert bench.judge(concurrency=1).judge(*always("a"))[0].value == 1
    first, second = bench.clock.slept
    assert 0.25 <= first <= 0.5 <= second <= 1.0


class WaitingClock(FakeClock):
    """Whoever waits, waits for `done`: set by a test, or by the second who waits."""

    def __init__(self) -> None:
        super().__init__()
        self.done = threading.Event()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) == 2:
            self.done.set()
        await asyncio.to_thread(self.done.wait, 30)
        self.seconds += seconds


@pytest.mark.parametrize(("status", "waiting"), [(500, 1), (429, 2)])
def test_a_server_with_too_much_to_do_holds_all_questions_back_and_one_that_fails_the_question_alone(
    tmp_path: Path, status: int, waiting: int
) -> None:
    """Of nine questions, two at a time, the first fails once."""
    clock, answered = WaitingClock(), list[str]()

    def script(prompt: str, times: int) -> Any:
        if prompt == "bad" and times == 0:
            return HttpReply({"error": {"message": "no"}}, status)
        answered.append(prompt)
        if len(answered) == 8:
            clock.done.set()
        return "[[1]]"

    bench = Bench(tmp_path, script)
    bench.clock = clock
    with bench.server.serving():
        judgments = bench.judge(concurrency=2).judge(*always("bad", *(f"question {number}" for number in range(8))))
    assert [judgment.value for judgment in judgments] == [1] * 9
    assert len(clock.slept) == waiting
    assert (answered.index("bad") == 8) == (status == 500)  # after all others, where it alone had to wait


@pytest.mark.parametrize("asked", ["86400", "inf"])
def test_a_server_that_asks_for_hours_ends_the_run_and_says_when_to_come_back(tmp_path: Path, asked: str) -> None:
    bench = Bench(tmp_path, lambda *_: HttpReply({"error": {"message": "quota"}}, 429, {"retry-after": asked}))
    with (
        bench.server.serving(),
        pytest.raises(StageError, match=r"come back in (24\.0|inf) hours \(HTTP 429: quota\).* run again then"),
    ):
        bench.judge(concurrency=1).judge(*always("a", "b"))
    assert bench.clock.slept == []
    assert sum(bench.server.asked.values()) == 1  # nothing more is sent


GOOD = json.dumps(completion("[[9999]]", "judge-2026-01-01", "a question")).encode()
FAULTS: dict[int, Any] = {
    0: HttpReply({"error": {"message": "overloaded"}}, 429, {"retry-after": "1"}),
    1: HttpReply({"error": {"message": "boom"}}, 500),
    2: HttpReply(b"<html>bad gateway</html>", 502, {"content-type": "text/html"}),
    3: HttpReply(b'{"choices": [{"mess', 200),
    4: HttpReply({"object": "chat.completion"}, 200),
    5: HttpReply(b"half", 200, {"content-length": "400", "connection": "close"}),
    6: HttpReply(b"[" * 100_000, 200),
    7: HttpReply(gzip.compress(bytes(20_000_000)), 200, {"content-encoding": "gzip"}),
    8: HttpReply(gzip.compress(GOOD)[:-20], 200, {"content-encoding": "gzip"}),
    9: HttpReply(GOOD + b" " * 9_000_000, 200),
    10: HttpReply(GOOD, 200, {"content-encoding": "zstd"}),
    11: HttpReply(GOOD, 200, {"content-encoding": "gzip"}),
    12: HttpReply(GOOD[:-1], 503),
    13: HttpReply({"error": {"message": "busy"}}, 425),
}


def faulty(prompt: str, times: int) -> Any:
    kind = sum(prompt.encode()) % 20  # 70 % of the questions meet a fault at first
    return FAULTS[kind] if kind in FAULTS and times == 0 else f"[[{len(prompt)}]]"


@pytest.mark.parametrize("bench", [faulty], indirect=True)
def test_with_faults_every_judgment_is_as_without(bench: Bench) -> None:
    texts = [f"question number {number}" for number in range(100)]
    judgments = bench.judge(timeout_seconds=60.0).judge(*always(*texts))
    assert [judgment.value for judgment in judgments] == [len(text) for text in texts]
    faults = sum(sum(text.encode()) % 20 in FAULTS for text in texts)
    assert faults > 50 and {sum(text.encode()) % 20 for text in texts} >= FAULTS.keys()
    assert sum(bench.server.asked.values()) == 100 + faults
    assert len(answers_in(bench)) == 100


class Unreliable:
    """Any call may go wrong, also the third of a question: 30 % of them, by stalls and nonsense too.

    Attributes:
        words: prompt -> what was said in answers that left whole.
        met: kinds of fault, how often.
    """

    KINDS = ("429", "500", "stall", "cut off", "nonsense", "nonsense")
    NONSENSE = "I would rather not say."

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self.words: dict[str, list[str]] = {}
        self.met: Counter[str] = Counter()

    def __call__(self, prompt: str, times: int) -> Any:
        chance = random.Random(f"{prompt} {times}").random()
        kind = self.KINDS[int(chance / 0.05)] if chance < 0.3 else ""
        self.met[kind] += 1
        if kind == "stall":
            self.stop.wait(60)
        if kind in ("429", "500", "stall"):
            return HttpReply({"error": {"message": kind}}, 500 if kind == "stall" else int(kind))
        if kind == "cut off":
            return HttpReply(b'{"id": "x", "cho', 200, {"content-length": "4000", "connection": "close"})
        self.words.setdefault(prompt, []).append(self.NONSENSE if kind else f"[[{len(prompt)}]]")
        return self.words[prompt][-1]


def test_of_unreliable_calls_every_judgment_is_scored_or_unparsed_and_none_is_lost_or_doubled(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda *_: "")
    script = Unreliable(bench.server.stop)
    bench.server.script = script
    texts = [f"question {'x' * (number % 7)} {number}" for number in range(200)]
    with bench.server.serving():
        judge = bench.judge(timeout_seconds=1.0, attempts=20)
        judgments = judge.judge(*always(*texts))
        bench.server.stop.set()
    assert min(script.met[kind] for kind in Unreliable.KINDS) > 3
    kept: dict[str, dict[int, str]] = {text: {} for text in texts}
    for row in answers_in(bench):
        asked = row["question"]
        kept[asked["messages"][0]["content"]][asked["slot"]] = row["answer"]["text"]
    for text, judgment in zip(texts, judgments, strict=True):
        good, said = f"[[{len(text)}]]", kept[text]
        assert set(said.values()) <= set(script.words[text])
        assert list(said) == ([0] if said[0] == good else [0, 1])  # asked once more exactly where it could not be read
        assert judgment.value == (len(text) if good in said.values() else None)  # as without faults, or unparsed
    unparsed = sum(set(said.values()) == {Unreliable.NONSENSE} for said in kept.values())
    assert 0 < unparsed < 20 and judge.tally.unparsed == unparsed
    assert judge.tally.calls == sum(map(len, kept.values()))
    refused = script.met["429"] + script.met["500"]
    assert judge.tally.paid.calls == sum(bench.server.asked.values()) - refused  # what stalled or was cut off may be billed
    assert bench.spent() == judge.tally.paid


def test_a_stall_is_asked_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda prompt, times: bench.server.stop.wait(20) or "late" if times == 0 else "[[2]]")
    with bench.server.serving():
        assert bench.judge(timeout_seconds=0.2).judge(*always("a"))[0].value == 2
        bench.server.stop.set()


@pytest.mark.parametrize("bench", [lambda prompt, times: HttpReply({"error": {"message": "no"}}, 503)], indirect=True)
def test_a_judge_that_only_fails_is_named(bench: Bench) -> None:
    with pytest.raises(StageError, match=r"the judge 'scripted' at http://127.0.0.1:\d+/v1 failed 3 times \(HTTP 503: no\)"):
        bench.judge(attempts=3).judge(*always("a"))
    assert len(bench.clock.slept) == 2
