"""What may be said of a difference, and of the whole board in one sentence."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from harness.board import Board, RowResult
from harness.board.board import Delta, MetricEntry
from harness.board.views.figures import ranks
from harness.board.views.markdown import remarks


def metric(higher_is_better: bool | None) -> MetricEntry:
    return MetricEntry(key="gold/win", description="", higher_is_better=higher_is_better, primary=True)


SURE = Delta(mean=0.1, low=0.05, high=0.15, p=0.001, p_adjusted=0.01)


@pytest.mark.parametrize(
    ("change", "higher_is_better", "expected", "marked"),
    [
        ({}, True, "better", "*"),
        ({}, False, "worse", "*"),
        ({}, None, "different", "*"),
        ({"mean": -0.1, "low": -0.15, "high": -0.05, "p_adjusted": 0.001}, True, "worse", "**"),
        ({"p_adjusted": 0.0009}, True, "better", "***"),
        ({"p_adjusted": 0.049}, True, "better", "*"),
        ({"p_adjusted": 0.05}, True, "unclear", ""),
        ({"p_adjusted": None}, True, "unclear", ""),
        ({"low": -0.01}, True, "unclear", ""),
        ({"below_noise": True}, True, "unclear", "≈"),
    ],
)
def test_a_difference_needs_the_test_the_interval_and_the_noise_floor(
    change: dict[str, float | bool], higher_is_better: bool | None, expected: str, marked: str
) -> None:
    delta = SURE.model_copy(update=change)
    assert delta.verdict(metric(higher_is_better)) == expected
    assert delta.mark == marked


def test_ranks_that_tie_stand_in_one_order_however_they_were_written(board: Board) -> None:
    assert board.analysis is not None
    key = board.primary[0].key
    found = {label: rank.model_copy(update={"mean": 2.0, "first": 0.1}) for label, rank in board.analysis.ranking[key].items()}
    turned = dict(reversed(found.items()))
    drawn = []
    for ranking in (found, turned):
        analysis = board.analysis.model_copy(update={"ranking": {key: ranking}})
        made = board.model_copy(update={"analysis": analysis})
        drawn.append((ranks(made, board.primary[0]), remarks(made)))
    assert len(found) > 2 and drawn[0] == drawn[1]


def test_references_are_not_ranked(board: Board) -> None:
    assert [row.method for row in board.references] == ["gold_dpo", "dpo_other_seeds", "start"]
    assert board.ranked[0].method == "self_contrast_16" and board.ranked[-1].failed
    assert len(board.ranked) + len(board.references) == len(board.rows)


def test_the_noise_floor_of_the_first_methods_is_the_larger_bound_of_the_null_rows_interval(board: Board) -> None:
    null = board.row("dpo_other_seeds")
    assert null is not None
    delta = null.scores["format/followed"].delta
    assert delta is not None and delta.low < 0 < delta.high < -delta.low
    first = board.model_copy(update={"statistics": board.statistics.model_copy(update={"methods": None})})
    assert first.noise_floor("format/followed") == -delta.low
    assert board.analysis is not None and board.noise_floor("format/followed") == board.analysis.noise["format/followed"]
    assert board.noise_floor("unknown") is None


def test_the_summary_claims_no_more_than_the_numbers(build: Callable[..., Board], board: Board, rows: list[RowResult]) -> None:
    assert re.fullmatch(
        r"self_contrast_16 has the best gold/win_rate: 0\.703, \+0\.059 against dpo \(−0\.\d+ to \+0\.\d+\)\. "
        r"That is not a sure difference: p = 1\.000 after correction\.",
        board.summary,
    )
    without_null = [row for row in rows if row.kind != "null"]
    assert build(without_null, baseline="kto").summary.endswith("after correction.")
    assert (
        build(baseline="self_contrast_16").summary == "self_contrast_16 has the best gold/win_rate: 0.703; it is the baseline."
    )


def test_the_summary_says_why_a_small_p_is_not_enough(build: Callable[..., Board], rows: list[RowResult]) -> None:
    board = build([row for row in rows if row.kind != "null"], baseline="kto")
    best, key = board.ranked[0], board.primary[0].key
    score = best.scores[key]
    assert score.delta is not None
    delta = score.delta.model_copy(update={"low": -0.01, "high": 0.5, "p_adjusted": 0.017, "one_seed": None})
    changed = best.model_copy(update={"scores": {**best.scores, key: score.model_copy(update={"delta": delta})}})
    shown = board.model_copy(update={"rows": tuple(changed if row is best else row for row in board.rows)})
    assert shown.summary.endswith(
        "That is not a sure difference: its interval includes 0, although p = 0.017 after correction."
    )


def test_names_are_shortened_where_that_is_clear(board: Board) -> None:
    assert [board.short_name(entry) for entry in board.metrics[:2]] == ["win_rate", "reward"]
    twice = board.model_copy(
        update={"metrics": (*board.metrics, MetricEntry(**{**board.metrics[0].model_dump(), "key": "judge/win_rate"}))}
    )
    assert twice.short_name(twice.metrics[0]) == "gold/win_rate"


def test_a_name_is_whole_where_rows_come_from_different_evaluators(board: Board) -> None:
    metric, first = board.metrics[0], board.rows[0]
    without = first.model_copy(update={"scores": {key: score for key, score in first.scores.items() if key != metric.key}})
    for kind, name in (("measured", "win_rate"), ("imported", metric.key)):
        apart = board.model_copy(update={"rows": (without.model_copy(update={"kind": kind}), *board.rows[1:])})
        assert apart.short_name(metric) == name
