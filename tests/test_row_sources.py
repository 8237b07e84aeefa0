"""Rows that are trained on a source of their own, and evaluated like all others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.api.registry import Registry
from harness.api.types import Dataset, Example, Message, Prompt
from harness.board.entries import Delta
from harness.config import Comparison, resolve
from harness.errors import ConfigError
from harness.run.executors.events import Outcome
from harness.run.graph import Graph
from harness.run.plan import plan
from harness.run.records import AnswersInputs, EvaluateInputs, GroupsInputs, SftInputs, SourceInputs
from harness.run.results import Run, run_warnings
from harness.run.stages.screening import row_source_problems, screen
from harness.store import Store

OTHER = {"method": "dpo", "label": "other", "source": {"name": "sandbox", "seed": 3}}
RAW: dict[str, Any] = {
    "schema": 1,
    "name": "sources",
    "source": "sandbox",
    "model": {"path": "sandbox"},
    "evaluators": ["gold_reward"],
    "budget": {"prompts": 90},
    "methods": ["sft", "dpo", OTHER],
    "seeds": [0],
    "baseline": "sft",
}


def resolved(**changes: Any) -> Comparison:
    return resolve({**RAW, **changes}, Registry.load())


def test_only_the_training_prompts_come_from_a_row_s_source() -> None:
    graph = plan(resolved())
    first, second = (stage for stage in graph if stage.kind == "source")
    assert SourceInputs.of(second).evaluated == first.key
    rows = {row.label: row for row in graph.rows}
    assert GroupsInputs.of(graph.stages[rows["dpo"].groups[0]]).source == first.key
    assert GroupsInputs.of(graph.stages[rows["other"].groups[0]]).source == second.key
    assert rows["other"].start == rows["dpo"].start
    assert {SftInputs.of(stage).source for stage in graph if stage.kind == "sft"} == {first.key}
    assert {AnswersInputs.of(stage).source for stage in graph if stage.kind == "answers"} == {first.key}
    assert {EvaluateInputs.of(stage).source for stage in graph if stage.kind == "evaluate"} == {first.key}


def test_the_other_rows_keep_their_keys() -> None:
    with_it, without = plan(resolved()), plan(resolved(methods=["sft", "dpo"]))
    assert with_it.stages.keys() >= without.stages.keys()
    same = {"method": "dpo", "label": "same", "source": "sandbox"}  # the comparison's own source, written again
    assert plan(resolved(methods=["sft", "dpo", same])).stages.keys() == without.stages.keys()


def test_evaluated_prompts_are_left_out_of_a_row_s_source() -> None:
    def rows(*texts: str) -> tuple[Example, ...]:
        return tuple(Example(Prompt(text, (Message("user", text),)), "yes") for text in texts)

    evaluated = Dataset({"heldout": rows("Is it red?"), "tuning": rows("Is it blue?"), "train": rows("Is it green?")})
    own = Dataset({"train": rows("is it RED", "Is it blue?", "Is it green?", "Is it new?")})
    kept, report = screen(own, evaluated=evaluated)
    assert [example.prompt.id for example in kept["train"]] == ["Is it green?", "Is it new?"]
    assert (report.contaminated["train"]["exact"], report.contaminated["train"]["normalised"]) == (1, 1)


def test_a_row_s_source_that_is_too_small_is_named_by_its_row(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    lines = [{"prompt": f"Say {i}.", "chosen": f"Yes, {i}.", "rejected": "No."} for i in range(40)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    row = {"method": "dpo", "label": "other", "source": {"name": "jsonl", "path": str(file), "heldout_share": 0}}
    comparison = resolved(methods=["sft", "dpo", row])
    (problem,) = row_source_problems(comparison, Dataset({}))
    assert problem.field == "methods.other.budget.prompts"
    assert "has 40 training prompts left" in problem.fix and "lower it to 40" in problem.fix
    assert row_source_problems(resolved(methods=["sft", "dpo", {**row, "budget": {"prompts": 40}}]), Dataset({})) == []


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**OTHER, "source": "nosuch"}, r"methods\.1\.source = 'nosuch': no source is called so"),
        ({**OTHER, "source": {"name": "sandbox", "train": 0}}, r"methods\.1\.source\.train = 0"),
        ({**OTHER, "source": {"name": "sandbox", "train": 60}}, r"methods\.1\.budget\.prompts = 90: the source has 60"),
        ({**OTHER, "source": {"name": "jsonl", "path": "absent.jsonl"}}, r"methods\.1\.source\.path = 'absent.jsonl'"),
        ({**OTHER, "source": {"train": 60}}, r"methods\.1\.source\.name"),
        ({"method": "sft", "label": "x", "source": "sandbox"}, r"methods\.1\.source = .*: the row 'sft' trains nothing"),
        ({"method": "oracle", "label": "x", "source": {"name": "jsonl", "path": __file__}}, r"methods\.1 = 'x': it needs gold"),
    ],
)
def test_a_wrong_source_of_a_row_is_one_error(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        resolved(methods=["sft", entry])
    assert len(caught.value.problems) == 1


def test_other_data_are_named_and_marked(tmp_path: Path) -> None:
    (warning,) = run_warnings(Run(resolved(), Graph(), Store(tmp_path), Outcome()))
    assert warning.startswith("rows are trained on other data than the comparison's sandbox (sandbox: other)")
    marks = [Delta(mean=1.0, low=0.5, high=1.5, p=0.01, p_adjusted=0.01, other_data=other).mark for other in (None, True)]
    assert marks == ["*", "*†"]


def test_a_null_row_is_trained_on_the_baseline_s_data() -> None:
    null, base = resolved(methods=["null", OTHER], baseline="other").rows
    assert null.source is not None and null.source == base.source
