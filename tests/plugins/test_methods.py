"""The methods as their papers describe them, and the configs that promise to have all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.api.registry import Registry
from harness.config import Comparison, resolve
from harness.config.file import load_raw
from harness.run.graph import Graph, Stage
from harness.run.plan import plan

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


def rounds(registry: Registry, checkpoint: Path, method: str) -> tuple[Comparison, Graph, list[Stage]]:
    """The train stages of a method's rounds, at SimPO's and SPIN's learning rate."""
    raw = {
        "name": "rounds",
        "source": {"name": "sandbox", "sft": 4, "train": 9, "tuning": 1, "heldout": 2},
        "model": {"path": str(checkpoint)},
        "budget": {"prompts": 9},
        "training": {"learning_rate": 5e-7},
        "methods": ["sft", method],
        "evaluators": ["response_stats"],
        "seeds": [0],
        "baseline": "sft",
    }
    comparison = resolve(raw, registry)
    graph = plan(comparison)
    row = next(row for row in graph.rows if row.label == method)
    return comparison, graph, [graph.stages[key] for key in row.training]


def test_only_prompting_narrows_the_gap_and_slows_down(registry: Registry, tiny_checkpoint: Path) -> None:
    """Table 2 and Figure 4: s = 3, 5, 7; §4.1: 1e-7 and 1e-8 in the second and third round."""
    comparison, graph, training = rounds(registry, tiny_checkpoint, "only_prompting")
    (variant,) = [variant for variant in comparison.rows if variant.label == "only_prompting"]
    assert [round_.builder.rejected_score for round_ in variant.rounds] == [3, 5, 7]
    assert {round_.objective.name for round_ in variant.rounds} == {"simpo"}
    rates = [stage.payload["settings"]["learning_rate"] for stage in training]
    assert rates == pytest.approx([5e-7, 1e-7, 1e-8])
    data = [graph.stages[stage.inputs["groups"]] for stage in training]
    assert [stage.payload["examples"] for stage in data] == [[0, 3], [3, 6], [6, 9]]
    before = [training[0].inputs["model"], *[stage.key for stage in training[:-1]]]
    assert [stage.inputs["model"] for stage in training] == before
    assert [stage.inputs["policy"] for stage in data] == before  # each round asks the policy that it goes on from


@pytest.mark.parametrize(("method", "rates"), [("spin_iterated", [5e-7, 5e-7, 1e-7]), ("self_rewarding", [5e-7] * 3)])
def test_rounds_refer_to_the_round_before(registry: Registry, tiny_checkpoint: Path, method: str, rates: list[float]) -> None:
    _, graph, training = rounds(registry, tiny_checkpoint, method)
    assert [stage.payload["settings"]["learning_rate"] for stage in training] == pytest.approx(rates)
    before = [training[0].inputs["model"], *[stage.key for stage in training[:-1]]]
    assert [stage.inputs["model"] for stage in training] == before
    assert [graph.stages[stage.inputs["reference:"]].inputs["model"] for stage in training] == before
    assert [graph.stages[stage.inputs["groups"]].inputs["policy"] for stage in training] == before


def test_the_full_sandbox_has_every_method_at_three_seeds(registry: Registry) -> None:
    comparison = resolve(load_raw(CONFIGS / "sandbox-full.yaml"), registry)
    assert {variant.method for variant in comparison.rows} == set(registry.names("method"))
    objectives = {round_.objective.name for variant in comparison.rows for round_ in variant.rounds}
    builders = {round_.builder.name for variant in comparison.rows for round_ in variant.rounds}
    assert (objectives, builders) == (set(registry.names("objective")), set(registry.names("data")))
    assert len(comparison.config.seeds) == 3


def test_the_quickstart_compares_at_least_twelve_methods(registry: Registry) -> None:
    comparison = resolve(load_raw(CONFIGS / "quickstart.yaml"), registry)
    assert len({variant.method for variant in comparison.rows if variant.kind == "measured"}) >= 12
