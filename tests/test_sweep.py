"""Sweeps become rows."""

from __future__ import annotations

import pytest

from harness.api.registry import Registry
from harness.config import resolve
from harness.config.sweep import expand
from harness.errors import ConfigError

RAW = {
    "schema": 1,
    "name": "swept",
    "source": "sandbox",
    "model": {"path": "sandbox"},
    "methods": ["sft", {"method": "dpo", "sweep": {"training.learning_rate": [1e-4, 2e-4], "objective.beta": [0.1, 0.5]}}],
    "evaluators": ["gold_reward"],
    "baseline": "sft",
}


def test_a_sweep_is_the_product_of_its_values() -> None:
    expanded, problems = expand(RAW)
    assert problems == []
    labels = [entry if isinstance(entry, str) else entry["label"] for entry in expanded["methods"]]
    assert labels == ["sft"] + [
        f"dpo[learning_rate={rate}, beta={beta}]" for rate in ("0.0001", "0.0002") for beta in (0.1, 0.5)
    ]
    assert expanded["methods"][4]["training"] == {"learning_rate": 2e-4}
    assert expanded["methods"][4]["objective"] == {"beta": 0.5}
    assert "sweep" in RAW["methods"][1]  # the input is not changed


def test_swept_rows_resolve_to_their_own_settings() -> None:
    comparison = resolve(RAW, Registry.load())
    _, *swept = comparison.rows
    assert [round_.training.learning_rate for variant in swept for round_ in variant.rounds] == [1e-4, 1e-4, 2e-4, 2e-4]
    assert [round_.objective.beta for variant in swept for round_ in variant.rounds] == [0.1, 0.5, 0.1, 0.5]


@pytest.mark.parametrize("sweep", [5, {}, {"training.learning_rate": 1e-4}, {"training.learning_rate": []}])
def test_what_is_no_sweep_is_named(sweep: object) -> None:
    broken = {**RAW, "methods": ["sft", {"method": "dpo", "sweep": sweep}]}
    with pytest.raises(ConfigError, match=r"methods\.1\.sweep = .*: map fields to lists of values"):
        resolve(broken, Registry.load())


def test_a_wrong_value_of_a_sweep_is_named_like_any_other() -> None:
    broken = {**RAW, "methods": ["sft", {"method": "dpo", "sweep": {"training.learning_rat": [1e-4]}}]}
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        resolve(broken, Registry.load())


def grid(**entry: object) -> list[str]:
    """The labels that an entry becomes."""
    expanded, problems = expand({**RAW, "methods": ["sft", entry]})
    assert problems == []
    return [item["label"] for item in expanded["methods"][1:]]


def test_a_grid_is_every_builder_with_every_objective() -> None:
    raw = {**RAW, "methods": ["sft", {"data": ["self_contrast", "only_prompting"], "objective": ["dpo", "sr_dpo", "simpo"]}]}
    _, *variants = resolve(raw, Registry.load()).rows
    assert [(variant.data, variant.objective) for variant in variants] == [
        (data, objective) for data in ("self_contrast", "only_prompting") for objective in ("dpo", "sr_dpo", "simpo")
    ]
    assert variants[0].label == "self_contrast+dpo"


def test_a_grid_may_change_fields_and_keep_one_part() -> None:
    data = [{"name": "self_contrast", "negatives": 4}, "spin"]
    assert grid(data=data, objective="dpo") == ["self_contrast(negatives=4)+dpo", "spin+dpo"]
    assert grid(method="dpo", objective=["ipo", "hinge"]) == ["dpo[ipo]", "dpo[hinge]"]
    assert grid(label="mine", data=["spin"], objective=["ipo"]) == ["mine[spin+ipo]"]


def test_a_grid_can_be_swept() -> None:
    labels = grid(data="spin", objective=["dpo", "ipo"], sweep={"objective.beta": [0.1, 0.5]})
    assert labels == [f"spin+{name}[beta={beta}]" for name in ("dpo", "ipo") for beta in (0.1, 0.5)]


@pytest.mark.parametrize("value", [[], [3], [{"negatives": 4}]])
def test_a_grid_of_nothing_is_said(value: object) -> None:
    with pytest.raises(ConfigError, match=r"methods\.1\.data.*list names, or sections with `name`"):
        resolve({**RAW, "methods": ["sft", {"data": value, "objective": "dpo"}]}, Registry.load())
