"""The `tuning` section: whose spaces rows search, what is refused while planning; configs without it keep their keys."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from harness import SearchSpace
from harness.api.registry import Registry
from harness.api.spaces import declared_spaces
from harness.cli.plan import print_plan
from harness.config import resolve
from harness.errors import ConfigError
from harness.run.estimates.plan import plan_report
from harness.run.plan import plan
from harness.run.tuning import Search, on_share

RAW: dict[str, Any] = {
    "schema": 1,
    "name": "tuned",
    "source": {"name": "sandbox", "train": 32},
    "model": {"path": "sandbox"},
    "budget": {"prompts": 16},
    "methods": ["sft", "null", "dpo", "orpo"],
    "evaluators": ["gold_reward", "preference_accuracy"],
    "baseline": "sft",
    "tuning": {"trials": 4},
}
RATE, BETA = "training.learning_rate", "objective.beta"


def spaces(changes: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The space of every entry that searches, in words."""
    tuning = resolve({**RAW, **changes}, Registry.load()).tuning
    assert tuning is not None
    return {series: {path: str(item.space) for path, item in entry.space.items()} for series, entry in tuning.entries.items()}


def test_rows_search_what_their_components_declare() -> None:
    rate = "1e-05 to 0.001, log"
    assert spaces({}) == {
        "dpo": {RATE: rate, BETA: "one of 0.01, 0.05, 0.1"},
        "orpo": {RATE: rate, "objective.odds_ratio_weight": "one of 0.1, 0.5, 1, 2"},
    }


@pytest.mark.parametrize(
    ("row", "section", "searched"),
    [
        # the config's by `all`, by method, by label; then the row's own
        ({}, {"all": {RATE: [1e-4, 2e-4]}}, {RATE: "one of 0.0001, 0.0002", BETA: "one of 0.01, 0.05, 0.1"}),
        ({"label": "mine"}, {"dpo": {BETA: {"range": [0.1, 1]}}}, {RATE: "1e-05 to 0.001, log", BETA: "0.1 to 1"}),
        ({"label": "mine"}, {"dpo": {BETA: [1.0, 2.0]}, "mine": {BETA: False}}, {RATE: "1e-05 to 0.001, log"}),
        ({"tuning": {BETA: {"log": [0.2, 2]}, RATE: "off"}}, {"dpo": {BETA: [0.1, 0.3]}}, {BETA: "0.2 to 2, log"}),
        # what the row sets itself is not searched
        ({"objective": {"beta": 0.3}}, {"dpo": {BETA: [0.1, 0.2]}}, {RATE: "1e-05 to 0.001, log"}),
        ({"rounds": [{}, {"training": {"learning_rate": 1e-4}}]}, {}, {BETA: "one of 0.01, 0.05, 0.1"}),
        ({"tuning": {"data.label_noise": "off"}}, {}, {RATE: "1e-05 to 0.001, log", BETA: "one of 0.01, 0.05, 0.1"}),
        ({"tuning": False}, {}, {}),
    ],
)
def test_a_row_narrows_widens_and_leaves_out(row: dict[str, Any], section: dict[str, Any], searched: dict[str, str]) -> None:
    entry = {"method": "dpo", **row}
    assert spaces({"methods": ["sft", entry], "tuning": {"spaces": section}})[row.get("label", "dpo")] == searched


def test_off_and_all_set_are_told_apart() -> None:
    fixed = {"method": "dpo", "label": "set", "training": {"learning_rate": 1e-4}, "objective": {"beta": 0.1}}
    tuning = resolve({**RAW, "methods": ["sft", {"method": "dpo", "tuning": "off"}, fixed]}, Registry.load()).tuning
    assert tuning is not None
    assert {series: entry.default for series, entry in tuning.entries.items()} == {"dpo": "off", "set": "fixed"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"spaces": {"dpo": {BETA: [-1.0, 0.1]}}},
            "tuning.spaces.dpo.objective.beta = -1.0: dpo cannot have it: it should be gr",
        ),
        ({"spaces": {"dpo": {BETA: {"log": [0, 1]}}}}, "its low end is 0: on a logarithmic scale it should be above 0"),
        ({"spaces": {"dpo": {BETA: {"range": [2, 1]}}}}, "its low end 2 should be below its high end 1"),
        (
            {"spaces": {"dpo": {BETA: [0.1]}}},
            "tuning.spaces.dpo.objective.beta = [0.1]: list at least two values to choose from",
        ),
        ({"spaces": {"dpo": {BETA: 0.1}}}, "write a list of values, {log: [low, high]}, {range: [low, high]}, or off"),
        ({"spaces": {"dpo": {"objective.bta": [0.1, 1.0]}}}, "no such field; did you mean 'beta'?"),
        ({"spaces": {"dpo": {"beta": [0.1, 1.0]}}}, "a setting begins with training., objective., data., trainer."),
        ({"spaces": {"dpp": {BETA: [0.1, 1.0]}}}, "no row that trains has this label or method; did you mean 'dpo'?"),
        ({"spaces": {"all": {"objective.zeta": [0.1, 1.0]}}}, "no row has this setting: leave it out"),
        ({"sampler": "grid"}, "a grid needs values: list them"),
        ({"metric": "gold_reward/golden"}, "no evaluator of the config has it; did you mean 'gold_reward/gold'"),
        ({"seeds": [1]}, "1 is a seed of the board, and settings would be chosen for its luck"),
        ({"seeds": [1000]}, "is a seed of the board"),  # the null row's
        ({"seeds": [7, 7]}, "a seed occurs twice"),
        ({"trials": 0}, "tuning.trials = 0: it should be greater than or equal to 1"),
        ({"sampler": "cmaes"}, "it should be 'random', 'tpe' or 'grid'"),
    ],
)
def test_a_wrong_section_is_one_clear_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({**RAW, "tuning": changes}, Registry.load())
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluation": {"split": "tuning"}}, "evaluation.split = 'tuning': settings are chosen on the tuning split"),
        (
            {"methods": ["sft", {"method": "dpo", "objective": {"beta": 0.2}, "tuning": {BETA: [0.1, 0.3]}}]},
            "methods.1.tuning.objective.beta = [0.1, 0.3]: the row sets objective.beta itself",
        ),
        (
            {"methods": ["sft", {"method": "dpo", "tuning": {"training.prompts_per_batch": {"range": [1.5, 8]}}}]},
            "methods.1.tuning.training.prompts_per_batch = 1.5: dpo cannot have it: it should be a valid integer",
        ),
        (
            {"methods": ["sft", {"method": "dpo", "tuning": 3}]},
            "methods.1.tuning = 3: write off, or a section of search spaces",
        ),
        (
            {
                "budget": {"prompts": 16, "updates": 4},
                "methods": ["sft", {"method": "dpo", "tuning": {"training.epochs": [1, 2]}}],
            },
            "the budget's limit decides how often a prompt is seen",
        ),
        (
            {"methods": ["sft", {"method": "dpo", "tuning": "off"}], "tuning": None},
            "methods.1.tuning = 'off': the config has no",
        ),
        (
            {
                "evaluators": [{"name": "pairwise_judge", "opponent": "dpo"}],
                "judge": {"model": "m", "base_url": "http://localhost:1/v1", "api_key_env": None},
            },
            "pairwise_judge compares with dpo, which is tuned itself",
        ),
    ],
)
def test_a_search_that_does_not_fit_the_rows_is_one_clear_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({**RAW, **changes}, Registry.load())
    assert message in str(caught.value)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "both `low` and `high`"),
        ({"low": 1.0, "high": 2.0, "choices": (1, 2)}, "leave one of them out"),
        ({"choices": (1, 1)}, "each once"),
        ({"low": 2.0, "high": 1.0}, "should be below"),
        ({"low": 0.0, "high": 1.0, "log": True}, "above 0"),
    ],
)
def test_a_wrong_space_of_a_component_is_refused_where_it_is_written(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SearchSpace(**arguments)


def test_spaces_are_read_from_annotations_and_contain_what_can_be_drawn() -> None:
    class Section(BaseModel):
        rate: Annotated[float, SearchSpace(1e-4, 1e-2, log=True)] = 1e-3
        kind: Annotated[str, SearchSpace(choices=("a", "b"))] = "a"
        other: float = 1.0

    spaces = declared_spaces(Section)
    assert set(spaces) == {"rate", "kind"}
    assert [value in spaces["rate"] for value in (1e-4, 1e-2, 2e-2, True, "1e-3")] == [True, True, False, False, False]
    assert [value in spaces["kind"] for value in ("a", "c", 1)] == [True, False, False]


def test_the_same_rows_without_a_search_keep_their_keys() -> None:
    without = {name: value for name, value in RAW.items() if name != "tuning"}
    registry = Registry.load()
    assert set(plan(resolve(without, registry)).stages) == set(plan(resolve(RAW, registry)).stages)
    assert "tuning" not in resolve(without, registry).config.model_dump(mode="json")


def test_trials_are_on_the_tuning_split_and_the_same_however_they_are_asked_for() -> None:
    search = Search.of(resolve(RAW, Registry.load()))
    assert search is not None
    stages = search.graph
    assert {stage.payload["split"] for stage in stages if stage.kind in ("answers", "evaluate")} == {"tuning"}
    assert {row.label for row in stages.rows} == {f"{label}[trial {n}]" for label in ("dpo", "orpo") for n in range(1, 5)}
    assert {row.seed for row in stages.rows} == {100}
    again = Search.of(resolve({**RAW, "tuning": {"trials": 8}}, Registry.load()))
    assert again is not None
    assert set(stages.stages) < set(again.graph.stages)  # a longer search begins with the trials of a shorter one
    rates = [[trial.settings[RATE] for trial in search.trials[label]] for label in ("dpo", "orpo")]
    assert len(set(rates[0])) == 4 and all(1e-5 <= rate <= 1e-3 for rate in rates[0])  # type: ignore[operator]
    assert search.ask() == set()


def test_the_plan_shows_that_trials_come_first(tmp_path: Path) -> None:
    raw = {**RAW, "methods": ["sft", "dpo", {"method": "orpo", "tuning": "off"}], "source": {"name": "sandbox", "train": 32}}
    report = plan_report(resolve(raw, Registry.load()), tmp_path / "none", None, None)
    trials = report.trials
    assert trials is not None and trials.rows == {"dpo": 4, "orpo": 0}
    assert trials.trainings == 1 + 4 and trials.remaining == trials.stages > 0
    assert report.as_dict()["tuning"] == asdict(trials)
    assert "first, on the tuning split: 4 trials by random for each of 1 rows, chosen by gold_reward/gold" in trials.line()
    assert "orpo keeps its settings; then the rows above" in trials.line()
    print_plan(report)


def test_a_tuning_split_that_is_too_small_is_refused_while_planning(tmp_path: Path) -> None:
    raw = {**RAW, "source": {"name": "sandbox", "train": 32, "tuning": 1}}
    with pytest.raises(ConfigError, match="tuning"):
        plan_report(resolve(raw, Registry.load()), tmp_path / "none", None, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": {"tokens": 100, "seconds": 2}}, "give one of `tokens` and `seconds`"),
        ({"trials": {"tokens": 0}}, "tuning.trials.tokens = 0: it should be greater than or equal to 1"),
        ({"trials": {"tokens": 100}, "pruner": "halving"}, "`trials` as tokens or seconds goes without a `pruner`"),
        ({"pruner": "median"}, "it should be 'none' or 'halving'"),
    ],
)
def test_wrong_budgets_and_pruners_are_one_clear_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({**RAW, "tuning": changes}, Registry.load())
    assert message in str(caught.value) and len(caught.value.problems) == 1


def test_a_share_of_a_budget_leaves_every_round_its_own() -> None:
    raw = {**RAW, "methods": ["sft", "dpo"], "budget": {"prompts": 16, "updates": 8}}
    (row,) = [row for row in resolve(raw, Registry.load()).rows if row.rounds]
    quarter = on_share(row, 2, 0.25)
    assert (quarter.label, quarter.budget.prompts, quarter.budget.updates) == ("dpo[trial 3, 25%]", 4, 2)
    assert on_share(row, 2, 1.0).budget == row.budget
    several = replace(row, planned_rounds=6)
    assert (on_share(several, 0, 0.25).budget.prompts, on_share(several, 0, 0.25).budget.updates) == (6, 6)
