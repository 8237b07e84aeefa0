"""YAML -> a raw mapping -> models: what a user gets to read when something is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import HarnessError
from harness.config.file import load_raw, override
from harness.config.schema import Config, validate

SMALLEST: dict[str, Any] = {
    "name": "a",
    "source": "sandbox",
    "model": {"path": "sandbox"},
    "methods": ["sft"],
    "evaluators": ["gold_reward"],
    "baseline": "sft",
}


MODEL_FIELDS = (
    "path, revision, scratch, dtype, storage, attn_implementation, scoring_layout, adapter, quantization, trust_remote_code, "
    "chat_template, add_tokens, system_turns, chat_template_kwargs"
)


def problems(**changes: Any) -> list[str]:
    config, found = validate({**SMALLEST, **changes})
    assert (config is None) == bool(found)
    return [str(problem) for problem in found]


def test_the_smallest_config_is_whole() -> None:
    config, found = validate(SMALLEST)
    assert found == []
    assert config is not None
    assert (config.schema_version, config.seeds, config.budget.prompts) == (1, (0, 1), 800)


def test_a_config_survives_a_round_through_json() -> None:
    config, _ = validate({**SMALLEST, "methods": ["sft", {"method": "dpo", "data": {"negatives": 2}, "label": "x"}]})
    assert config is not None
    again, found = validate(config.model_dump(mode="json", by_alias=True))
    assert found == []
    assert again == config


def test_every_field_is_described() -> None:
    assert [name for name, info in Config.model_fields.items() if not info.description] == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"buget": 3}, "buget = 3: no such field; did you mean 'budget'?"),
        ({"budget": {"promts": 3}}, "budget.promts = 3: no such field; did you mean 'prompts'?"),
        ({"budget": {"prompts": 0}}, "budget.prompts = 0: it should be greater than or equal to 1"),
        ({"model": {"pth": "x"}}, "model.pth = 'x': no such field; did you mean 'path'?"),
        ({"model": "sandbox"}, "model = 'sandbox': it should be a section; its fields are " + MODEL_FIELDS),
        ({"methods": []}, "methods = []: give at least one"),
        ({"methods": "dpo"}, "methods = 'dpo': it should be a list"),
        ({"methods": [3]}, "methods.0 = 3: write a method's name, or a section with `method` and what to change"),
        ({"methods": [{"method": "dpo", "lable": "x"}]}, "methods.0.lable = 'x': no such field; did you mean 'label'?"),
        (
            {"methods": [{"method": "dpo", "rounds": [{"dta": {}}]}]},
            "methods.0.rounds.0.dta = {}: no such field; did you mean 'data'?",
        ),
        (
            {"name": "../x"},
            "name = '../x': it names a folder: write it with letters, digits and . _ - only, a letter or digit first",
        ),
        ({"name": 3}, "name = 3: it should be text: put it in quotes"),
        ({"seeds": [0, 0]}, "seeds = [0, 0]: a seed occurs twice, and would count the same run twice: leave one of them out"),
        ({"seeds": [-1]}, "seeds = [-1]: seeds should be from 0 to 2,147,483,647"),
        ({"schema": 2}, "schema = 2: it should be 1"),
        ({"training": {"learning_rate": -1}}, "training.learning_rate = -1: it should be greater than 0"),
        ({"source": 3}, "source = 3: write a name, or a section with a `name` and fields, as in {name: …, field: value}"),
    ],
)
def test_a_mistake_is_named_once_with_value_and_fix(changes: dict[str, Any], said: str) -> None:
    assert problems(**changes) == [said]


@pytest.mark.parametrize("value", [3, [3], ["preference"]])
@pytest.mark.parametrize("part", ["data", "objective"])
def test_parts_of_a_method_are_named_as_the_user_wrote_them(part: str, value: Any) -> None:
    (said,) = problems(methods=[{"method": "dpo", part: value}])
    assert said.startswith(f"methods.0.{part} = {value!r}: write a name")


def test_missing_fields_say_what_they_are_for() -> None:
    _, found = validate({"name": "a"})
    said = [str(problem) for problem in found]
    assert "source = (absent): this field is required: where prompts, targets and preferences come from" in said
    assert [problem.field for problem in found] == ["source", "model", "methods", "evaluators", "baseline"]


def test_null_without_quotes_is_explained() -> None:
    quotes = 'without quotes YAML reads null as nothing: write "null" in quotes for the row of that name'
    assert problems(methods=["sft", None]) == [f"methods.1 = None: {quotes}"]
    assert problems(baseline=None) == [f"baseline = None: {quotes}"]


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "c.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\nb: }", "c.yaml, line 2, column 2, is not valid YAML: expected ',' or ']', but got ':'"),
        ("a: 1\nb: 2\na: 3\n", "c.yaml, line 3, column 1, is not valid YAML: the key 'a' occurs twice"),
        ("? [1]\n: 2\n", "c.yaml, line 1, column 3, is not valid YAML: found unhashable key"),
        ("a: \x00", "c.yaml is not valid YAML: unacceptable character"),
        ("", "must hold a mapping of sections (name, source, model, methods, …), and it is empty"),
        ("- a\n", "must hold a mapping of sections (name, source, model, methods, …), and it holds a list"),
        ("just text", "and it holds 'just text'"),
        (b"\x7fELF\xff\xfe", "is not text in UTF-8: give the path of a YAML file"),
    ],
)
def test_a_file_that_is_no_config(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(HarnessError) as caught:
        load_raw(write(tmp_path, text))
    assert said in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"no config at .*absent.yaml: give the path of a YAML file, or nothing"):
        load_raw(tmp_path / "absent.yaml")
    with pytest.raises(HarnessError, match="is a folder: give the path of a YAML file in it"):
        load_raw(tmp_path)


def test_merge_keys_are_no_duplicates(tmp_path: Path) -> None:
    raw = load_raw(write(tmp_path, "a: &x {k: 1}\nb: &y {l: 2}\nc: {<<: *x, k: 3}\n"))
    assert raw["c"] == {"k": 3}


RAW = {"name": "a", "source": "sandbox", "methods": ["sft", {"method": "dpo", "label": "x"}], "seeds": [0, 1], "sft": None}


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("name=b", ["name"], "b"),
        ("seeds=[3, 4]", ["seeds"], [3, 4]),
        ("seeds.1=5", ["seeds"], [0, 5]),
        ("source.train=8", ["source"], {"name": "sandbox", "train": 8}),
        ("budget.prompts=2", ["budget"], {"prompts": 2}),
        ("sft.epochs=2", ["sft"], {"epochs": 2}),
        ("methods.0.label=base", ["methods", 0], {"method": "sft", "label": "base"}),
        ("methods.sft.label=base", ["methods", 0], {"method": "sft", "label": "base"}),
        ("methods.x.training.epochs=2", ["methods", 1], {"method": "dpo", "label": "x", "training": {"epochs": 2}}),
        ("description=a=b", ["description"], "a=b"),
        ("description=", ["description"], None),
    ],
)
def test_set_changes_one_place(assignment: str, path: list[Any], value: Any) -> None:
    changed: Any = override(RAW, [assignment])
    for part in path:
        changed = changed[part]
    assert changed == value


def test_set_leaves_its_input_and_shared_anchors_alone(tmp_path: Path) -> None:
    raw = load_raw(write(tmp_path, "a: &x {k: 1}\nb: *x\n"))
    assert override(raw, ["a.k=2"]) == {"a": {"k": 2}, "b": {"k": 1}}
    assert raw["a"] == {"k": 1}


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("nonsense", "--set 'nonsense': write it as key=value, for example --set budget.prompts=200"),
        ("=3", "write it as key=value"),
        (".=3", "write it as key=value"),
        ("budget.=3", "write it as key=value"),
        ("x=[1", "'[1' is not a YAML value"),
        ("methods.9=1", "'9' must be a number from 0 to 1, or one of sft, x"),
        ("methods.spin.label=1", "'spin' must be a number from 0 to 1, or one of sft, x"),
        ("seeds.0.x=1", "'0' is 0, not a section"),
    ],
)
def test_set_that_makes_no_sense(assignment: str, said: str) -> None:
    with pytest.raises(HarnessError) as caught:
        override(RAW, [assignment])
    assert said in str(caught.value)


def test_an_anchor_that_contains_itself(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="an anchor that contains itself"):
        override(load_raw(write(tmp_path, "a: &x [*x]")), [])
