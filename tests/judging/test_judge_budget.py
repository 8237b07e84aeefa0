"""Nothing costs more than was allowed."""

from __future__ import annotations

import pytest
from judging.bench import Bench, always

from harness.errors import StageError


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
