"""`extends`: how a config is merged over its parents, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from harness import HarnessError
from harness.api.registry import Registry
from harness.cli import app
from harness.config import resolve
from harness.config.file import load_raw, override
from harness.config.inherit import inherit, packaged_names
from harness.run.plan import plan

PARENT: dict[str, Any] = {
    "name": "parent",
    "description": "About the parent.",
    "source": {"name": "sandbox", "train": 100, "heldout": 20},
    "model": {"path": "sandbox"},
    "sft": {"epochs": 2, "learning_rate": 1e-3},
    "budget": {"prompts": 50, "pairs": 100},
    "methods": ["sft", {"method": "dpo", "training": {"learning_rate": 1e-4}}],
    "evaluators": ["gold_reward"],
    "seeds": [0, 1],
    "baseline": "sft",
}


def extended(folder: Path, child: dict[str, Any], parent: dict[str, Any] | None = None) -> dict[str, Any]:
    """The child's config, as loaded from its file beside the parent's."""
    (folder / "parent.yaml").write_text(yaml.safe_dump(parent or PARENT))
    (folder / "my child.yaml").write_text(yaml.safe_dump({"extends": "parent.yaml", **child}))
    return load_raw(folder / "my child.yaml")


@pytest.mark.parametrize(
    ("child", "field", "value"),
    [
        ({"budget": {"prompts": 7}}, "budget", {"prompts": 7, "pairs": 100}),
        ({"source": {"train": 9}}, "source", {"name": "sandbox", "train": 9, "heldout": 20}),
        ({"source": {"name": "sandbox", "train": 9}}, "source", {"name": "sandbox", "train": 9, "heldout": 20}),
        ({"source": {"name": "jsonl", "path": "x"}}, "source", {"name": "jsonl", "path": "x"}),
        ({"source": "sandbox"}, "source", "sandbox"),
        ({"methods": ["sft"]}, "methods", ["sft"]),
        ({"+methods": ["ipo"]}, "methods", [*PARENT["methods"], "ipo"]),
        ({"+evaluators": ["win_rate"]}, "evaluators", ["gold_reward", "win_rate"]),
        ({"+seeds": [2]}, "seeds", [0, 1, 2]),
        ({"sft": None}, "sft", None),  # null is a choice of its own there: no fine-tuning
        ({"source": {"heldout": None}}, "source", {"name": "sandbox", "train": 100}),
        ({"budget": {"pairs": None}}, "budget", {"prompts": 50}),
        ({}, "baseline", "sft"),
    ],
)
def test_a_field_is_merged(tmp_path: Path, child: dict[str, Any], field: str, value: Any) -> None:
    merged = extended(tmp_path, child)
    assert merged[field] == value
    changed = next(iter(child), "").lstrip("+")
    expected = {name: item for name, item in PARENT.items() if name not in ("name", "description", changed)}
    assert {name: merged[name] for name in expected} == expected
    assert "extends" not in merged


def test_null_clears_a_whole_section(tmp_path: Path) -> None:
    assert "budget" not in extended(tmp_path, {"budget": None})


def test_a_bare_component_takes_fields(tmp_path: Path) -> None:
    merged = extended(tmp_path, {"source": {"train": 3}}, {**PARENT, "source": "sandbox"})
    assert merged["source"] == {"name": "sandbox", "train": 3}


def test_name_and_description_are_of_one_comparison(tmp_path: Path) -> None:
    merged = extended(tmp_path, {})
    assert merged["name"] == "my-child"
    assert "description" not in merged
    assert extended(tmp_path, {"name": "x", "description": "y"})["description"] == "y"


def test_a_packaged_parent_and_changes_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("extends: quickstart\nbudget: {prompts: 40}\n+methods: [{method: dpo, label: again}]\n")
    merged = override(load_raw(file), ["methods.again.objective.beta=0.3", "budget.prompts=41"])
    quickstart = load_raw(packaged_names()["quickstart"])
    assert merged["methods"][:-1] == quickstart["methods"]
    assert merged["methods"][-1] == {"method": "dpo", "label": "again", "objective": {"beta": 0.3}}
    assert merged["budget"] == {"prompts": 41}
    assert merged["source"] == quickstart["source"]


def test_grandparents_and_their_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths count from the folder of the file that has them, through every generation; the child's from the working one."""
    (tmp_path / "a" / "data").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / "a" / "data" / name).touch()
    old = {
        **PARENT,
        "source": {"name": "jsonl", "path": "data/train.jsonl", "splits": {"heldout": "./data/test.jsonl"}},
        "model": {"path": "owner/model", "adapter": "../absent", "chat_template": "zephyr"},
        "evaluators": [{"name": "mt_bench", "questions": "data/mt_bench/question.jsonl"}],
    }
    (tmp_path / "a" / "old.yaml").write_text(yaml.safe_dump(old))
    (tmp_path / "b" / "mid.yaml").write_text("extends: ../a/old.yaml\nmodel: {adapter: ./mine}\n")
    (tmp_path / "c.yaml").write_text("extends: b/mid.yaml\n+evaluators: [{name: mt_bench, questions: ./q.jsonl}]\n")
    monkeypatch.chdir(tmp_path)
    merged = load_raw(Path("c.yaml"))
    assert Path(merged["source"]["path"]).samefile("a/data/train.jsonl")
    assert Path(merged["source"]["splits"]["heldout"]).samefile("a/data/test.jsonl")
    # A hub's name, a template's name and a file that is not beside the parent stay as they are.
    assert merged["model"] == {"path": "owner/model", "adapter": str(Path("b/mine")), "chat_template": "zephyr"}
    assert [item["questions"] for item in merged["evaluators"]] == ["data/mt_bench/question.jsonl", "./q.jsonl"]
    monkeypatch.chdir(tmp_path / "b")
    assert Path(load_raw(Path("../c.yaml"))["source"]["path"]).samefile(tmp_path / "a/data/train.jsonl")


def test_a_mapping_extends_too() -> None:
    merged = inherit({"extends": "quickstart", "name": "mine", "seeds": [5]})
    assert (merged["name"], merged["seeds"]) == ("mine", [5])
    assert merged["source"]["name"] == "sandbox"


@pytest.mark.parametrize(
    ("child", "error"),
    [
        ({"extends": "quickstrat"}, "extends = 'quickstrat': no such file beside my child.yaml, and no packaged config is"),
        ({"extends": "quickstrat"}, "did you mean 'quickstart'?"),
        ({"extends": "gone.yaml"}, "extends = 'gone.yaml': no such file beside my child.yaml"),
        ({"extends": 3}, "extends = 3: write the name of a packaged config, or the path of a YAML file"),
        ({"extends": None}, "extends = None: write the name of a packaged config"),
        ({"extends": "x" * 5000}, "no "),
        ({"+methods": "dpo"}, "+methods = 'dpo': it appends to a list: write a list"),
        ({"+judges": ["x"]}, "+judges = ['x']: no parent has `judges`, which it would append to"),
        ({"+budget": ["x"]}, "+budget = ['x']: the parent's `budget` is {'pairs': 100, 'prompts': 50}, and only a list"),
        ({"+methods": ["dpo"], "methods": ["sft"]}, "+methods = ['dpo']: `methods` stands beside it, and would replace"),
        ({"source": {"+train": [1]}}, "source.+train = [1]: the parent's `train` is 100, and only a list"),
        ({"+methods": "sk-" + "a" * 20}, "+methods = (hidden): a config is copied into boards and logs"),
    ],
)
def test_bad_inheritance_is_one_error(tmp_path: Path, child: dict[str, Any], error: str) -> None:
    with pytest.raises(HarnessError) as caught:
        extended(tmp_path, child)
    assert error in str(caught.value)
    assert "my child.yaml" in str(caught.value)
    assert str(caught.value).count("  - ") == 1


def test_plus_without_a_parent(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: x\n+methods: [dpo]\n")
    with pytest.raises(HarnessError, match=r"\+methods = \['dpo'\]: no parent has `methods`"):
        load_raw(tmp_path / "c.yaml")


def test_a_cycle_is_one_error(tmp_path: Path) -> None:
    for name, parent in (("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / f"{name}.yaml").write_text(f"extends: {parent}.yaml\n")
    with pytest.raises(HarnessError, match=r"a\.yaml → b\.yaml → c\.yaml → a\.yaml") as caught:
        load_raw(tmp_path / "a.yaml")
    assert str(caught.value).count("leads back") == 1
    (tmp_path / "self.yaml").write_text("extends: self.yaml\n")
    with pytest.raises(HarnessError, match=r"self\.yaml → self\.yaml"):
        load_raw(tmp_path / "self.yaml")


def test_a_parent_that_is_no_config_is_named_with_its_child(tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text("- a\n")
    (tmp_path / "c.yaml").write_text("extends: parent.yaml\n")
    with pytest.raises(HarnessError, match=r"c\.yaml extends 'parent\.yaml': .*parent\.yaml must hold a mapping of sections"):
        load_raw(tmp_path / "c.yaml")


def test_the_whole_config_is_printed_and_plans_the_same(tmp_path: Path) -> None:
    """`harness plan --resolved` writes parents, sweeps, opponents and defaults out; its file has the same stages."""
    (tmp_path / "c.yaml").write_text(
        "extends: quickstart\nbudget: {prompts: 40, pairs: 60}\njudge: {model: gpt-4o}\nseeds: [3]\n"
        "methods: [sft, dpo, {method: ipo, sweep: {objective.beta: [0.1, 0.5]}}]\n"
        "evaluators: [gold_reward, {name: pairwise_judge, label: duel, opponent: each}]\n"
    )
    answer = CliRunner().invoke(app, ["plan", str(tmp_path / "c.yaml"), "--resolved", "--set", "budget.prompts=41"])
    assert answer.exit_code == 0, answer.output
    whole = yaml.safe_load(answer.stdout)
    assert "extends" not in whole
    assert whole["budget"] == {"prompts": 41, "pairs": 60, "tokens": None, "updates": None, "rounds": "share"}
    assert "epochs" not in whole["training"]  # a limit decides how often a prompt is seen
    labels = [entry.get("label", entry["method"]) for entry in whole["methods"]]
    assert labels == ["sft", "dpo", "ipo[beta=0.1]", "ipo[beta=0.5]"]
    assert [entry.get("label", entry["name"]) for entry in whole["evaluators"]] == [
        "gold_reward",
        *(f"duel@{label}" for label in labels),
    ]
    registry = Registry.load()
    given = override(load_raw(tmp_path / "c.yaml"), ["budget.prompts=41"])
    assert plan(resolve(whole, registry)).stages.keys() == plan(resolve(given, registry)).stages.keys()
    as_json = CliRunner().invoke(app, ["plan", str(tmp_path / "c.yaml"), "--resolved", "--json", "--set", "budget.prompts=41"])
    assert json.loads(as_json.stdout) == whole
