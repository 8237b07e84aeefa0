"""Tuning on a board: the expected best, how certain a choice is, the sentence of the first screen, warnings and views."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from board.conftest import make_board, make_rows
from pydantic import ValidationError

from harness.api.spaces import SearchSpace
from harness.board import Board
from harness.board.compare import RowResult
from harness.board.entries import CostEntry, SpaceEntry, TrialEntry, TuningEntry
from harness.board.tuning import (
    best_trial,
    edge_of,
    expected_best,
    optimism,
    selection,
    tuned_alike,
    tuning_problems,
    tuning_warnings,
)
from harness.board.views.markdown import to_markdown
from harness.board.views.notebook import to_notebook
from harness.board.views.page import to_html
from harness.board.views.tuning import no_expected_best
from harness.config.tuning import Dimension, Settings
from harness.run.tuning import draw

RATE, KIND = "training.learning_rate", "training.schedule"
SPACE = {RATE: SpaceEntry(low=1e-5, high=1e-3, log=True, source="the paper"), KIND: SpaceEntry(choices=("cosine", "linear"))}


def searched(scores: Sequence[float | None], rates: Sequence[float] = (), **changes: Any) -> TuningEntry:
    """A search with a trial for each score, None for a failed one."""
    rates = rates or [1e-4 * (1 + number) for number in range(len(scores))]
    trials = tuple(
        TrialEntry(number=number, settings={RATE: rate, KIND: "cosine"}, seed=100, score=score)
        if score is not None
        else TrialEntry(number=number, settings={RATE: rate, KIND: "cosine"}, seed=100, state="failed", reason="NaN")
        for number, (score, rate) in enumerate(zip(scores, rates, strict=True))
    )
    arguments: dict[str, Any] = {
        **{"metric": "gold/reward", "higher_is_better": True, "sampler": "random", "space": SPACE, "trials": trials},
        **{"cost": CostEntry(seconds=900.0, tokens_trained=9e6, tokens_generated=0.0)},
    } | changes
    best = best_trial(trials, arguments["higher_is_better"])
    chosen = None if best is None else {"chosen": trials[best].settings, "number": best}
    entry = TuningEntry(**arguments, **(chosen or {}))
    return entry.model_copy(update={"expected": expected_best(entry)})


def tuned_rows(tuning: Callable[[RowResult], TuningEntry | None]) -> list[RowResult]:
    return [replace(row, tuning=tuning(row) if row.rounds and row.kind != "null" else None) for row in make_rows()]


def alike(row: RowResult) -> TuningEntry:
    return searched([1.0, 3.0, 2.0, 2.5])


@pytest.fixture(scope="module")
def tuned() -> Board:
    return make_board(tuned_rows(alike))


def test_the_expected_best_is_the_mean_over_all_draws_with_replacement() -> None:
    scores = [0.3, 0.9, 0.5, 0.4]
    for higher in (True, False):
        expected = expected_best(searched(scores, higher_is_better=higher))
        assert expected is not None and [point.trials for point in expected] == [1, 2, 3, 4]
        for point in expected[:3]:
            draws = list(itertools.product(scores, repeat=point.trials))
            best = max if higher else min
            assert point.mean == pytest.approx(np.mean([best(draw) for draw in draws]))
            assert point.low < point.mean < point.high


def test_a_failed_trial_counts_as_the_worst_score() -> None:
    assert expected_best(searched([0.2, None, 0.8])) == expected_best(searched([0.2, 0.2, 0.8]))


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (searched([0.1, 0.2], sampler="tpe"), "those of tpe are not"),
        (searched([0.1, None]), "takes two finished trials"),
    ],
)
def test_the_expected_best_is_absent_with_its_reason(entry: TuningEntry, reason: str) -> None:
    assert expected_best(entry) is None
    board = make_board(tuned_rows(lambda row: entry))
    assert reason in no_expected_best(board)
    assert reason in to_markdown(board) and reason in to_html(board, [])


def test_a_choice_among_equal_trials_is_told_from_one_among_different_ones() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(4, 400))
    clear = selection(noise + np.array([[0.0], [5.0], [1.0], [0.5]]), 1, True)
    assert clear is not None and (clear.kept, clear.spread, clear.told_apart, clear.prompts) == (1.0, 0.0, True, 400)
    means = noise.mean(axis=1)
    doubtful = selection(noise[:, :20], int(np.argmax(noise[:, :20].mean(axis=1))), True)
    assert doubtful is not None and doubtful.kept < 0.9 and doubtful.spread > 0
    worst = selection(noise, int(np.argmin(means)), False)
    assert worst is not None and worst.kept > 0.25  # of the smallest, where less is better
    assert selection(noise[:1], 0, True) is None


@pytest.mark.parametrize(
    ("tuning", "sentence"),
    [
        (alike, "Tuned alike: 4 trials each."),
        (lambda row: None, "Not tuned alike: no search for settings is on this board, rows have those of its config."),
        (
            lambda row: searched([1.0, 2.0]) if row.label == "kto" else alike(row),
            "Not tuned alike: 4 trials for self_contrast_16, iterative_dpo, dpo, self_contrast_4, self_refined and 4 more; "
            "2 trials for kto.",
        ),
        (
            lambda row: TuningEntry(default="off") if row.label == "kto" else searched([1.0, 2.0], sampler="tpe"),
            "default settings for kto.",
        ),
    ],
)
def test_the_first_screen_says_whether_rows_were_tuned_alike(
    tuning: Callable[[RowResult], TuningEntry | None], sentence: str
) -> None:
    board = make_board(tuned_rows(tuning))
    assert board.tuned_alike.endswith(sentence)
    assert board.tuned_alike in to_markdown(board).partition("##")[0].replace("\\", "")
    assert board.tuned_alike in to_html(board, []).partition("<main>")[0]
    assert board.tuned_alike in to_notebook(board)
    unequal = sentence != "Tuned alike: 4 trials each." and any(row.tuning for row in board.rows)
    assert unequal == any(board.tuned_alike in warning for warning in board.warnings)


def test_rows_from_elsewhere_are_not_known_to_be_tuned_alike() -> None:
    rows = [replace(row, kind="imported") if row.label == "kto" else row for row in tuned_rows(alike)]
    assert tuned_alike(make_board(rows).rows).endswith("; how kto was tuned is not known.")
    elsewhere = make_board([replace(row, kind="imported") for row in make_rows()[:2]])
    assert elsewhere.tuned_alike == "Not tuned alike: how self_contrast_16, dpo were tuned is not known."


@pytest.mark.parametrize(
    ("space", "value", "side"),
    [
        (SPACE[RATE], 1.1e-5, "low"),
        (SPACE[RATE], 9e-4, "high"),
        (SPACE[RATE], 1e-4, None),
        (SpaceEntry(low=0.0, high=1.0), 0.06, None),
        (SpaceEntry(choices=(0.1, 0.5, 1.0)), 1.0, "high"),
        (SpaceEntry(choices=(0.1, 0.5, 1.0)), 0.5, None),
        (SpaceEntry(choices=(0.1, 0.5)), 0.5, None),
        (SpaceEntry(choices=("a", 1, 2)), 2, None),
    ],
)
def test_the_edge_of_a_space(space: SpaceEntry, value: float, side: str | None) -> None:
    assert edge_of(space, value) == side


def test_warnings_name_the_rows(build: Callable[..., Board]) -> None:
    narrow = {RATE: SPACE[RATE]}
    trials = tuple(TrialEntry(number=n, settings={RATE: 2e-5 * (1 + n)}, seed=1, score=float(n)) for n in range(4))
    fewer = searched([1.0], space=narrow, trials=trials)
    unsure = selection(np.zeros((4, 30)), 1, True)
    odd = {
        "kto": lambda: fewer,
        "simpo": lambda: searched([1.0, 2.0, 3.0, None], rates=[1e-4, 2e-4, 1e-3, 3e-4]),
        "dpo": lambda: alike(make_rows()[0]).model_copy(update={"selection": unsure}),
    }
    text = "\n".join(make_board(tuned_rows(lambda row: odd.get(row.label, lambda: alike(row))())).warnings)
    assert "Rows search different numbers of settings with their trials (1: kto; 2: " in text
    assert "edge of its search space, and a better one may lie beyond: simpo training.learning_rate = 0.001 (high end)." in text
    assert "The tuning split (30 prompts) is too small to tell the best trial from the median one for dpo: " in text
    assert "Trials failed: simpo 1; board.json has the reasons." in text
    assert not [warning for warning in make_board(tuned_rows(alike)).warnings if "tuning" in warning.lower()]


@pytest.mark.parametrize("order", [1, -1], ids=["as chosen", "as in the file"])
def test_edges_are_named_in_one_order_so_that_a_board_is_built_again_alike(order: int) -> None:
    space = {RATE: SPACE[RATE], "objective.beta": SpaceEntry(choices=(0.01, 0.05, 0.1))}
    settings = {RATE: 1e-3, "objective.beta": 0.01}
    trial = TrialEntry(number=0, settings=dict(list(settings.items())[::order]), seed=100, score=1.0)
    entry = searched([1.0], space=space, trials=(trial,)).model_copy(update={"chosen": trial.settings, "number": 0})
    text = "\n".join(make_board(tuned_rows(lambda row: entry if row.label == "dpo" else None)).warnings)
    assert "dpo objective.beta = 0.01 (low end); dpo training.learning_rate = 0.001 (high end)." in text


def test_intervals_count_that_tuning_would_have_chosen_otherwise() -> None:
    wide = selection(np.zeros((4, 30)), 1, True)
    assert wide is not None
    entry = alike(make_rows()[0]).model_copy(update={"selection": wide.model_copy(update={"spread": 0.3, "told_apart": True})})
    plain, board = make_board(), make_board(tuned_rows(lambda row: entry))
    for row in board.rows:
        delta, before = row.delta("gold/reward"), plain.row(row.method).delta("gold/reward")  # type: ignore[union-attr]
        if delta is None or before is None:
            continue
        assert (delta.mean, delta.low, delta.high, delta.p) == (before.mean, before.low, before.high, before.p)
        spread = 0.3 * np.sqrt(1 + (row.tuning is not None))  # the baseline's choice, and the row's own
        assert delta.choice_low == pytest.approx(delta.mean - np.hypot(delta.mean - delta.low, 1.96 * spread))
        assert delta.choice_high == pytest.approx(delta.mean + np.hypot(delta.high - delta.mean, 1.96 * spread))
        other = row.delta("gold/win_rate")
        assert other is not None and other.choice_low is None  # another metric did not decide


def test_a_significant_difference_that_the_choice_makes_doubtful_is_named() -> None:
    board = make_board(tuned_rows(alike))
    row = next(row for row in board.rows if row.tuning and row.delta("gold/reward"))
    score, delta = row.scores["gold/reward"], row.delta("gold/reward")
    assert delta is not None
    surely = delta.model_copy(
        update={"mean": 0.5, "low": 0.1, "high": 0.9, "p_adjusted": 0.01, "choice_low": -0.2, "choice_high": 1}
    )
    doubtful = row.model_copy(update={"scores": {"gold/reward": score.model_copy(update={"delta": surely})}})
    (warning,) = [text for text in tuning_warnings([doubtful]) if "no longer" in text]
    assert warning.endswith(f"{row.method} +0.500 (−0.200 to +1.000) on gold/reward.")
    assert not [text for text in tuning_warnings([row]) if "no longer" in text]


def test_views_show_settings_scores_costs_and_figures(tuned: Board) -> None:
    row = tuned.row("kto")
    assert row is not None
    score, held_out, gap = optimism(row) or (0.0, 0.0, 0.0)
    assert (score, held_out) == (3.0, row.scores["gold/reward"].mean) and gap == pytest.approx(score - held_out)
    markdown, page = to_markdown(tuned).replace("\\", ""), to_html(tuned, [])
    assert "training.learning_rate 0.0002; training.schedule cosine | 2 of 4 | 3.000 |" in markdown
    assert "15.0 min, 9.0M tokens" in markdown and "15.0 min, 9.0M tokens" in page
    assert "Expected best of the first trials" in page and "Scores of kto&#39;s trials over training.learning_rate" in page
    assert page.count("over training.schedule, the chosen one marked") == sum(row.tuning is not None for row in tuned.rows)


def test_a_board_keeps_its_search_on_disk_and_a_changed_choice_is_noticed(tuned: Board, tmp_path: Any) -> None:
    read = Board.read(tuned.write(tmp_path))
    assert read.row("kto") == tuned.row("kto")
    entry = read.rows[0]
    assert entry.tuning is not None and list(tuning_problems(entry)) == []
    trials = entry.tuning.trials or ()
    for changes in ({"number": 0, "chosen": trials[0].settings}, {"chosen": trials[0].settings}, {"expected": None}):
        forged = entry.model_copy(update={"tuning": entry.tuning.model_copy(update=changes)})
        assert len(list(tuning_problems(forged))) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"trials": ()},
        {"space": {RATE: SPACE[RATE]}},
        {"space": {RATE: SpaceEntry(choices=(1.0, 2.0)), KIND: SPACE[KIND]}},
        {"number": 9},
        {"chosen": None},
        {"metric": None},
    ],
)
def test_a_search_that_is_no_whole_one_is_not_read(changes: dict[str, Any]) -> None:
    content = searched([1.0, 2.0]).model_dump() | {k: v for k, v in changes.items() if v is not None}
    for name in (name for name, value in changes.items() if value is None):
        del content[name]
    with pytest.raises(ValidationError):
        TuningEntry.model_validate(content)


def led(budgets: Sequence[int], repeats: int) -> list[float]:
    """How often each of several equal methods leads, by the quality of the settings that its own search chose.

    Quality falls with the square of the rate's distance from 1e-4, in decades; the tuning split adds noise to it.
    """
    rng, leaders = np.random.default_rng(0), np.zeros(len(budgets))
    space = {RATE: Dimension(SearchSpace(1e-6, 1e-2, log=True), whole=False)}

    def quality(settings: Settings) -> float:
        return -((math.log10(float(settings[RATE])) + 4) ** 2)

    for repeat in range(repeats):
        chosen = []
        for place, trials in enumerate(budgets):
            drawn = draw(space, "random", trials, seed=repeat * len(budgets) + place)
            scores = [quality(settings) + rng.normal(0, 0.05) for settings in drawn]
            best = best_trial(searched(scores, [float(settings[RATE]) for settings in drawn], space=WIDE).trials or (), True)
            chosen.append(quality(drawn[best or 0]))
        leaders[int(np.argmax(chosen))] += 1
    return list(leaders / repeats)


WIDE = {RATE: SpaceEntry(low=1e-6, high=1e-2, log=True), KIND: SPACE[KIND]}


def test_equal_methods_with_equal_searches_lead_alike_and_a_longer_search_leads_more() -> None:
    repeats, methods = 120, 3
    shares = led([8] * methods, repeats)
    chance = 1 / methods
    assert max(abs(share - chance) for share in shares) < 3 * math.sqrt(chance * (1 - chance) / repeats)
    assert led([16, 2, 2], repeats)[0] > 0.6
    # The board says so, where it is so.
    unequal = tuned_rows(
        lambda row: searched([1.0] * 16, [5e-5 * n for n in range(1, 17)]) if row.label == "kto" else searched([1.0, 2.0])
    )
    assert any("16 trials for kto" in warning for warning in make_board(unequal).warnings)
