"""The `judge` section and the price table."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from harness.models.judge.settings import JudgeSettings, Price, list_price, price_table


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"base_url": "localhost:8000"}, "write a URL"),
        ({"base_url": "https://me:secret@host/v1"}, "give the key by `api_key_env`"),
        ({"api_key_env": "sk-abc"}, "never the key itself"),
        ({"model": "mine", "max_usd": 5}, "max_usd needs the price of 'mine'"),
        ({"modle": "x"}, "Extra inputs"),
    ],
)
def test_mistakes(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        JudgeSettings.model_validate({"model": "gpt-4o", **fields})


def test_what_decides_answers_is_the_identity_and_nothing_else_is() -> None:
    judge = JudgeSettings(model="gpt-4o")
    same = judge.changed({"concurrency": 2, "max_usd": 1, "api_key_env": "OTHER", "attempts": 3, "timeout_seconds": 9})
    assert same.identity == judge.identity
    for change in ({"model": "gpt-4"}, {"temperature": 1}, {"max_tokens": 5}, {"seed": 1}, {"base_url": "http://other/v1"}):
        assert judge.changed(change).identity != judge.identity
    moved = judge.changed({"name": "ours"})
    assert moved.identity == moved.changed({"base_url": "http://elsewhere/v1"}).identity


def test_prices_are_data_with_a_date_and_a_source() -> None:
    table = price_table()
    assert table["date"] and table["source"] and table["unit"]
    assert all(len(prices) == 2 and min(prices) >= 0 for prices in table["models"].values())
    assert list_price("gpt-4o-2024-08-06") == list_price("gpt-4o") == Price(2.5, 10)
    assert list_price("gpt-4o-2024-05-13") == Price(5, 15)  # listed itself
    assert list_price("llama") is None
    assert Price(2.5, 10).of(1_000_000, 100_000) == 3.5


def test_a_temperature_is_at_most_2() -> None:
    """As the servers have it."""
    assert JudgeSettings(model="m", temperature=2).temperature == 2
    with pytest.raises(ValidationError, match="less than or equal to 2"):
        JudgeSettings(model="m", temperature=2.1)
