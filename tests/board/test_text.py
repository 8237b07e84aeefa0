"""Text from models is shown as what it is; numbers are rounded once and for all media alike."""

from __future__ import annotations

import pytest

from harness.board.views.text import count, duration, number, one_line, p_value, signed, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("\u202egnp.exe\u202c", "\\u202egnp.exe\\u202c"),
        ("\x00\x7f\x9b\u200b\ufeff\u2028\ud800", "\\x00\\x7f\\x9b\\u200b\\ufeff\\u2028\\ud800"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("héllo 你好 👩‍👩‍👧 שלום", "héllo 你好 👩‍👩‍👧 שלום"),
    ],
)
def test_what_has_no_shape_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_one_line_is_one_line() -> None:
    assert one_line("a\nb\r\nc\td") == "a\\nb\\r\\nc\\td"


def test_numbers() -> None:
    assert [number(x) for x in (0.6124, -0.0004, 9.9996, 48.25, 999.96, 1204.4)] == [
        "0.612",
        "0.000",
        "10.0",
        "48.2",
        "1,000",
        "1,204",
    ]
    assert [signed(x) for x in (0.05, -0.05, 0.0, -0.0001, -1234.0)] == ["+0.050", "−0.050", "0.000", "0.000", "−1,234"]
    assert [duration(x) for x in (0.5, 42, 210, 7560)] == ["0.5 s", "42 s", "3.5 min", "2.1 h"]
    assert [count(x) for x in (950, 12_400, 3.1e6, 2e9, 0.5)] == ["950", "12.4k", "3.1M", "2.0B", "0.500"]
    assert [p_value(x) for x in (0.0311, 0.0002)] == ["p = 0.031", "p < 0.001"]
