"""Mixtures of sources by weight."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from harness import DataError, Response
from harness.api.registry import Registry
from harness.config import resolve
from harness.errors import ConfigError
from harness.run.plan import plan
from harness_plugins.sources.mix import TWICE, Mix, _order
from harness_plugins.sources.sandbox import Sandbox

WORLD = {"name": "sandbox", "sft": 30, "train": 60, "tuning": 0, "heldout": 20}


def jsonl(folder: Path, name: str, count: int, says: str = "Say") -> dict[str, Any]:
    file = folder / f"{name}.jsonl"
    rows = [{"prompt": f"{says} {i}.", "chosen": f"Yes, {i}.", "rejected": "No."} for i in range(count)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"name": "jsonl", "path": str(file), "heldout_share": 0}


def mixed(*sources: dict[str, Any]) -> Mix:
    return Mix.model_validate({"sources": sources})


def places(mix: Mix, split: Any = "train") -> list[int]:
    return [example.metadata["mixed_from"] for example in mix.load()[split]]


def test_every_beginning_of_a_split_has_the_weights(tmp_path: Path) -> None:
    mix = mixed({**jsonl(tmp_path, "a", 70), "weight": 7}, {**jsonl(tmp_path, "b", 100, "Tell"), "weight": 3})
    train = places(mix)
    assert Counter(train) == {0: 70, 1: 30}  # ends where the first has no more
    for count in range(1, len(train) + 1):
        assert abs(train[:count].count(0) - 0.7 * count) < 1
    ids = [example.prompt.id for example in mix.load()["train"]]
    assert len(set(ids)) == 100
    assert mix.load() == mix.load()


def test_the_order_ends_with_the_first_source_that_is_used_up() -> None:
    assert _order([4, 1], [0.5, 0.5]) == [0, 1, 0]
    assert _order([2, 0], [0.5, 0.5]) == [0, 0]  # a source without examples takes no part
    assert _order([0, 0], [0.5, 0.5]) == []


def test_a_prompt_of_two_sources_is_the_first_one_s(tmp_path: Path) -> None:
    mix = mixed({**jsonl(tmp_path, "a", 10), "weight": 1}, {**jsonl(tmp_path, "b", 12), "weight": 1})
    dataset = mix.load()
    texts = [example.prompt.messages for example in dataset["train"]]
    assert len(texts) == len(set(texts)) == 5  # the second source has two of its own left: a, b, a, b, a
    assert dataset.dropped[TWICE] == 20  # ten of the train split, ten of sft, which are the same rows


def test_gold_is_the_source_s_own(tmp_path: Path) -> None:
    mix = mixed({**WORLD, "weight": 1}, {**WORLD, "seed": 4, "weight": 1})
    assert mix.offers() == {"target", "ranked", "gold"}
    own = Sandbox.model_validate({name: value for name, value in WORLD.items() if name != "name"}).load()["train"]
    example = next(example for example in mix.load()["train"] if example.metadata["mixed_from"] == 0)
    same = next(one for one in own if f"0:{one.prompt.id}" == example.prompt.id)
    answer = Response(same.ranked[0])
    assert mix.gold(example, answer) == mix.parts[0].gold(same, answer)
    assert mixed({**WORLD, "weight": 1}, {**jsonl(tmp_path, "a", 9), "weight": 1}).offers() == {"target", "ranked"}


def test_files_and_fields_of_the_parts_are_in_the_fingerprint(tmp_path: Path) -> None:
    one = mixed({**jsonl(tmp_path, "a", 10), "weight": 1}, {**WORLD, "weight": 1})
    before = one.fingerprint()
    jsonl(tmp_path, "a", 11)
    assert one.fingerprint() != before
    jsonl(tmp_path, "a", 10)
    assert one.fingerprint() == before


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([{**WORLD, "weight": -1}, {**WORLD, "weight": 1}], r"source\.sources\.0\.weight = -1: it should be greater than 0"),
        ([{**WORLD, "weight": 0}, {**WORLD, "weight": 1}], r"source\.sources\.0\.weight = 0: it should be greater than 0"),
        ([WORLD, {**WORLD, "weight": 1}], r"source\.sources\.0\.weight = \(absent\): this field is required"),
        ([{**WORLD, "weight": 1}], r"source\.sources = .*: a mixture needs two sources"),
        ([{**WORLD, "weight": 1}, {"name": "sandbix", "weight": 1}], r"item 1: no source is called 'sandbix'"),
        ([{**WORLD, "weight": 1}, {"name": "sandbox", "weight": 1, "trian": 4}], r"item 1: sandbox\.trian = 4"),
        (
            [{**WORLD, "weight": 1}, {"name": "jsonl", "path": "absent.jsonl", "weight": 1}],
            r"source\.sources\.1\.path = 'absent\.jsonl': absent\.jsonl: no such file",
        ),
    ],
)
def test_a_wrong_mixture_is_one_error(sources: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        resolve({**config(sources), "evaluators": ["response_stats"]}, Registry.load())
    assert len(caught.value.problems) == 1


def test_a_source_without_training_data_is_named(tmp_path: Path) -> None:
    rows = {**jsonl(tmp_path, "a", 10), "heldout_share": 0.999, "weight": 1}
    with pytest.raises((DataError, ValidationError), match="train"):
        mixed(rows, {**WORLD, "weight": 1}).load()


def test_a_mixture_is_planned_like_any_source() -> None:
    sources = [{**WORLD, "weight": 0.7}, {**WORLD, "seed": 4, "weight": 0.3}]
    comparison = resolve(config(sources), Registry.load())
    assert comparison.source.sizes()["train"] == 86  # 60 of the first, and 26 of the second beside them
    assert sum(stage.kind == "source" for stage in plan(comparison)) == 1
    with pytest.raises(ConfigError, match=r"budget\.prompts = 90: the source has 86 training prompts"):
        resolve({**config(sources), "budget": {"prompts": 90}}, Registry.load())


def config(sources: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": "mixed",
        "source": {"name": "mix", "sources": sources},
        "model": {"path": "sandbox"},
        "evaluators": ["gold_reward"],
        "budget": {"prompts": 20},
        "methods": ["sft", "dpo"],
        "seeds": [0],
        "baseline": "sft",
    }
