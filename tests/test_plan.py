"""The graph: what is shared, and what a key depends on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

from harness import Dataset, HarnessError, Source, hookimpl
from harness.api.registry import Registry
from harness.config import resolve
from harness.config.file import override
from harness.errors import ConfigError
from harness.run.executors.events import Outcome
from harness.run.graph import Graph, Stage
from harness.run.plan import plan
from harness.run.results import Run, row_precision
from harness.training.settings import TrainingSettings


class Fingerprinted(Source):
    """A source whose data lie elsewhere."""

    name = "fingerprinted"
    provides = frozenset({"target", "ranked", "gold"})
    content: ClassVar[str] = "a"

    def load(self) -> Dataset:
        return Dataset({})

    def fingerprint(self) -> str:
        return type(self).content


class Plugin:
    @hookimpl
    def harness_sources(self) -> list[type[Source]]:
        return [Fingerprinted]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load(extra=[Plugin()])


@pytest.fixture
def raw(tiny_checkpoint: Path) -> dict[str, Any]:
    return {
        "name": "a",
        "source": "fingerprinted",
        "model": {"path": str(tiny_checkpoint)},
        "methods": ["sft", "null", "dpo", "sr_dpo", "self_contrast"],
        "budget": {"prompts": 10},
        "evaluators": ["gold_reward", "response_stats"],
        "seeds": [0, 1],
        "baseline": "sft",
    }


def graph_of(raw: dict[str, Any], registry: Registry, *changes: str) -> Graph:
    return plan(resolve(override(raw, changes), registry))


def kinds(graph: Graph, kind: str) -> list[Stage]:
    return [stage for stage in graph if stage.kind == kind]


def models(graph: Graph) -> dict[tuple[str, int], str]:
    return {(row.label, row.seed): row.model for row in graph.rows}


def test_shared_stages_are_there_once(raw: dict[str, Any], registry: Registry) -> None:
    graph = graph_of(raw, registry)
    assert len(kinds(graph, "source")) == 1
    assert len(kinds(graph, "sft")) == 4  # two seeds, and the null row's two
    assert len(kinds(graph, "groups")) == 4  # dpo and sr_dpo train on the same pairs
    assert len(kinds(graph, "train")) == 6
    assert len(kinds(graph, "reference")) == 2 * 3  # of both builders, and Sr-DPO's own view
    assert len(graph.rows) == 10
    dpo, sr_dpo = (next(row for row in graph.rows if (row.label, row.seed) == (label, 0)) for label in ("dpo", "sr_dpo"))
    shared = graph.needed_by(dpo) & graph.needed_by(sr_dpo)
    assert sorted(graph.stages[key].kind for key in shared) == ["groups", "reference", "sft", "source"]


def test_parents_come_before_children(raw: dict[str, Any], registry: Registry) -> None:
    seen: set[str] = set()
    for stage in graph_of(raw, registry, "methods.dpo=only_prompting"):
        assert stage.parents <= seen
        seen.add(stage.key)


@pytest.mark.parametrize(
    "change",
    [
        "methods.dpo={method: dpo, training: {learning_rate: 0.001}}",
        "methods.dpo={method: dpo, data: {negatives: 2}}",
        "methods.dpo={method: dpo, objective: {beta: 0.2}}",
        "training.epochs=2",
        "budget.prompts=8",
        "sft.epochs=1",
        "sft=null",
        "sft.lora={rank: 4}",
        "training.lora={rank: 4}",
        "training.precision=bfloat16",
        "training.gradient_checkpointing=true",
        "generation.max_tokens=5",
        "generation.backend={name: transformers, rows_per_batch: 2}",
        "source=sandbox",
    ],
)
def test_what_decides_a_model_changes_its_key(change: str, raw: dict[str, Any], registry: Registry) -> None:
    before, after = models(graph_of(raw, registry)), models(graph_of(raw, registry, change))
    assert before["dpo", 0] != after["dpo", 0]


@pytest.mark.parametrize(
    "change",
    [
        "description=another",
        "name=another",
        "evaluators=[response_stats, gold_reward]",
        "evaluators=[response_stats]",
        "evaluation.prompts=3",
        "methods=[dpo, sft]",
        "methods=[sft, {method: dpo, data: {negatives: 1}}]",
        "methods=[sft, {label: dpo, data: preference, objective: dpo}]",
        "seeds=[1, 0]",
        "seeds=[0]",
        "run.checkpoint_minutes=0",
        "statistics={primary: [gold_reward/gold], equivalent_within: {gold_reward/gold: 0.2}}",
        "training.precision=float32",
        "training.lora=null",
    ],
)
def test_what_decides_nothing_changes_no_key(change: str, raw: dict[str, Any], registry: Registry) -> None:
    before, after = models(graph_of(raw, registry)), models(graph_of(raw, registry, change))
    assert before["dpo", 0] == after["dpo", 0]
    assert before["sft", 0] == after["sft", 0]


def test_settings_that_came_later_leave_older_keys_alone(raw: dict[str, Any], registry: Registry) -> None:
    """Stores that were filled before there were adapters are still found: at their defaults, payloads do not name them."""
    stages = list(graph_of(raw, registry))
    later = {"lora", "precision", "gradient_checkpointing", "peft"}
    trained = [stage for stage in stages if stage.kind in ("sft", "train")]
    assert trained and not any(later & {*stage.payload, *stage.payload["settings"]} for stage in trained)
    assert all(stage.payload.keys() == {"view", "objective"} for stage in stages if stage.kind == "reference")
    adapted = [stage for stage in graph_of(raw, registry, "training.lora={rank: 4}") if stage.kind == "train"]
    assert all(stage.payload["peft"] and stage.payload["settings"]["lora"]["rank"] == 4 for stage in adapted)


def test_the_reference_is_scored_in_the_precision_of_the_training(raw: dict[str, Any], registry: Registry) -> None:
    stages = list(graph_of(raw, registry, "training.precision=bfloat16"))
    assert {stage.payload["precision"] for stage in stages if stage.kind == "reference"} == {"bfloat16"}


def test_precision_auto_is_bfloat16_on_a_gpu_and_says_so_in_the_key() -> None:
    assert TrainingSettings().payload("cuda")["precision"] == "bfloat16"
    assert TrainingSettings(precision="float32").payload("cuda")["precision"] == "float32"
    assert "precision" not in TrainingSettings(precision="float32").payload("cpu")


def test_a_label_is_only_a_name(raw: dict[str, Any], registry: Registry) -> None:
    before = graph_of(raw, registry)
    after = graph_of(raw, registry, "methods.dpo={method: dpo, label: renamed}")
    assert set(before.stages) == set(after.stages)
    assert models(before)["dpo", 1] == models(after)["renamed", 1]


def test_a_change_touches_its_own_row_only(raw: dict[str, Any], registry: Registry) -> None:
    before = models(graph_of(raw, registry))
    after = models(graph_of(raw, registry, "methods.dpo={method: dpo, training: {learning_rate: 0.001}}"))
    assert {label for label, seed in before if before[label, seed] != after[label, seed]} == {"dpo"}


def test_seeds_have_models_of_their_own(raw: dict[str, Any], registry: Registry) -> None:
    found = models(graph_of(raw, registry))
    assert len(set(found.values())) == len(found)


def test_files_behind_a_source_count_by_their_content(
    raw: dict[str, Any], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = graph_of(raw, registry)
    monkeypatch.setattr(Fingerprinted, "content", "b")
    after = graph_of(raw, registry)
    assert len(before.stages) == len(after.stages) > 0
    assert not set(before.stages) & set(after.stages)


def test_a_checkpoint_counts_by_its_content_and_not_its_place(raw: dict[str, Any], registry: Registry, tmp_path: Path) -> None:
    before = graph_of(raw, registry)
    for file in Path(raw["model"]["path"]).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert set(graph_of(raw, registry, f"model.path={tmp_path}").stages) == set(before.stages)
    with (tmp_path / "config.json").open("a") as stream:
        stream.write(" ")
    assert models(graph_of(raw, registry, f"model.path={tmp_path}"))["sft", 0] != models(before)["sft", 0]


def test_the_null_row_is_the_baseline_with_other_seeds(raw: dict[str, Any], registry: Registry) -> None:
    found = models(graph_of(raw, registry, "seeds=[0, 1]"))
    later = models(graph_of(raw, registry, "seeds=[1000]"))
    assert found["null", 0] == later["sft", 1000]
    assert found["null", 1] != found["sft", 1]


def test_the_null_row_of_a_trained_baseline_is_trained(raw: dict[str, Any], registry: Registry) -> None:
    graph = graph_of(raw, registry, "baseline=dpo", "seeds=[0]")
    null, base = (next(row for row in graph.rows if row.label == label) for label in ("null", "dpo"))
    assert len(null.training) == len(base.training) == 1
    assert models(graph)["null", 0] == models(graph_of(raw, registry, "baseline=dpo", "seeds=[1000]"))["dpo", 1000]
    assert len(null.evaluations) == len(base.evaluations) > 0
    assert set(null.evaluations.values()).isdisjoint(base.evaluations.values())


def test_a_null_row_must_not_meet_the_other_seeds(raw: dict[str, Any], registry: Registry) -> None:
    with pytest.raises(ConfigError, match=r"seeds = \[0, 1000\]: the null row trains with each seed \+ 1000"):
        graph_of(raw, registry, "seeds=[0, 1000]")
    with pytest.raises(ConfigError, match="choose another row as the baseline"):
        graph_of(raw, registry, 'baseline="null"')


def test_an_upgraded_library_makes_artifacts_of_its_own(
    raw: dict[str, Any], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = graph_of(raw, registry)
    monkeypatch.setattr("harness.run.plan.environment", lambda: {"torch": "99", "device": "cpu"})
    after = graph_of(raw, registry)
    shared = set(before.stages) & set(after.stages)
    assert {before.stages[key].kind for key in shared} == {"source"}


def test_rounds_split_the_budget_and_refer_to_the_round_before(raw: dict[str, Any], registry: Registry) -> None:
    graph = graph_of(raw, registry, "methods=[sft, {method: dpo, rounds: [{}, {learning_rate_factor: 0.5}, {}]}]", "seeds=[0]")
    start = next(row.model for row in graph.rows if row.label == "sft")
    row = next(row for row in graph.rows if row.label == "dpo")
    assert [graph.stages[key].payload["examples"] for key in row.groups] == [[0, 3], [3, 6], [6, 10]]
    policies = [start, *row.training[:-1]]
    for groups, training, policy in zip(row.groups, row.training, policies, strict=True):
        assert graph.stages[groups].inputs["policy"] == policy
        assert graph.stages[groups].inputs["start"] == start
        assert graph.stages[training].inputs["model"] == policy
        (reference,) = (key for name, key in graph.stages[training].inputs.items() if name.startswith("reference:"))
        assert graph.stages[reference].inputs == {"groups": groups, "model": policy}
    rates = [graph.stages[key].payload["settings"]["learning_rate"] for key in row.training]
    assert rates == [2e-4, 1e-4, 2e-4]
    assert row.model == row.training[-1]


def test_mismatched_pairs_have_a_reference_of_their_own_which_objectives_share(raw: dict[str, Any], registry: Registry) -> None:
    rows = "{label: a, data: preference, objective: kto}, {label: b, data: preference, objective: {name: kto, beta: 0.5}}"
    graph = graph_of(raw, registry, f"methods=[sft, {rows}]", "seeds=[0]")
    views = [stage.payload for stage in graph.stages.values() if stage.kind == "reference"]
    assert views == [{"view": "", "objective": None}, {"view": "mismatched", "objective": None}]
    for row in graph.rows[1:]:
        assert {"reference:", "reference:mismatched"} <= graph.stages[row.training[0]].inputs.keys()


def test_views_of_the_same_responses_are_made_one_after_the_other(raw: dict[str, Any], registry: Registry) -> None:
    """What they ask may be the same, and then the second finds it in the store."""
    rows = "{label: a, data: preference, objective: sr_dpo}, {label: b, data: preference, objective: sr_ipo}"
    graph = graph_of(raw, registry, f"methods=[sft, {rows}]", "seeds=[0]")
    references = {stage.payload["view"]: set[str | None]() for stage in kinds(graph, "reference")}
    for stage in kinds(graph, "reference"):
        references[stage.payload["view"]].add(stage.shares)
    (shared,) = references["augmented"]
    assert shared and len(kinds(graph, "reference")) == 3
    assert references[""] == {None}


def test_an_objective_without_reference_gets_none(raw: dict[str, Any], registry: Registry) -> None:
    graph = graph_of(raw, registry, "methods=[sft, {label: simpo, data: preference, objective: simpo}]")
    assert kinds(graph, "reference") == []


def test_answers_are_drawn_once_for_all_evaluators(raw: dict[str, Any], registry: Registry) -> None:
    graph = graph_of(raw, registry, "methods=[sft]", "seeds=[0]", "evaluators=[gold_reward, target_win_rate]")
    asked = [stage.payload["sampling"] for stage in kinds(graph, "answers")]
    assert len(asked) == len({str(sampling) for sampling in asked})
    used = {key for stage in kinds(graph, "evaluate") for name, key in stage.inputs.items() if name.startswith("answers:")}
    assert used == {stage.key for stage in kinds(graph, "answers")}


def test_a_source_that_is_not_there_stops_the_plan(raw: dict[str, Any], registry: Registry) -> None:
    changes = ["source={name: hh_rlhf, path: /no/such/file}", "evaluators=[response_stats]"]
    with pytest.raises(HarnessError, match=r"source\.path = '/no/such/file': no such file"):
        graph_of(raw, registry, *changes)


def trainings(graph: Graph, label: str) -> list[Stage]:
    return [graph.stages[key] for row in graph.rows if row.label == label and row.seed == 0 for key in row.training]


def test_rounds_split_a_limit_to_the_last_pair(raw: dict[str, Any], registry: Registry) -> None:
    raw |= {"methods": ["sft", "only_prompting", "dpo"], "budget": {"prompts": 10, "pairs": 20}}
    graph = plan(resolve(raw, registry))
    assert [stage.payload["spending"] for stage in trainings(graph, "only_prompting")] == [
        {"unit": "pairs", "amount": amount} for amount in (6, 7, 7)
    ]
    (whole,) = trainings(graph, "dpo")
    assert whole.payload["spending"] == {"unit": "pairs", "amount": 20}


def test_a_budget_in_prompts_leaves_no_trace_in_the_keys(raw: dict[str, Any], registry: Registry) -> None:
    (stage,) = trainings(graph_of(raw, registry), "dpo")
    assert "spending" not in stage.payload


def test_a_round_refers_to_the_round_before_or_to_the_start(raw: dict[str, Any], registry: Registry) -> None:
    raw["methods"] = ["sft", {"method": "dpo", "rounds": [{}, {}, {"reference": "start"}]}]
    graph = plan(resolve(raw, registry))
    stages = trainings(graph, "dpo")
    references = [graph.stages[stage.inputs["reference:"]].inputs["model"] for stage in stages]
    assert references == [stages[0].inputs["model"], stages[0].key, stages[0].inputs["model"]]
    assert [stage.inputs["model"] for stage in stages[1:]] == [stages[0].key, stages[1].key]


def evaluations(graph: Graph, evaluator: str) -> dict[str, Stage]:
    return {row.label: graph.stages[row.evaluations[evaluator][0]] for row in graph.rows if row.seed == 0}


JUDGED = ("judge={model: gpt-4o}", "evaluators=[{name: pairwise_judge, opponent: all}, gold_reward]")


def test_an_evaluation_hangs_on_its_opponents_answers(raw: dict[str, Any], registry: Registry) -> None:
    graph = graph_of(raw, registry, *JUDGED)
    labels = {row.label for row in graph.rows}
    for label, stage in evaluations(graph, "pairwise_judge").items():
        others = {name.removeprefix("opponent:") for name in stage.inputs if name.startswith("opponent:")}
        assert others == labels - {label}
        assert stage.payload["judge"]["model"] == "gpt-4o"
    own = evaluations(graph, "pairwise_judge")["sft"].inputs["answers:0"]
    assert evaluations(graph, "pairwise_judge")["dpo"].inputs["opponent:sft"] == own


def test_a_judge_changes_the_keys_of_what_it_judges_alone(raw: dict[str, Any], registry: Registry) -> None:
    before = graph_of(raw, registry, *JUDGED)
    for change, same in (("judge.model=gpt-4", False), ("judge.max_usd=1", True), ("judge.concurrency=2", True)):
        after = graph_of(raw, registry, *JUDGED, change)
        assert (evaluations(before, "pairwise_judge") == evaluations(after, "pairwise_judge")) is same
        assert evaluations(before, "gold_reward") == evaluations(after, "gold_reward")
    assert "gpt-4o" in json.dumps(before.judges)


def test_what_becomes_of_thoughts_is_in_the_keys_of_evaluations_alone(raw: dict[str, Any], registry: Registry) -> None:
    plain, strip = graph_of(raw, registry), graph_of(raw, registry, "evaluation.response={thinking: strip}")
    assert all("response" not in stage.payload and "reading" not in stage.payload for stage in plain)
    assert {stage.key for stage in plain if stage.kind != "evaluate"} == {s.key for s in strip if s.kind != "evaluate"}
    changed = {stage.key for stage in plain if stage.kind == "evaluate"} & {s.key for s in strip if s.kind == "evaluate"}
    assert kinds(plain, "evaluate") and changed == set()


def test_how_judges_are_read_is_in_the_keys_of_what_they_judge_alone(raw: dict[str, Any], registry: Registry) -> None:
    raw |= {"judge": {"model": "m"}, "evaluators": ["gold_reward", "pairwise_judge"]}
    plain, own = graph_of(raw, registry), graph_of(raw, registry, 'judge.reasoning_delimiters=[["<a>", "</a>"]]')
    judged = {stage.key for stage in kinds(plain, "evaluate") if "judge" in stage.payload}
    assert len(judged) == len(plain.rows)
    assert {stage.key for stage in plain} - {stage.key for stage in own} == judged
    pairs = [(stage, other) for stage, other in zip(plain, own, strict=True) if "judge" in stage.payload]
    assert all(stage.payload["judge"] == other.payload["judge"] for stage, other in pairs)  # what is kept stays readable


def test_keys_say_what_scores_and_merges_are_now_only_where_they_once_were_rounded(
    raw: dict[str, Any], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def marked(*changes: str) -> dict[str, set[str]]:
        graph = graph_of(raw, registry, *changes)
        return {name: {stage.kind for stage in graph if name in stage.payload} for name in ("scoring", "merging")}

    assert marked() == {"scoring": set(), "merging": set()}
    lora = "training={lora: {}}", "sft={lora: {}}"
    assert marked(*lora) == {"scoring": set(), "merging": set()}
    assert marked("training={lora: {target_modules: [lm_head]}}")["merging"] == {"train"}
    rounded = marked("model.dtype=bfloat16", *lora)
    assert rounded == {"scoring": {"groups", "evaluate"}, "merging": {"sft", "train"}}
    assert "scoring" not in graph_of(raw, registry).environment
    before = {stage.key for stage in graph_of(raw, registry)}
    monkeypatch.setattr("harness.store.environment.device_kind", lambda: "cuda")
    on_gpu = graph_of(raw, registry)
    assert on_gpu.environment["scoring"] == "float32"
    assert {stage.key for stage in on_gpu if stage.kind != "source"}.isdisjoint(before)


@pytest.mark.parametrize(
    ("device", "changes", "types"),
    [
        ("cpu", (), ("float32", "float32", "float32", "float32")),
        ("cuda", (), ("bfloat16", "float32", "float32", "bfloat16")),
        ("cuda", ("training.precision=float32",), ("bfloat16 and float32", "float32", "float32", "bfloat16")),
        ("cuda", ("sft=null", "training.precision=float32"), ("float32", "float32", "float32", "bfloat16")),
        ("cpu", ("model.storage=bfloat16",), ("float32", "bfloat16", "float32", "float32")),
    ],
)
def test_a_row_says_in_which_types_it_was_computed(
    raw: dict[str, Any], registry: Registry, monkeypatch: pytest.MonkeyPatch, device: str, changes: tuple[str, ...], types: Any
) -> None:
    monkeypatch.setattr("harness.store.environment.device_kind", lambda: device)
    comparison = resolve(override(raw, changes), registry)
    variant = next(variant for variant in comparison.rows if variant.label == "dpo")
    store: Any = None
    said = row_precision(variant, Run(comparison, plan(comparison), store, Outcome()))
    assert tuple(said[name] for name in ("training", "weights", "scoring", "generation")) == types


def test_the_scoring_layout_is_in_keys_where_it_is_not_padded_rows(
    raw: dict[str, Any], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys(layout: str, large: bool) -> list[str]:
        monkeypatch.setattr("harness.config.comparison.is_large", lambda checkpoint: large)
        return list(plan(resolve(override(raw, [f"model.scoring_layout={layout}", "sft.layout=padded"]), registry)).stages)

    padded = keys("padded", large=False)
    assert keys("padded", large=True) == keys("auto", large=False) == padded
    shared = keys("auto", large=True)
    assert keys("shared_prefix", large=False) == keys("shared_prefix", large=True) == shared
    assert len(shared) == len(padded) and set(shared) & set(padded) and set(shared) - set(padded)


def test_the_layout_of_fine_tuning_is_in_keys_where_it_is_not_trl_s(
    raw: dict[str, Any], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def payload(layout: str, large: bool) -> dict[str, Any]:
        monkeypatch.setattr("harness.config.comparison.is_large", lambda checkpoint: large)
        comparison = resolve(override(raw, [f"sft.layout={layout}", "model.scoring_layout=padded"]), registry)
        stage = next(stage for stage in plan(comparison) if stage.kind == "sft")
        return {"key": stage.key, "layout": stage.payload["settings"].get("layout")}

    padded, packed = payload("padded", large=True), payload("packed", large=False)
    assert payload("auto", large=False) == padded and padded["layout"] is None
    assert payload("auto", large=True) == packed and packed["layout"] == "packed"
    assert packed["key"] != padded["key"]
