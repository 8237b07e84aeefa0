"""Configs from anybody: the loader and all that `harness plan` resolves answer with a comparison or a HarnessError."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from fuzz.budget import examples, survives
from fuzz.mutations import changed, damaged, values
from hypothesis import given
from hypothesis import strategies as st

from harness.api.registry import Registry
from harness.config import resolve
from harness.config.file import load_raw, override
from harness.errors import HarnessError
from harness.run.plan import plan

CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))
RAW = [load_raw(path) for path in CONFIGS if path.parent.name != "accelerate"]
QUICKSTART = next(raw for raw in RAW if raw["name"] == "quickstart")
TEXTS = [path.read_bytes() for path in CONFIGS]
REGISTRY = Registry.load()
KINDS = sorted(set(REGISTRY.entries) - {"analysis", "importer", "method"})
FIELDS = st.sampled_from(
    ("name", "budget.prompts", "methods", "methods.0", "methods.0.training", "source.path", "model.path", "seeds", "judge.x")
)
TOKENS = st.sampled_from(
    (
        *(
            "a",
            "b",
            ": ",
            "- ",
            "\n",
            "\n  ",
            "[",
            "]",
            "{",
            "}",
            ",",
            "&a ",
            "*a",
            "<<: ",
            "? ",
            "|",
            ">",
            "'",
            '"',
            "#",
            "=",
            "~",
        ),
        *("!!int ", "!!binary ", "!!timestamp ", "!!set ", "!!omap ", "!!bool x", "!!float ", "!!python/name:os.system "),
        *("2001-99-99", "0b_", "0x_", "1:99", ".inf", ".nan", "9" * 5000, '"\\ud800"', "\t", "\x85", "\ufeff"),
        *("---\n", "...", "%YAML 9.9\n", "name: ", "methods: "),
    )
)


def planned(raw: Any) -> None:
    """Plan a config or have it refused; our own components refuse by themselves, not by an exception of another kind."""
    try:
        plan(resolve(raw, REGISTRY))
    except HarnessError as error:
        assert str(error) and "failed on these fields with" not in str(error)


def loaded(path: Path) -> None:
    """The way of a config file; an error of the file names it."""
    try:
        raw = override(load_raw(path), [])
    except HarnessError as error:
        assert str(path) in str(error)
    else:
        planned(raw)


@examples(250)
@given(raw=st.sampled_from(RAW).flatmap(changed))
def test_a_changed_config_plans_or_is_refused(raw: Any, tmp_path: Path) -> None:
    if isinstance(raw, dict):
        planned(raw)


@examples(150)
@given(text=st.one_of(st.sampled_from(TEXTS).flatmap(damaged), st.binary(max_size=200)))
def test_any_bytes_are_a_config_or_are_refused(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(text)
    survives(lambda: loaded(path))


@examples(300)
@given(text=st.lists(TOKENS, max_size=25).map("".join))
def test_yaml_of_all_kinds_is_a_config_or_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    survives(lambda: loaded(path))


@examples(150)
@given(
    raw=st.sampled_from(RAW).flatmap(lambda raw: changed(raw, 2)),
    field=st.one_of(FIELDS, st.text(max_size=8)),
    value=st.one_of(values.map(str), st.lists(TOKENS, max_size=8).map("".join)),
)
def test_any_assignment_is_applied_or_refused(raw: Any, field: str, value: str) -> None:
    found = survives(lambda: override(raw, [f"{field}={value}"])) if isinstance(raw, dict) else None
    if found is not None:
        planned(found)


@pytest.mark.parametrize("kind", KINDS)
@examples(60)
@given(data=st.data())
def test_any_value_of_any_field_of_a_component(kind: Any, data: st.DataObject) -> None:
    """Every field that a plugin declares, with every hostile value."""
    name = data.draw(st.sampled_from(sorted(REGISTRY.entries[kind])))
    fields = sorted(REGISTRY.entries[kind][name].component.model_fields)
    given = data.draw(st.dictionaries(st.sampled_from(fields), values, min_size=1, max_size=3)) if fields else {}
    item = {"name": name, **given}
    changes = {
        "data": {"methods": ["sft", {"data": item, "objective": {"name": "dpo"}}]},
        "objective": {"methods": ["sft", {"data": {"name": "preference"}, "objective": item}]},
        "evaluator": {"evaluators": [item]},
        "backend": {"generation": {"backend": item}},
        "source": {"source": item},
        "trainer": {"methods": ["sft", {"data": {"name": "preference"}, "objective": {"name": "dpo"}, "trainer": item}]},
    }[kind]
    planned({**QUICKSTART, "baseline": "sft", **changes})


HOSTILE_FILES = {
    "an alias bomb": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "a merge bomb": "a: &a {k: 1}\n"
    + "".join(f"{b}: &{b}\n  <<: [{', '.join([f'*{a}'] * 30)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "deep brackets": "a: " + "[" * 100_000,
    "deep mappings": "{a: " * 100_000,
    "deep blocks": "".join(f"{' ' * n}a:\n" for n in range(900)),
    "deep and closed": "a: " + "[" * 3_000 + "]" * 3_000,
    "an anchor in itself": "a: &x [*x]",
    "a number of many digits": "budget: {prompts: " + "9" * 5000 + "}",
    "a date that is none": "a: 2001-99-99",
    "a number without digits": "a: 0x_",
    "a boolean that is none": "a: !!bool maybe",
    "a python object": "a: !!python/object/apply:os.system ['touch outside']",
    "a key twice": "a: 1\na: 2",
    "a null character": "a\x00b: 1",
    "a byte that is no text": b"name: \xff\xfe",
    "nothing": "",
    "a list": "- a",
    "too many bytes": "a: " + "x" * 1_000_001,
    "two documents": "a: 1\n---\na: 2",
}


@pytest.mark.parametrize("content", HOSTILE_FILES.values(), ids=HOSTILE_FILES)
def test_a_hostile_file_is_refused_with_its_name_and_place(content: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(HarnessError) as caught:
        load_raw(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 500
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]


PATHS = {"too long": "x" * 5000, "of nobody": "~no-such-user/x", "a device": "/dev/null", "a folder": "/"}
PLACES: dict[str, Any] = {
    "source.path": lambda path: {"source": {"name": "jsonl", "path": path}},
    "source.splits": lambda path: {"source": {"name": "parquet", "path": __file__, "splits": {"heldout": path}}},
    "source.path of hh_rlhf": lambda path: {"source": {"name": "hh_rlhf", "path": path}},
    "source.dataset": lambda path: {"source": {"name": "hub", "dataset": path}},
    "model.path": lambda path: {"model": {"path": path}},
    "model.adapter": lambda path: {"model": {"path": "sandbox", "adapter": path}},
    "model.chat_template": lambda path: {"model": {"path": "sandbox", "chat_template": f"{path}.jinja"}},
    "evaluators.0": lambda path: {"evaluators": [{"name": "reward_model", "model": path}]},
    "methods.1.data": lambda path: {"methods": ["sft", {"method": "self_contrast", "data": {"embedder": path}}]},
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("place", PLACES)
def test_a_path_that_the_system_takes_for_none_is_named(place: str, path: str) -> None:
    with pytest.raises(HarnessError, match=place.split(".")[0]):
        resolve({**QUICKSTART, "methods": ["sft"], **PLACES[place](path)}, REGISTRY)


def test_a_sweep_of_a_million_rows_is_refused() -> None:
    grid = {f"training.{name}": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] for name in "abcdef"}
    with pytest.raises(HarnessError, match=r"methods\.1 = .*1,000,001 rows, and may have 10,000"):
        resolve({**QUICKSTART, "methods": ["sft", {"method": "dpo", "sweep": grid}]}, REGISTRY)


@pytest.mark.parametrize("value", ["a\\0b", "\\ud800"], ids=["null", "surrogate"])
def test_text_that_no_file_can_hold_is_named(value: str) -> None:
    raw = yaml.safe_load(f'{{source: {{name: hh_rlhf, path: "{value}"}}}}')
    with pytest.raises(HarnessError, match=r"source\.path = .*it should be text, without"):
        resolve({**QUICKSTART, **raw}, REGISTRY)
