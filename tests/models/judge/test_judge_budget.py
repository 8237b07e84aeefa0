"""Nothing costs more than was allowed, whatever the server says of it, or does not say."""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from models.judge.bench import Bench, always

from harness.api.types import JudgeAnswer
from harness.errors import StageError
from harness.models.judge.answers import JudgeCost
from harness.models.judge.reading import reports_tokens
from harness.models.server import HttpReply, completion

DOLLAR_PER_TOKEN = {"input": 1e6, "output": 1e6}


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
        with pytest.raises(StageError, match=r"max_usd = 20, of which 0 is used"):
            bench.judge(run="dollars", max_usd=20, max_tokens=2, price=DOLLAR_PER_TOKEN).judge(*always(*self.TEXTS))

    def test_it_holds_for_all_stages_of_a_run_and_counts_what_was_paid(self, bench: Bench) -> None:
        bench.judge(max_calls=3).judge(*always("aaa", "bbb"))
        with pytest.raises(StageError, match="of which 3 is used"):
            bench.judge(max_calls=3).judge(*always("aaa", "bbb", "ccc", "ddd"))
        assert bench.server.asked == {"aaa": 1, "bbb": 1, "ccc": 1}

    def test_a_listed_price(self, bench: Bench) -> None:
        judge = bench.judge(price={"input": 10, "output": 30})
        judge.judge(*always("aaa"))
        assert judge.tally.facts()["judge_usd"] == pytest.approx((1 * 10 + 2 * 30) / 1e6)

    def test_without_a_price_nothing_is_paid(self, bench: Bench) -> None:
        bench.judge().judge(*always("aaa"))
        assert bench.spent() == JudgeCost(1, 3, 0.0)

    @pytest.mark.parametrize("bench", [lambda *_: HttpReply({"error": {"message": "no such key"}}, 401)], indirect=True)
    def test_who_waits_for_a_part_of_it_sends_nothing_after_a_refusal(self, bench: Bench) -> None:
        with pytest.raises(StageError, match="HTTP 401"):
            bench.judge(max_total_tokens=30, max_tokens=2, concurrency=4).judge(*always(*self.TEXTS))
        assert sum(bench.server.asked.values()) == 1


@pytest.mark.parametrize(
    ("text", "input_tokens", "output_tokens", "reported"),
    [("[[1]]", 1, 1, True), ("[[1]]", 0, 1, False), ("[[1]]", 1, 0, False), ("", 1, 0, True), ("", 0, 0, False)],
)
def test_one_token_is_a_report_and_none_is_not(text: str, input_tokens: int, output_tokens: int, reported: bool) -> None:
    answer = JudgeAnswer(text, "judge", "stop", input_tokens, output_tokens)
    assert reports_tokens(answer) is reported


def saying(usage: Any) -> Callable[[str, int], HttpReply]:
    return lambda prompt, times: HttpReply({**completion("[[1]]", "judge", prompt), "usage": usage})


WITHOUT = {
    "none": None,
    "half": {"prompt_tokens": 1},
    "no number": {"prompt_tokens": "?", "completion_tokens": "?"},
    "none that can be": {"prompt_tokens": 10**30, "completion_tokens": math.inf},
    "negative": {"prompt_tokens": -5, "completion_tokens": -5},
}


@pytest.mark.parametrize("bench", list(map(saying, WITHOUT.values())), ids=WITHOUT, indirect=True)
def test_an_answer_without_usage_counts_as_all_that_was_set_aside(bench: Bench) -> None:
    fields = {"max_usd": 50, "max_tokens": 2, "price": DOLLAR_PER_TOKEN, "concurrency": 1}
    for _ in range(2):  # again after a restart
        with pytest.raises(StageError, match="max_usd = 50, of which 42 is used"):
            bench.judge(**fields).judge(*always("aaa", "bbb", "ccc"))
        assert bench.server.asked == {"aaa": 1, "bbb": 1}
    assert bench.spent() == JudgeCost(2, 42, 42.0)
    judge = bench.judge(**fields)
    assert judge.judge(*always("aaa"))[0].answer.output_tokens == 0  # as reported
    assert judge.tally.paid == JudgeCost()


def stalled(bench: Bench) -> str:
    bench.server.stop.wait(20)
    return "late"


LOST: dict[str, Callable[[Bench], Any]] = {
    "stalled": stalled,
    "cut off": lambda _: HttpReply(b"half", 200, {"content-length": "400", "connection": "close"}),
    "garbled": lambda _: HttpReply(b'{"choices": [{"mess', 200),
    "no completion": lambda _: HttpReply({"object": "chat.completion"}, 200),
    "failed with a status of 200": lambda _: HttpReply({"error": {"message": "the model is overloaded", "code": 503}}, 200),
}


@pytest.mark.parametrize("kind", LOST)
def test_a_question_that_was_sent_and_never_answered_counts_as_all_that_was_set_aside(tmp_path: Path, kind: str) -> None:
    bench = Bench(tmp_path, lambda *_: LOST[kind](bench))
    with bench.server.serving():
        for _ in range(2):  # again after a restart
            with pytest.raises(StageError, match="max_total_tokens = 50, of which 42 is used"):
                bench.judge(max_total_tokens=50, max_tokens=2, timeout_seconds=0.5).judge(*always("aaa"))
            assert bench.server.asked == {"aaa": 2}
        bench.server.stop.set()
    assert bench.spent() == JudgeCost(2, 42)


@pytest.mark.parametrize("said", [b"", b"no HTTP at all\r\n\r\n"])
def test_so_does_one_whose_connection_breaks(tmp_path: Path, said: bytes) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.wfile.write(said)
            self.close_connection = True

        def log_message(self, format: str, *rest: Any) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        bench = Bench(tmp_path, lambda *_: "")
        bench.server.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        with pytest.raises(StageError, match="failed 2 times"):
            bench.judge(attempts=2, max_tokens=2).judge(*always("aaa"))
        server.shutdown()
        thread.join()
    assert bench.spent() == JudgeCost(2, 42)


@pytest.mark.parametrize("bench", [lambda *_: HttpReply({"error": {"message": "no"}}, 503)], indirect=True)
def test_a_refusal_by_status_costs_nothing(bench: Bench) -> None:
    with pytest.raises(StageError, match="failed 3 times"):
        bench.judge(attempts=3, max_total_tokens=50, max_tokens=2).judge(*always("aaa"))
    assert bench.spent() == JudgeCost()


@pytest.mark.parametrize("listens", [False, True])
def test_a_server_that_cannot_be_reached_costs_nothing(tmp_path: Path, listens: bool) -> None:
    """It refuses connections, or leaves them waiting, since its queue of them is full."""
    with socket.socket() as server, socket.socket() as first, socket.socket() as second:
        server.bind(("127.0.0.1", 0))
        if listens:
            server.listen(0)
            for filling in (first, second):
                filling.setblocking(False)
                filling.connect_ex(server.getsockname())
        bench = Bench(tmp_path, lambda *_: "")
        bench.server.url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        with pytest.raises(StageError, match="failed 2 times"):
            bench.judge(attempts=2, timeout_seconds=0.5).judge(*always("aaa"))
    assert bench.spent() == JudgeCost()
