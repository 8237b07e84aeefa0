"""What a board or a design could see: against the functions it rests on, and the two ways to ask agree."""

from __future__ import annotations

from math import inf, sqrt

import pytest

from harness.board import Board
from harness.board.power import Design, Target, analyse, analyse_board
from harness.board.statistics import Error, detectable
from harness.errors import HarnessError


def test_a_design_is_the_formula_in_its_numbers() -> None:
    design = Design(prompts=200, seeds=1, prompt_deviation=1.2, alpha=0.05)
    (found,) = [analyse("m", design.entry(), Target())]
    assert found.detectable == pytest.approx(detectable(Error(1.2 / sqrt(200), 199.0), 0.05), rel=1e-4)
    assert found.detectable == pytest.approx(2.8 * 1.2 / sqrt(200), rel=0.02)  # 1.96 + 0.84
    crossed = Design(prompts=100, seeds=4, prompt_deviation=1.0, seed_deviation=0.1, rest_deviation=0.5, rows=10)
    size = sqrt(0.01 / 4 + 1 / 100 + 0.25 / 400)
    assert (
        detectable(Error(size, inf)) < crossed.entry().detectable < 1.15 * detectable(Error(size, inf))
    )  # the own test takes some


def test_what_is_needed_is_what_shows_it() -> None:
    entry = Design(prompts=100, seeds=3, prompt_deviation=1.0, seed_deviation=0.05, rest_deviation=0.5, rows=8).entry()
    found = analyse("m", entry, Target(difference=0.25))
    assert found.prompts_needed is not None and found.seeds_needed is None
    assert analyse("m", entry, Target(prompts=found.prompts_needed)).detectable <= 0.25
    assert analyse("m", entry, Target(prompts=found.prompts_needed - 1)).detectable > 0.25
    assert "out of reach, however many seeds" in " ".join(found.sentences())
    hidden = analyse("m", Design(100, 2, 1.0, seed_deviation=0.5).entry(), Target(difference=0.25, prompts=1000))
    assert hidden.prompts_needed is None and hidden.seeds_needed is not None
    assert "out of reach with 2 seeds, however many prompts" in " ".join(hidden.sentences())


def test_a_board_tells_of_its_primary_metrics(board: Board) -> None:
    found = analyse_board(board, Target())
    assert [item.metric for item in found] == [metric.key for metric in board.primary]
    assert board.analysis is not None
    for item in found:
        assert item.detectable == pytest.approx(board.analysis.power[item.metric].detectable)
    assert [item.metric for item in analyse_board(board, Target(), ["drift/kl"])] == ["drift/kl"]


def test_mistakes_are_named(board: Board) -> None:
    with pytest.raises(HarnessError, match="did you mean 'drift/kl'"):
        analyse_board(board, Target(), ["drift/lk"])
    with pytest.raises(HarnessError, match="says nothing of power"):
        analyse_board(board.model_copy(update={"analysis": None}), Target())
    with pytest.raises(HarnessError, match="difference = -1"):
        Target(difference=-1.0)
    with pytest.raises(HarnessError, match="prompts = 1: give a whole number from 2 on"):
        Design(1, 2, 1.0)
    with pytest.raises(HarnessError, match="all deviations are 0"):
        Design(10, 2, 0.0)


def test_one_seed_plans_no_seeds() -> None:
    found = analyse("m", Design(50, 1, 1.0).entry(), Target(difference=0.1))
    assert found.seeds_needed is None and found.note is not None and "nothing of seeds" in found.note
    assert not any("however many seeds" in sentence for sentence in found.sentences())
