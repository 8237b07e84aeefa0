"""Questions that a server will not answer."""

from __future__ import annotations

import pytest
from judging.bench import Bench

from harness.judging.server import Reply
from harness.types import Message


@pytest.mark.parametrize(
    "bench", [lambda *_: Reply({"error": {"message": "filtered", "code": "content_filter"}}, 400)], indirect=True
)
def test_a_judge_that_declines_is_an_unparsed_judgment_and_not_asked_again(bench: Bench) -> None:
    judgment = bench.judge().judge([(Message("user", "a"),)], lambda answer: answer.text or None, {})[0]
    assert (judgment.value, judgment.answer.finish) == (None, "declined")
    assert bench.server.asked == {"a": 1}
