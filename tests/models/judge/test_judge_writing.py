"""What a judge says is written as it arrives; where that fails, nothing more is paid for."""

from __future__ import annotations

import math
from typing import Any

import pytest
from models.judge.bench import Bench, FullDisk, always, answers_in

from harness.errors import StoreError, StoreWriteError
from harness.models.judge import answer_files, answers
from harness.models.server import HttpReply, completion


def test_on_a_full_disk_nothing_more_is_asked_and_what_was_written_is_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{'x' * 1000} {number}" for number in range(200)]
    with monkeypatch.context() as full:
        full.setattr(answer_files, "FileIO", FullDisk)
        with pytest.raises(StoreWriteError, match=r"written to .*judgments/.*\.jsonl \(No space left on device\): make room"):
            bench.judge(concurrency=4).judge(*always(*texts))
    asked, kept = sum(bench.server.asked.values()), len(answers_in(bench))
    assert asked < 100
    assert kept == bench.spent().calls
    bench.judge(concurrency=4).judge(*always(*texts))
    assert sum(bench.server.asked.values()) == asked + 200 - kept


def test_an_error_of_writing_is_the_one_that_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise StoreError("the file is locked")

    monkeypatch.setattr(answers.JudgeAnswers, "keep", fail)
    with pytest.raises(StoreError, match="the file is locked"):
        bench.judge(concurrency=2).judge(*always(*(f"question {number}" for number in range(200))))
    assert sum(bench.server.asked.values()) < 100


def odd(prompt: str, times: int) -> HttpReply:
    """Half a character, and log-probabilities that JSON has no words for."""
    body = completion("[[5]] \ud83d.", "judge\udc00", prompt)
    likely = {"a\ud800": -math.inf, "b": math.nan, "c": None, "d": -0.5}
    tops = [{"token": token, "logprob": logprob} for token, logprob in likely.items()]
    body["choices"][0] |= {"finish_reason": "stop\ud800", "logprobs": {"content": [{"top_logprobs": tops}]}}
    return HttpReply(body)


@pytest.mark.parametrize("bench", [odd], indirect=True)
def test_answers_that_no_file_could_hold_are_made_such_that_it_can(bench: Bench) -> None:
    for _ in range(2):
        (judgment,) = bench.judge().judge(*always("a", logprobs=True, top_logprobs=4))
        said = judgment.answer
        assert (judgment.value, said.text, said.model, said.finish) == (5, "[[5]] \ufffd.", "judge\ufffd", "stop\ufffd")
        assert said.top_logprobs == (("a\ufffd", -9999.0), ("b", -9999.0), ("c", -9999.0), ("d", -0.5))
    assert bench.server.asked == {"a": 1}
