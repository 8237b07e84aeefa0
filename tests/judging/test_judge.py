"""The judge's client on a scripted server: nothing is lost, nothing is asked twice, nothing costs more than was allowed."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from judging.scripted import FakeClock, Script, ScriptedJudge

from harness.errors import StageError, StoreError
from harness.judging.client import Clock
from harness.judging.judge import Judge
from harness.judging.server import Reply
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


@pytest.fixture
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """`@pytest.mark.parametrize("bench", [script], indirect=True)` says what the judge does."""
    made = Bench(tmp_path, getattr(request, "param", lambda prompt, times: f"Rating: [[{len(prompt)}]]"))
    with made.server.serving():
        yield made


def conversations(*texts: str) -> list[tuple[Message, ...]]:
    return [(Message("user", text),) for text in texts]


def rating(answer: JudgeAnswer) -> int | None:
    digits = "".join(character for character in answer.text if character.isdigit())
    return int(digits) if digits else None


def always(*texts: str, **parameters: Any) -> Any:
    return conversations(*texts), rating, parameters


def test_judgments_come_in_order_with_the_version_that_the_server_reports(bench: Bench) -> None:
    judge = bench.judge()
    judgments = judge.judge(*always("a", "bbb", "a", "cc"))
    assert [judgment.value for judgment in judgments] == [1, 3, 1, 2]
    assert bench.server.asked == {"a": 1, "bbb": 1, "cc": 1}  # what is the same is asked once
    assert judge.tally.facts()["versions"] == ["judge-2026-01-01"]
    assert judge.tally.facts()["judge_calls"] == 3
    assert judge.tally.facts()["judge_tokens"] == 3 * (1 + 2)  # the scripted server counts words
    assert judge.tally.facts()["judge_usd"] is None  # nobody knows its price
    assert bench.notes[-1].startswith("judged 3 of 3")


def test_parameters_are_sent_and_decide_the_key(bench: Bench) -> None:
    bench.judge(seed=7).judge(*always("a"))
    bench.judge(seed=7).judge(*always("a", temperature=1.0, max_tokens=1, logprobs=True, top_logprobs=5))
    first, second = bench.server.bodies
    assert {name: first[name] for name in ("temperature", "max_tokens", "seed")} == {
        "temperature": 0,
        "max_tokens": 2048,
        "seed": 7,
    }
    assert {name: second[name] for name in ("temperature", "max_tokens", "top_logprobs")} == {
        "temperature": 1,
        "max_tokens": 1,
        "top_logprobs": 5,
    }
    judge = bench.judge(temperature=None, token_limit="max_completion_tokens")
    judge.judge(*always("a"))
    assert "temperature" not in bench.server.bodies[2]
    assert bench.server.bodies[2]["max_completion_tokens"] == 2048


def test_a_second_run_asks_nothing_and_pays_nothing(bench: Bench) -> None:
    bench.judge(run="first").judge(*always("a", "b"))
    again = bench.judge(run="second", key=None)
    assert [judgment.value for judgment in again.judge(*always("a", "b"))] == [1, 1]
    assert sum(bench.server.asked.values()) == 2
    assert again.tally.paid.calls == 0
    assert again.tally.calls == 2  # what a row used is told in full


def refuse_after(count: int) -> Script:
    seen: list[str] = []

    def script(prompt: str, times: int) -> Any:
        seen.append(prompt)
        return "[[5]]" if len(seen) != count else Reply({"error": {"message": f"no such key {KEY}", "code": None}}, 401)

    return script


@pytest.mark.parametrize("bench", [refuse_after(4)], indirect=True)
def test_a_crash_midway_loses_nothing_and_the_rest_alone_is_asked_again(bench: Bench) -> None:
    texts = [f"question {number}" for number in range(8)]
    with pytest.raises(StageError, match=r"HTTP 401.*check the key") as stopped:
        bench.judge(concurrency=1).judge(*always(*texts))
    assert KEY not in str(stopped.value)
    assert "(the key)" in str(stopped.value)
    before = dict(bench.server.asked)
    assert len(before) == 4
    judgments = bench.judge(concurrency=1).judge(*always(*texts))
    assert all(judgment.value == 5 for judgment in judgments)
    repeated = {prompt for prompt, count in bench.server.asked.items() if count > 1}
    assert repeated == {"question 3"}  # the one that was refused


def limited(prompt: str, times: int) -> Any:
    said = {0: {"retry-after": "90"}, 1: {"retry-after": "Sun, 09 Sep 2001 01:46:50 GMT"}, 2: {"retry-after-ms": "1500"}}
    return Reply({"error": {"message": "slow down"}}, 429, said[times]) if times in said else "[[1]]"


@pytest.mark.parametrize("bench", [limited], indirect=True)
def test_retry_after_is_honoured_in_seconds_as_a_date_and_in_milliseconds(bench: Bench) -> None:
    assert bench.judge().judge(*always("a"))[0].value == 1
    assert bench.clock.slept == [90.0, 10.0, 1.5]


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
            return Reply({"error": {"message": "no"}}, status)
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
    bench = Bench(tmp_path, lambda *_: Reply({"error": {"message": "quota"}}, 429, {"retry-after": asked}))
    with (
        bench.server.serving(),
        pytest.raises(StageError, match=r"come back in (24\.0|inf) hours \(HTTP 429\).* run again then"),
    ):
        bench.judge(concurrency=1).judge(*always("a", "b"))
    assert bench.clock.slept == []
    assert sum(bench.server.asked.values()) == 1  # nothing more is sent


KILLED = """
import sys
from pathlib import Path
from harness.judging.judge import Judge
from harness.judging.settings import JudgeSettings
from harness.store import Store
from harness.types import Message

settings = JudgeSettings(model="scripted", base_url=sys.argv[1], concurrency=1)
judge = Judge(settings, Store(Path(sys.argv[2])), "killed", None, lambda *progress: print(progress[0], flush=True))
judge.judge([(Message("user", f"question {number}"),) for number in range(100)], lambda answer: answer.text, {})
"""


def test_a_killed_process_loses_no_answer_that_it_reported(tmp_path: Path) -> None:
    """The judge answers 30 questions and stalls; the process that asks is killed."""
    stalled = threading.Event()

    def script(prompt: str, times: int) -> str:
        if times == 0 and prompt == "question 30" and not bench.server.stop.is_set():
            stalled.set()
            bench.server.stop.wait(60)
        return "[[1]]"

    bench = Bench(tmp_path, script)
    with bench.server.serving():
        kill_and_go_on(bench, stalled)


def kill_and_go_on(bench: Bench, stalled: threading.Event) -> None:
    command = [sys.executable, "-c", KILLED, bench.server.url, str(bench.folder / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reported = 0
        while reported < 30:
            reported = int(process.stdout.readline())
        assert stalled.wait(60)
        process.kill()
    bench.server.stop.set()
    assert len(bench.server.asked) == 31
    judgments = bench.judge(concurrency=4).judge(*always(*(f"question {number}" for number in range(100))))
    assert all(judgment.value == 1 for judgment in judgments)
    assert {text for text, count in bench.server.asked.items() if count > 1} == {"question 30"}  # never answered, so never paid


FAULTS: dict[int, Any] = {
    0: Reply({"error": {"message": "overloaded"}}, 429, {"retry-after": "1"}),
    1: Reply({"error": {"message": "boom"}}, 500),
    2: Reply(b"<html>bad gateway</html>", 502, {"content-type": "text/html"}),
    3: Reply(b'{"choices": [{"mess', 200),
    4: Reply({"choices": []}, 200),
    5: Reply(b"half", 200, {"content-length": "400", "connection": "close"}),
}


def faulty(prompt: str, times: int) -> Any:
    kind = sum(prompt.encode()) % 20  # 30 % of the questions meet a fault at first
    return FAULTS[kind] if kind in FAULTS and times == 0 else f"[[{len(prompt)}]]"


@pytest.mark.parametrize("bench", [faulty], indirect=True)
def test_with_faults_every_judgment_is_as_without(bench: Bench) -> None:
    texts = [f"question number {number}" for number in range(100)]
    judgments = bench.judge(timeout_seconds=60.0).judge(*always(*texts))
    assert [judgment.value for judgment in judgments] == [len(text) for text in texts]
    faults = sum(sum(text.encode()) % 20 in FAULTS for text in texts)
    assert faults > 20
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
            return Reply({"error": {"message": kind}}, 500 if kind == "stall" else int(kind))
        if kind == "cut off":
            return Reply(b'{"id": "x", "cho', 200, {"content-length": "4000", "connection": "close"})
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
    for _, question, answer, _ in answers_in(bench):
        asked = json.loads(question)
        kept[asked["messages"][0]["content"]][asked["slot"]] = json.loads(answer)["text"]
    for text, judgment in zip(texts, judgments, strict=True):
        good, said = f"[[{len(text)}]]", kept[text]
        assert set(said.values()) <= set(script.words[text])
        assert list(said) == ([0] if said[0] == good else [0, 1])  # asked once more exactly where it could not be read
        assert judgment.value == (len(text) if good in said.values() else None)  # as without faults, or unparsed
    unparsed = sum(set(said.values()) == {Unreliable.NONSENSE} for said in kept.values())
    assert 0 < unparsed < 20 and judge.tally.unparsed == unparsed
    assert judge.tally.paid.calls == judge.tally.calls == sum(map(len, kept.values()))


def answers_in(bench: Bench) -> list[Any]:
    with sqlite3.connect(bench.folder / "store" / "judgments.sqlite") as connection:
        found = connection.execute("SELECT * FROM answers").fetchall()
    connection.close()
    return found


def test_a_stall_is_asked_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda prompt, times: bench.server.stop.wait(20) or "late" if times == 0 else "[[2]]")
    with bench.server.serving():
        assert bench.judge(timeout_seconds=0.2).judge(*always("a"))[0].value == 2
        bench.server.stop.set()


@pytest.mark.parametrize("bench", [lambda prompt, times: Reply({"error": {"message": "no"}}, 503)], indirect=True)
def test_a_judge_that_only_fails_is_named(bench: Bench) -> None:
    with pytest.raises(StageError, match=r"the judge 'scripted' at http://127.0.0.1:\d+/v1 failed 3 times \(HTTP 503\)"):
        bench.judge(attempts=3).judge(*always("a"))
    assert len(bench.clock.slept) == 2


def mumbling(prompt: str, times: int) -> str:
    return {"never": "hm", "second": "hm" if times == 0 else "[[7]]"}.get(prompt, "[[1]]")


@pytest.mark.parametrize("bench", [mumbling], indirect=True)
def test_what_cannot_be_read_is_asked_once_more_and_then_stays_unparsed(bench: Bench) -> None:
    for run in ("first", "second"):
        judge = bench.judge(run=run)
        judgments = judge.judge(*always("never", "second", "clear"))
        assert [judgment.value for judgment in judgments] == [None, 7, 1]
        assert not judgments[0].parsed
        assert judgments[0].answer.text == "hm"
        assert judge.tally.facts()["unparsed"] == 1
        assert bench.server.asked == {"never": 2, "second": 2, "clear": 1}  # both answers are kept, also unreadable ones


@pytest.mark.parametrize(
    "bench", [lambda *_: Reply({"error": {"message": "filtered", "code": "content_filter"}}, 400)], indirect=True
)
def test_a_judge_that_declines_is_an_unparsed_judgment_and_not_asked_again(bench: Bench) -> None:
    judgment = bench.judge().judge([(Message("user", "a"),)], lambda answer: answer.text or None, {})[0]
    assert (judgment.value, judgment.answer.finish) == (None, "declined")
    assert bench.server.asked == {"a": 1}


class TestBudget:
    """Each question of three letters is bounded by 3 + 16 tokens and 2 of answer; the server bills 1 + 2 words."""

    TEXTS = ("aaa", "bbb", "ccc", "ddd", "eee")

    def test_calls(self, bench: Bench) -> None:
        with pytest.raises(StageError, match=r"budget is spent \(judge.max_calls = 3, of which 3 is used\).*run again"):
            bench.judge(max_calls=3).judge(*always(*self.TEXTS))
        assert sum(bench.server.asked.values()) == 3
        bench.judge(run="another", max_calls=2).judge(*always(*self.TEXTS))
        assert sum(bench.server.asked.values()) == 5

    def test_tokens_and_dollars_are_never_exceeded(self, bench: Bench) -> None:
        with pytest.raises(StageError, match="max_total_tokens = 30, of which 12 is used"):
            bench.judge(max_total_tokens=30, max_tokens=2).judge(*always(*self.TEXTS))
        assert sum(bench.server.asked.values()) == 4  # 12 are used, and one more could take 21
        price = {"input": 1e6, "output": 1e6}  # a dollar per token
        with pytest.raises(StageError, match=r"max_usd = 20, of which 0 is used"):
            bench.judge(run="dollars", max_usd=20, max_tokens=2, price=price).judge(*always(*self.TEXTS))

    def test_it_holds_for_all_stages_of_a_run_and_counts_what_was_paid(self, bench: Bench) -> None:
        bench.judge(max_calls=3).judge(*always("aaa", "bbb"))
        with pytest.raises(StageError, match="of which 3 is used"):
            bench.judge(max_calls=3).judge(*always("aaa", "bbb", "ccc", "ddd"))
        assert bench.server.asked == {"aaa": 1, "bbb": 1, "ccc": 1}

    def test_a_listed_price(self, bench: Bench) -> None:
        judge = bench.judge(price={"input": 10, "output": 30})
        judge.judge(*always("aaa"))
        assert judge.tally.facts()["judge_usd"] == pytest.approx((1 * 10 + 2 * 30) / 1e6)


def test_the_key_is_sent_with_the_question(tmp_path: Path) -> None:
    seen: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.headers.get("authorization"))
            self.send_error(401)

        def log_message(self, format: str, *rest: Any) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        bench = Bench(tmp_path, lambda *_: "")
        bench.server.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        for key, sent in ((KEY, f"Bearer {KEY}"), (None, "Bearer none")):
            with pytest.raises(StageError, match="HTTP 401"):
                bench.judge(key=key).judge(*always("a"))
            assert seen[-1] == sent
        server.shutdown()
        thread.join()


def test_the_key_is_in_no_file(bench: Bench) -> None:
    bench.judge().judge(*always("a", "b"))
    with pytest.raises(StageError):
        bench.judge(max_calls=0).judge(*always("c"))
    files = [path for path in bench.folder.rglob("*") if path.is_file()]
    assert any(path.name == "judgments.sqlite" for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_a_damaged_file_of_answers_is_an_error_that_names_it(bench: Bench) -> None:
    bench.judge().judge(*always("a"))
    (bench.folder / "store" / "judgments.sqlite").write_bytes(b"no database" * 200)
    with pytest.raises(StoreError, match=r"judgments.sqlite cannot be read or written .*move it away"):
        bench.judge().judge(*always("a"))
