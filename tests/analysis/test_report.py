"""Verdicts, tables, intervals and figures of an analysis."""

from __future__ import annotations

import csv
import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from harness import Axes, CheckedClaim, Figure, Interval, Line, Panel, Report, Values, contrast, resampled
from harness.analysis.report import ClaimVerdict, csv_table, markdown_table


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.1, 0.3, ClaimVerdict.AGREES), (-0.3, -0.1, ClaimVerdict.DISAGREES), (-0.1, 0.1, ClaimVerdict.UNDECIDED)],
)
def test_a_difference_above_zero(low: float, high: float, verdict: ClaimVerdict) -> None:
    found = CheckedClaim.above_zero("more is better", "Figure 1", "gold", Interval((low + high) / 2, low, high, 10))
    assert found.verdict == verdict
    assert found.measured.startswith("gold: ")


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.02, 0.03, ClaimVerdict.AGREES),
        (0.06, 0.2, ClaimVerdict.DISAGREES),
        (-0.2, -0.06, ClaimVerdict.DISAGREES),
        (0.0, 0.1, ClaimVerdict.UNDECIDED),
    ],
)
def test_a_difference_within_room(low: float, high: float, verdict: ClaimVerdict) -> None:
    assert CheckedClaim.within("alike", "Figure 1", "gap", Interval((low + high) / 2, low, high, 10), 0.05).verdict == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(2, 3, ClaimVerdict.AGREES), (1, 1.9, ClaimVerdict.DISAGREES), (1, 3, ClaimVerdict.UNDECIDED)]
)
def test_a_value_of_at_least(low: float, high: float, verdict: ClaimVerdict) -> None:
    assert (
        CheckedClaim.at_least("much more", "Assumption 1", "ratio", Interval((low + high) / 2, low, high, 10), 2).verdict
        == verdict
    )


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(1, 2, ClaimVerdict.AGREES), (2.1, 3, ClaimVerdict.DISAGREES), (1, 3, ClaimVerdict.UNDECIDED)]
)
def test_a_value_of_at_most(low: float, high: float, verdict: ClaimVerdict) -> None:
    assert CheckedClaim.at_most("no more", "Remark 1", "pairs", Interval((low + high) / 2, low, high, 10), 2).verdict == verdict


def test_a_contrast_is_over_the_common_prompts() -> None:
    rows = [
        Values.from_numbers({0: {"a": 1.0, "b": 2.0}, 1: {"a": 3.0, "b": 4.0}}),
        Values.from_numbers({0: {"b": 1.0, "c": 9.0}, 1: {"b": 2.0}}),
    ]
    found = contrast(rows, [1, -1])
    assert (found.mean, found.n) == (1.5, 1)  # of b: 2 − 1 and 4 − 2
    with pytest.raises(ValueError, match="no prompt in common"):
        contrast([Values.from_numbers({0: {"a": 1.0}}), Values.from_numbers({0: {"b": 1.0}})], [1, -1])
    with pytest.raises(ValueError, match="not equally many seeds"):
        contrast([Values.from_numbers({0: {"a": 1.0}}), Values.from_numbers({0: {"a": 1.0}, 1: {"a": 1.0}})], [1, -1])


def test_a_resampled_mean_has_the_interval_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(size=400)
    found = resampled(len(values), lambda drawn: float(values[drawn].mean()))
    assert found.mean == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    turned = resampled(len(values), lambda drawn: float(values[drawn].mean()), reverse=True)
    assert (turned.low, turned.high) == (pytest.approx(2 * found.mean - found.high), pytest.approx(2 * found.mean - found.low))


def test_the_tables_hold_bounds_and_gaps() -> None:
    rows = [["a|b", 1, Interval(0.5, 0.25, 0.75, 8)], ["c", None, None]]
    report = Report(["name", "count", "gold"], rows, Figure("empty", []), [], [])
    assert markdown_table(report).splitlines()[1:] == [
        "| --- | ---: | ---: |",
        "| a\\|b | 1 | 0.500 [0.250, 0.750] |",
        "| c | – | – |",
    ]
    assert list(csv.reader(io.StringIO(csv_table(report)))) == [
        ["name", "count", "gold", "gold low", "gold high", "gold n"],
        ["a|b", "1", "0.5", "0.25", "0.75", "8"],
        ["c", "", "", "", "", ""],
    ]


def test_a_figure_is_valid_escaped_and_names_its_lines() -> None:
    axes = Axes("a < b", "gold", ["1", "2"], level=0.0)
    lines = [Line("one & <script>", [Interval(1, 0.5, 1.5, 3), None]), Line("two", [0.5, 2.0]), Line("level", [1.0, 1.0])]
    root = ET.fromstring(Figure("title", [Panel(axes, lines), Panel(axes, lines[1:])]).svg())
    texts = [item.text for item in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("two") == texts.count("level") == 2
    assert {"one & <script>", "a < b", "gold"} <= set(texts)
    assert len(root.findall(".//{http://www.w3.org/2000/svg}circle")) == 5  # a level has no points
    height = float(root.attrib["height"])
    for item in root.iter("{http://www.w3.org/2000/svg}text"):
        assert 0 <= float(item.attrib["y"]) <= height / 2
