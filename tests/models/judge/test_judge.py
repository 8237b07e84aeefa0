"""A judge on a scripted server: nothing is lost, nothing is asked twice, and the key is nobody's to see."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from models.judge.bench import KEY, Bench, always
from models.judge.scripted import Script

from harness.errors import StageError
from harness.models.server import HttpReply


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
        return "[[5]]" if len(seen) != count else HttpReply({"error": {"message": f"no such key {KEY}", "code": None}}, 401)

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
    assert any(path.parent.name == "judgments" for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
