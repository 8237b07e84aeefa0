"""Rows of single rounds, what rounds share of a budget, and budgets of single rows."""

from __future__ import annotations

from typing import Any

import pytest

from harness.api.registry import Registry
from harness.config import Comparison, resolve
from harness.config.file import chosen_rows
from harness.errors import ConfigError
from harness.run.executors.events import Outcome
from harness.run.graph import Graph
from harness.run.plan import plan
from harness.run.records import GroupsPayload, TrainPayload
from harness.run.results import Run, run_warnings
from harness.store import Store

ROUNDS = [{}, {"learning_rate_factor": 0.5}, {"objective": {"beta": 0.3}}]
SPIN = {"method": "dpo", "label": "three", "rounds": ROUNDS}
RAW: dict[str, Any] = {
    "schema": 1,
    "name": "rounds",
    "source": "sandbox",
    "model": {"path": "sandbox"},
    "evaluators": ["gold_reward"],
    "budget": {"prompts": 90},
    "methods": ["sft", "dpo", {**SPIN, "rows": "each_round"}],
    "seeds": [0],
    "baseline": "sft",
}


def resolved(**changes: Any) -> Comparison:
    return resolve({**RAW, **changes}, Registry.load())


def examples(graph: Graph, label: str) -> list[list[int]]:
    row = next(row for row in graph.rows if row.label == label)
    return [GroupsPayload.of(graph.stages[key]).examples for key in row.groups]


def test_each_round_has_a_row_and_nothing_is_trained_twice() -> None:
    comparison = resolved()
    assert [row.label for row in comparison.rows] == ["sft", "dpo", "three@1", "three@2", "three@3"]
    graph = plan(comparison)
    rows = {row.label: row for row in graph.rows}
    assert rows["three@3"].training[:2] == rows["three@2"].training
    assert rows["three@3"].training[:1] == rows["three@1"].training
    assert sum(stage.kind == "train" for stage in graph) == 4  # of dpo, and of three rounds
    last = next(row for row in plan(resolved(methods=["sft", SPIN])).rows if row.label == "three")
    assert (rows["three@3"].training, rows["three@3"].evaluations) == (last.training, last.evaluations)
    assert examples(graph, "three@3") == [[0, 30], [30, 60], [60, 90]]
    assert examples(graph, "three@1") == [[0, 30]]


def test_a_chosen_round_is_the_row_of_that_round() -> None:
    comparison = resolved(methods=["sft", {**SPIN, "rows": [3, 1]}], baseline="three@1")
    assert [row.label for row in comparison.rows] == ["sft", "three@3", "three@1"]
    assert [len(row.rounds) for row in comparison.rows] == [0, 3, 1]


def test_rounds_that_repeat_the_budget_begin_as_a_row_of_one_round() -> None:
    graph = plan(resolved(budget={"prompts": 90, "rounds": "repeat"}))
    rows = {row.label: row for row in graph.rows}
    assert examples(graph, "three@3") == [[0, 90]] * 3
    assert rows["three@1"].training == rows["dpo"].training
    shared = {row.label: row for row in plan(resolved()).rows}
    assert shared["three@1"].training != shared["dpo"].training


def test_a_limit_is_split_over_rounds_or_repeated() -> None:
    for rounds, amounts in (("share", [20, 20, 20]), ("repeat", [60, 60, 60])):
        graph = plan(resolved(budget={"prompts": 90, "updates": 60, "rounds": rounds}))
        row = next(row for row in graph.rows if row.label == "three@3")
        spending = [TrainPayload.of(graph.stages[key]).spending for key in row.training]
        assert [limit.amount for limit in spending if limit] == amounts


def test_a_row_has_a_budget_of_its_own() -> None:
    sweep = {"method": "dpo", "sweep": {"budget.prompts": [30, 60, 90]}}
    comparison = resolved(methods=["sft", sweep])
    graph = plan(comparison)
    assert [examples(graph, f"dpo[prompts={size}]") for size in (30, 60, 90)] == [[[0, 30]], [[0, 60]], [[0, 90]]]
    one = {"method": "dpo", "budget": {"pairs": 7}}
    comparison = resolved(budget={"prompts": 80, "updates": 60}, methods=["sft", "ipo", one])
    _, ipo, dpo = comparison.rows
    assert ipo.budget.limit is not None and ipo.budget.limit.unit == "updates"
    assert dpo.budget.limit is not None and (dpo.budget.limit.unit, dpo.budget.prompts) == ("pairs", 80)


def test_the_null_row_has_the_baseline_s_rounds_and_budget() -> None:
    methods = ["null", {**SPIN, "rows": [2], "budget": {"prompts": 60}}]
    null, base = resolved(methods=methods, baseline="three@2").rows
    assert (null.rounds, null.planned_rounds, null.budget) == (base.rounds, 3, base.budget)


def test_rows_with_different_budgets_are_named(tmp_path: Any) -> None:
    def warned(comparison: Comparison) -> list[str]:
        return run_warnings(Run(comparison, Graph(), Store(tmp_path), Outcome()))

    assert warned(resolved(methods=["sft", "dpo", SPIN])) == []
    (warning,) = warned(resolved())
    assert warning.startswith(
        "rows have different budgets (30 prompts: three@1; 60 prompts: three@2; 90 prompts: dpo, three@3)"
    )
    (repeated,) = warned(resolved(budget={"prompts": 90, "updates": 5, "rounds": "repeat"}, methods=["sft", "dpo", SPIN]))
    assert "90 prompts and 5 updates: dpo; 270 prompts and 15 updates: three" in repeated


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**SPIN, "rows": [4]}, r"methods\.1\.rows = 4: 'three' has 3 rounds: list numbers from 1 to 3"),
        ({"method": "dpo", "rows": [2]}, r"methods\.1\.rows = 2: 'dpo' has 1 round: list numbers from 1 to 1"),
        ({**SPIN, "rows": [0]}, r"methods\.1\.rows = \[0\]: rounds are numbered from 1"),
        ({**SPIN, "rows": [1, 1]}, r"methods\.1\.rows = \[1, 1\]: .*list each number once"),
        ({**SPIN, "rows": []}, r"methods\.1\.rows = \[\]: write last, each_round, or a list of rounds"),
        ({**SPIN, "rows": "all"}, r"methods\.1\.rows = 'all': write last, each_round, or a list of rounds"),
        ({**SPIN, "rows": [True]}, r"methods\.1\.rows = \[True\]: write last, each_round, or a list of rounds"),
        (
            {"method": "sft", "label": "x", "rows": "each_round"},
            r"methods\.1\.rows = 'each_round': the row 'sft' trains nothing",
        ),
        ({"method": "sft", "label": "x", "budget": {"prompts": 8}}, r"methods\.1\.budget = .*: the row 'sft' trains nothing"),
        ({**SPIN, "budget": {"prompts": 2}}, r"methods\.1\.budget\.prompts = 2: a method has 3 rounds"),
        ({**SPIN, "budget": {"pairs": 2}}, r"methods\.1\.budget\.pairs = 2: a method has 3 rounds that share it"),
        ({**SPIN, "budget": {"prompts": 99_999}}, r"methods\.1\.budget\.prompts = 99999: the source has 1600"),
        ({**SPIN, "budget": {"prompts": -1}}, r"methods\.1\.budget\.prompts = -1"),
        ({**SPIN, "budget": {"pairs": 5, "updates": 5}}, r"methods\.1\.budget.*two limits"),
        ({**SPIN, "budget": {"rounds": "split"}}, r"methods\.1\.budget\.rounds = 'split'"),
        ({**SPIN, "budget": {"updates": 9}, "training": {"epochs": 2}}, r"methods\.1\.training\.epochs = 2: budget\.updates"),
    ],
)
def test_a_wrong_round_or_budget_is_one_error(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        resolved(methods=["sft", entry])
    assert len(caught.value.problems) == 1


def test_a_label_that_a_round_s_row_has_already_is_refused() -> None:
    methods = ["sft", {"method": "dpo", "label": "three@2"}, {**SPIN, "rows": "each_round"}]
    with pytest.raises(ConfigError, match=r"methods = 'three@2': two rows have this label"):
        resolved(methods=methods)


def test_the_baseline_is_a_round_that_exists() -> None:
    with pytest.raises(ConfigError, match=r"baseline = 'three@4': no row has this label; did you mean 'three@"):
        resolved(baseline="three@4")


def test_rounds_are_chosen_by_their_labels() -> None:
    entries = RAW["methods"]
    assert chosen_rows(entries, ["three@2"], "sft") == ["sft", {**SPIN, "rows": [2]}]
    assert chosen_rows(entries, ["three", "dpo"], "three@1") == [entries[2], "dpo"]
    assert chosen_rows(entries, ["dpo"], "three@1") == [{**SPIN, "rows": [1]}, "dpo"]
    assert chosen_rows(entries, ["only_prompting@1"], "sft") == ["sft", {"method": "only_prompting", "rows": [1]}]
    named = [*entries, {"method": "ipo", "label": "odd@1"}]
    assert chosen_rows(named, ["odd@1"], "sft") == ["sft", named[3]]
    with pytest.raises(ConfigError, match="'three' has 3 rounds"):
        resolved(methods=chosen_rows(entries, ["three@7"], "sft"))
