"""A tiny comparison that tunes its rows, end to end: trials, choice, board; killed, gone on with, and on other executors."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from distributions import write_distribution
from inline import harness
from test_compare import EMPTY_BUILDER, Lab, alive, made_lab, tiny_config, wait_until

from harness.api.registry import Registry
from harness.api.spaces import SearchSpace
from harness.board.entries import TuningEntry
from harness.board.verify import VerifyOutcome
from harness.config import resolve
from harness.config.tuning import Dimension
from harness.run.plan import plan
from harness.run.tuning import Search, draw
from harness.run.verify import verification

TRIALS, SEED = 3, 100
FAILED_ROW = 3  # exit code
RATE = "training.learning_rate"


def config(checkpoint: Path, **changes: Any) -> dict[str, Any]:
    """A baseline, a row that is tuned, one that keeps its defaults, and one whose every trial fails."""
    broken = {"label": "broken", "data": {"name": "nothing"}, "objective": {"name": "dpo"}}
    return tiny_config(checkpoint) | {
        "name": "tuned",
        "methods": ["sft", "null", "dpo", {"method": "orpo", "tuning": "off"}, broken],
        "evaluators": [{"name": "gold_reward", "max_tokens": 12}, "preference_accuracy"],
        "tuning": {"trials": TRIALS, "seeds": [SEED], "metric": "preference_accuracy/pair_accuracy", **changes},
    }


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Install the builder that gives no group, for this process and for those that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        folder = write_distribution(tmp_path_factory.mktemp("plugin"), "empty-builder", EMPTY_BUILDER)
        patch.setenv("PYTHONPATH", str(folder))
        patch.syspath_prepend(str(folder))
        yield


@pytest.fixture(scope="module")
def lab(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A config, and the board of its first run in `first`."""
    folder = tmp_path_factory.mktemp("tuned")
    (folder / "tuned.yaml").write_text(yaml.safe_dump(config(tiny_checkpoint)))
    lab = Lab(folder, folder / "tuned.yaml", inline=True)
    lab.run("first", code=FAILED_ROW)
    return lab


def tuning_of(lab: Lab, label: str) -> TuningEntry:
    row = lab.board("first").row(label)
    assert row is not None and row.tuning is not None
    return row.tuning


def test_a_row_is_trained_with_the_settings_of_its_best_trial(lab: Lab) -> None:
    tuning, row = tuning_of(lab, "dpo"), lab.board("first").row("dpo")
    assert row is not None and row.failed is None and row.seeds == (0,)
    scores = [trial.score for trial in tuning.trials or ()]
    assert len(scores) == TRIALS and len({trial.settings[RATE] for trial in tuning.trials or ()}) == TRIALS
    assert None not in scores and tuning.number == scores.index(max(scores))  # type: ignore[type-var]
    assert tuning.chosen == (tuning.trials or ())[tuning.number].settings
    trained = row.provenance.rounds[0]
    assert trained.training["learning_rate"] == tuning.chosen[RATE]
    assert trained.objective is not None and trained.objective.fields["beta"] == tuning.chosen["objective.beta"]
    assert {trial.seed for trial in tuning.trials or ()} == {SEED} and SEED not in row.seeds
    assert tuning.cost is not None and row.cost.tokens_trained is not None
    assert tuning.cost.tokens_trained == TRIALS * row.cost.tokens_trained  # the same data and budget in every trial
    assert [point.trials for point in tuning.expected or ()] == [1, 2, 3]


def test_rows_that_search_nothing_and_rows_that_found_nothing_are_marked(lab: Lab) -> None:
    board = lab.board("first")
    assert tuning_of(lab, "orpo") == TuningEntry(default="off")
    assert [row.tuning for row in board.rows if row.method in ("sft", "null")] == [None, None]
    broken = board.row("broken")
    assert (
        broken is not None and broken.failed is not None and broken.failed.startswith("every trial of its tuning failed, the f")
    )
    assert [(trial.state, trial.score) for trial in tuning_of(lab, "broken").trials or ()] == [("failed", None)] * TRIALS
    assert "the test wants none" in str((tuning_of(lab, "broken").trials or ())[0].reason)
    assert board.tuned_alike.startswith("Not tuned alike: ")
    assert {row.method for row in board.rows if row.failed} == {"broken"}
    assert verification(lab.folder / "first").outcome() is VerifyOutcome.verified


def test_nothing_is_evaluated_on_held_out_prompts_before_every_trial_has_ended(lab: Lab) -> None:
    search = Search.of(resolve(yaml.safe_load(lab.config.read_text()), Registry.load()))
    assert search is not None
    trials = {stage.key: stage.payload["split"] for stage in search.graph if stage.kind in ("answers", "evaluate")}
    assert set(trials.values()) == {"tuning"}
    events = [json.loads(line) for line in (lab.folder / "first" / "events.jsonl").read_text().splitlines()]
    scoring = [event for event in events if event.get("kind") in ("answers", "evaluate")]
    held_out = [place for place, event in enumerate(scoring) if event["key"] not in trials]
    tuned = [place for place, event in enumerate(scoring) if event["key"] in trials]
    assert len(tuned) >= 2 * TRIALS and len(held_out) >= 2 * 5  # starts and ends, of answers and evaluations
    assert max(tuned) < min(held_out)


def test_the_journal_counts_trials_and_rows(lab: Lab) -> None:
    status = json.loads((lab.folder / "first" / "status.json").read_text())
    assert status["state"] == "finished" and status["done"] + len(status["failed"]) <= status["stages"]
    assert status["work_done"] <= status["work"]


def test_a_second_run_computes_nothing_more_and_gives_the_same_board(lab: Lab) -> None:
    before = lab.published("store")
    lab.run("second", code=FAILED_ROW)
    assert lab.published("store") == before
    assert lab.board("second").without_times() == lab.board("first").without_times()


def test_the_config_that_tune_writes_is_that_of_the_boards_rows(lab: Lab, tmp_path: Path) -> None:
    before, settled = lab.published("store"), tmp_path / "settled.yaml"
    done = harness("tune", lab.config, "--to", settled, "--workers", "1", "--store", lab.folder / "store")
    assert done.returncode == 0, done.stderr
    assert lab.published("store") == before  # its trials are those of the comparison
    assert "dpo: trial " in done.stdout and "orpo: its own settings (off)" in settled.read_text()
    assert "broken: every trial failed" in settled.read_text()
    raw = yaml.safe_load(settled.read_text())
    assert "tuning" not in raw and raw["name"] == "tuned-settled"
    row, planned = lab.board("first").row("dpo"), plan(resolve(raw, Registry.load()))
    assert row is not None
    assert row.provenance.models == {"0": next(one.model for one in planned.rows if one.label == "dpo")}


@pytest.mark.slow
def test_a_search_killed_at_random_moments_goes_on_to_the_same_board(lab: Lab) -> None:
    rng = random.Random(0)
    for workers in ("1", "2"):
        store = f"killed-{workers}"
        for count in sorted(rng.sample(range(2, lab.published("store") - 1), 4)):
            process = lab.start(store, store=store)
            wait_until(lambda: lab.published(store) >= count or process.poll() is not None)  # noqa: B023
            children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            assert alive(children) == []
        lab.run(store, "--workers", workers, store=store, code=FAILED_ROW)
        assert lab.published(store) == lab.published("store")
        assert lab.board(store).without_times() == lab.board("first").without_times()


@pytest.mark.slow
def test_ray_makes_the_same_trials_and_the_same_choice(lab: Lab) -> None:
    pytest.importorskip("ray")
    lab.run("ray", "--executor", "ray", "--workers", "2", store="ray-store", code=FAILED_ROW)
    assert lab.board("ray").without_times() == lab.board("first").without_times()


@pytest.mark.slow
def test_trials_that_depend_on_earlier_ones_do_not_depend_on_the_number_of_workers(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    changes = {"methods": ["sft", "dpo"], "evaluators": ["preference_accuracy"]}
    other = made_lab(tmp_path, config(tiny_checkpoint, sampler="tpe", trials=13) | changes)
    other.run("two", "--workers", "2", store="two-store")
    assert other.board("two").without_times() == other.board("first").without_times()
    tuning = tuning_of(other, "dpo")
    assert len(tuning.trials or ()) == 13 and tuning.expected is None  # TPE's trials are not independent


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_halving_trains_the_better_half_anew_on_more_of_the_budget(tiny_checkpoint: Path, tmp_path: Path, workers: str) -> None:
    changes = {"methods": ["sft", "dpo"], "evaluators": ["preference_accuracy"]}
    halved = made_lab(tmp_path, config(tiny_checkpoint, pruner="halving", trials=5) | changes, "--workers", workers)
    tuning = tuning_of(halved, "dpo")
    shares = sorted(trial.share for trial in tuning.trials or ())
    assert shares == [0.25, 0.25, 0.5, 1.0, 1.0]  # 5 at a quarter, 3 at a half, 2 at all of it
    assert {trial.share for trial in tuning.trials or () if trial.state == "complete"} == {1.0}
    assert tuning.number in {trial.number for trial in tuning.trials or () if trial.share == 1.0}
    assert tuning.expected is None
    board = halved.board("first")
    assert board.tuned_alike == "Tuned alike: 5 trials with halving each."
    row = board.row("dpo")
    assert row is not None and tuning.cost is not None and row.cost.tokens_trained is not None
    # 5 × 1/4 + 3 × 1/2 + 2 trainings in place of 5, on prompts of different lengths
    assert 3 * row.cost.tokens_trained < (tuning.cost.tokens_trained or 0) < 6.5 * row.cost.tokens_trained


@pytest.mark.slow
def test_an_equal_budget_of_tokens_pays_for_as_many_trials_as_it_can(tiny_checkpoint: Path, tmp_path: Path) -> None:
    changes = {"methods": ["sft", "dpo", "orpo"], "evaluators": ["preference_accuracy"]}
    bought = made_lab(tmp_path, config(tiny_checkpoint, trials={"tokens": 6000}) | changes)
    board = bought.board("first")
    assert board.tuned_alike == "Tuned alike: 6,000 tokens of trials each."
    for label in ("dpo", "orpo"):
        tuning = tuning_of(bought, label)
        spent, count = (tuning.cost.tokens_trained if tuning.cost else None) or 0.0, len(tuning.scores)
        assert count > 1 and 6000 - spent / count < spent <= 6000


# Drawing


SPACE: Mapping[str, Dimension] = {
    "a": Dimension(SearchSpace(1e-5, 1e-3, log=True), whole=False),
    "b": Dimension(SearchSpace(choices=(0.1, 1, "x")), whole=False),
    "c": Dimension(SearchSpace(1, 8), whole=True),
}


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_draws_follow_from_the_arguments_alone(sampler: str) -> None:
    first = draw(SPACE, sampler, 6, seed=100)
    assert first == draw(SPACE, sampler, 6, seed=100)
    assert first[:3] == draw(SPACE, sampler, 3, seed=100)
    assert first != draw(SPACE, sampler, 6, seed=101)
    assert all(value in SPACE[path].space for settings in first for path, value in settings.items())
    assert all(type(settings["c"]) is int for settings in first)


def test_later_trials_of_tpe_know_the_earlier_ones() -> None:
    space = {"a": SPACE["a"]}
    earlier = [(settings, -abs(settings["a"] - 1e-4)) for settings in draw(space, "tpe", 12, seed=1)]  # type: ignore[operator]
    failed = [(settings, None) for settings, _ in earlier]
    known, unknown = (draw(space, "tpe", 16, seed=1, earlier=told)[12:] for told in (earlier, failed))
    assert known != unknown
    assert [settings for settings, _ in earlier] == draw(space, "tpe", 16, seed=1, earlier=earlier)[:12]
    assert known == draw(space, "tpe", 16, seed=1, earlier=earlier)[12:]


def test_a_grid_visits_every_combination_once() -> None:
    space = {
        name: Dimension(SearchSpace(choices=values), whole=False) for name, values in (("x", (1, 2, 3)), ("y", (0.1, 0.2)))
    }
    drawn = draw(space, "grid", 6, seed=3)
    assert sorted((settings["x"], settings["y"]) for settings in drawn) == [(x, y) for x in (1, 2, 3) for y in (0.1, 0.2)]  # type: ignore[type-var]
