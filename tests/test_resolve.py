"""A config against what is installed: every problem at once, before any compute."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import ConfigError, DataBuilder, hookimpl
from harness.api.registry import Registry
from harness.config import Comparison, automatic_backend, resolve
from harness.config.file import find_config, load_raw, override, packaged_config
from harness.models import fetched
from harness.models.judge.settings import judge_of
from harness.run.plan import plan
from harness_plugins.backends import vllm

CONFIGS = Path(__file__).parent.parent / "configs"
THREE_MISTAKES = """
name: wrong
source: sandbox
model: {path: sandbox}
buget: {prompts: 100}
methods:
  - sft
  - {method: self_contrast, data: {negativs: 4}, training: {learning_rate: -1}}
  - dop
evaluators: [gold_reward]
baseline: sft
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture
def raw(tiny_checkpoint: Path) -> dict[str, Any]:
    return {
        "name": "a",
        "source": {"name": "sandbox", "sft": 40, "train": 32},
        "budget": {"prompts": 16},
        "model": {"path": str(tiny_checkpoint)},
        "methods": ["sft", "dpo"],
        "evaluators": ["gold_reward"],
        "baseline": "sft",
    }


def refused(raw: dict[str, Any], registry: Registry) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        resolve(raw, registry)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_packaged_config_resolves(
    path: Path, registry: Registry, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = load_raw(path)
    embedder = tmp_path / "minilm"  # as `harness fetch` records one
    embedder.mkdir()
    (embedder / "model.safetensors").write_bytes(b"")
    (embedder / fetched.FETCHED).write_text(fetched.record(fetched.MINILM, embedder))
    monkeypatch.setattr(fetched._Cache, "folder", tmp_path)
    if isinstance(raw["model"], list):  # each starting model is a comparison of its own
        raw = {**raw, "model": {"path": "replaced below"}}
    if "path" in raw["model"]:
        raw = override(raw, [f"model.path={tiny_checkpoint}"])
    if isinstance(raw["source"], dict) and "path" in raw["source"]:
        rows = tmp_path / "rows.jsonl"
        row = {"chosen": "\n\nHuman: hi\n\nAssistant: good day", "rejected": "\n\nHuman: hi\n\nAssistant: no"}
        rows.write_text(json.dumps(row) + "\n")
        raw = override(raw, [f"source.path={rows}"])
    comparison = resolve(raw, registry, str(path))
    assert isinstance(comparison, Comparison)
    assert comparison.config.baseline in [variant.label for variant in comparison.rows]
    assert packaged_config(path.stem).exists() == (path.parent == CONFIGS)


def test_a_folder_named_like_a_packaged_config_hides_it_from_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()
    (tmp_path / "mine").mkdir()
    assert find_config(Path("quickstart")) == packaged_config("quickstart")
    assert find_config(Path("mine")) == Path("mine")  # which is refused where it is read


def test_three_mistakes_get_one_message_and_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(THREE_MISTAKES)
    code = """
import sys
from harness.cli import main
try:
    main()
finally:
    print("torch" in sys.modules, "transformers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, "compare", str(path)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == "False False\n"
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if "model.path" not in line]
    assert said[0].endswith(f"problems in {path}:")
    assert said[1:] == [
        "  - line 5: buget = {'prompts': 100}: no such field; did you mean 'budget'?",
        "  - line 8: methods.1.training.learning_rate = -1: it should be greater than 0",
        "  - line 8: methods.1.data.negativs = 4: no such field; did you mean 'negatives'?",
        "  - line 9: methods.2.method = 'dop': no method is called so; did you mean 'dpo'?",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wrong.yaml"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("methods=[sft, dpo, dpo]", ["methods = 'dpo': two rows have this label: give one of them another `label`"]),
        ("baseline=spft", ["baseline = 'spft': no row has this label; did you mean 'sft'?"]),
        (
            "evaluators=[gold_rewards]",
            ["evaluators.0 = 'gold_rewards': no evaluator is called so; did you mean 'gold_reward'?"],
        ),
        (
            "evaluators=[gold_reward, {name: gold_reward, temperature: 0.5}]",
            ["evaluators = 'gold_reward': two evaluators have this label: give one of them another `label`"],
        ),
        ("source=sandbx", ["source = 'sandbx': no source is called so; did you mean 'sandbox'?"]),
        ("source.trian=3", ["source.trian = 3: no such field; did you mean 'train'?"]),
        ("generation.backend=vlm", None),
        (
            "model.path=/no/such/folder",
            [
                "model.path = '/no/such/folder': no such folder; give 'sandbox', a local checkpoint folder, 'smollm2' after "
                "`harness fetch smollm2`, or a hub model as owner/name"
            ],
        ),
        (
            "methods.dpo={label: x, data: preference}",
            [
                "methods.1.method = (absent): name a `method`, a `trainer`, or both a builder and an objective: "
                "`data: {name: …}` and `objective: {name: …}`"
            ],
        ),
        (
            "methods.dpo={method: null}",
            [
                'methods.1.method = None: without quotes YAML reads null as nothing: write "null" in quotes for the row of '
                "that name"
            ],
        ),
        (
            "methods.0={method: sft, training: {epochs: 2}}",
            [
                "methods.0.training = {'epochs': 2}: the row 'sft' trains nothing: leave `training` out, or name both a "
                "builder and an objective"
            ],
        ),
        (
            "methods.dpo={method: only_prompting, data: {rejected_score: 2}}",
            [
                "methods.1.data.rejected_score = 2: every round of 'only_prompting' sets this, so it would have no effect: "
                "write `rounds` of your own"
            ],
        ),
        (
            "methods.dpo={method: dpo, rounds: [{data: {negativs: 1}}]}",
            ["methods.1.rounds.0.data.negativs = 1: no such field; did you mean 'negatives'?"],
        ),
        (
            "methods.dpo={method: dpo, rounds: [{learning_rate_factor: -1}]}",
            [
                "methods.1.rounds.0.learning_rate_factor = -1.0: it makes the learning rate -0.0002: it should be greater than "
                "0, and the rate at most 1"
            ],
        ),
        (
            "budget={prompts: 2}",
            None,
        ),
    ],
)
def test_a_mistake_is_named_once_with_value_and_fix(
    change: str, said: list[str] | None, raw: dict[str, Any], registry: Registry
) -> None:
    if said is None:
        raw = override(raw, ["methods.dpo=only_prompting"])
    found = refused(override(raw, [change]), registry)
    if said is None:
        assert len(found) == 1
        assert found[0].split(" = ")[0] == {"g": "generation.backend", "b": "budget.prompts"}[change[0]]
    else:
        assert found == said


def test_needs_that_the_source_does_not_meet(raw: dict[str, Any], registry: Registry) -> None:
    changes = [
        "source={name: hh_rlhf, path: pyproject.toml}",
        "methods=[sft, dpo, oracle]",
        "evaluators=[response_stats, gold_reward]",
    ]
    found = refused(override(raw, changes), registry)
    provides = ", ".join(sorted(registry.get("source", "hh_rlhf").component.provides))
    assert found == [
        f"methods.2 = 'oracle': it needs gold, and 'hh_rlhf' provides {provides}: leave it out, or change the source",
        f"evaluators.1 = 'gold_reward': it needs gold, and 'hh_rlhf' provides {provides}: leave it out, or change the source",
    ]


def test_an_objective_over_pairs_is_not_given_data_without_any(raw: dict[str, Any], registry: Registry) -> None:
    rows = ["sft", {"label": "a", "data": "targets", "objective": "dpo"}]
    rows += [{"label": "b", "data": {"name": "best_of_n", "negatives": 0}, "objective": "kto"}]
    fix = "and {!r} compares with one: choose another data builder or objective"
    assert refused({**raw, "methods": rows}, registry) == [
        f"methods.1.data = 'targets': its data have no rejected response, {fix.format('dpo')}",
        f"methods.2.data = 'best_of_n': its data have no rejected response, {fix.format('kto')}",
    ]
    resolve({**raw, "methods": ["sft", {"label": "a", "data": "targets", "objective": "sft"}]}, registry)


def test_problems_come_in_the_order_of_the_config(raw: dict[str, Any], registry: Registry) -> None:
    changes = ["baseline=x", "methods=[sft, {method: dpo, data: {a: 1}}, dop]", "source.b=1", "zzz=1", "seeds=[]"]
    fields = [line.split(" = ")[0] for line in refused(override(raw, changes), registry)]
    assert fields == ["zzz", "source.b", "methods.1.data.a", "methods.2.method", "seeds"]


def test_any_builder_goes_with_any_objective(raw: dict[str, Any], registry: Registry) -> None:
    entry = {"label": "mine", "data": {"name": "preference", "negatives": 2}, "objective": "simpo"}
    changed = {"method": "dpo", "label": "spun", "data": "spin"}
    tuned = {"method": "dpo", "label": "more", "data": {"negatives": 3}, "objective": {"beta": 0.5}}
    _, mine, spun, more = resolve({**raw, "methods": ["sft", entry, changed, tuned]}, registry).rows
    assert (mine.data, mine.objective, mine.label) == ("preference", "simpo", "mine")
    assert mine.rounds[0].builder.model_dump() == {"negatives": 2}
    assert (spun.data, spun.objective) == ("spin", "dpo")
    assert more.rounds[0].builder.model_dump() == {"negatives": 3}
    assert more.rounds[0].objective.model_dump()["beta"] == 0.5


def test_settings_of_a_row_go_over_the_sections(raw: dict[str, Any], registry: Registry) -> None:
    raw["training"] = {"learning_rate": 0.01, "epochs": 2}
    entry = {"method": "dpo", "training": {"epochs": 3}, "rounds": [{}, {"learning_rate_factor": 0.5}]}
    _, variant = resolve({**raw, "methods": ["sft", entry]}, registry).rows
    assert [round_.training.learning_rate for round_ in variant.rounds] == [0.01, 0.005]
    assert [round_.training.epochs for round_ in variant.rounds] == [3, 3]


def test_a_third_party_builder_is_checked_like_a_built_in(raw: dict[str, Any]) -> None:
    class Mine(DataBuilder):
        name = "mine"
        strength: int = 1

    class Plugin:
        @hookimpl
        def harness_data_builders(self) -> list[type[DataBuilder]]:
            return [Mine]

    registry = Registry.load(extra=[Plugin()])
    raw["methods"] = ["sft", {"label": "x", "data": {"name": "mine", "strenght": 2}, "objective": "dpo"}]
    assert refused(raw, registry) == ["methods.1.data.strenght = 2: no such field; did you mean 'strength'?"]


def test_a_round_may_name_another_builder_and_objective(raw: dict[str, Any], registry: Registry) -> None:
    first = {"data": "preference", "objective": {"name": "ipo", "beta": 0.5}}
    second = {"data": {"rejected_score": 5}, "training": {"weight_decay": 0.1}, "reference": "start"}
    raw["methods"] = ["sft", {"method": "only_prompting", "objective": {"gamma": 0.7}, "rounds": [first, second]}]
    _, variant = resolve(raw, registry).rows
    one, two = variant.rounds
    assert (one.builder.name, one.objective.name, one.reference) == ("preference", "ipo", "previous")
    assert one.objective.model_dump()["beta"] == 0.5
    assert (two.builder.name, two.objective.name, two.reference) == ("only_prompting", "simpo", "start")
    assert two.builder.model_dump()["rejected_score"] == 5 and two.objective.model_dump()["gamma"] == 0.7
    assert (one.training.weight_decay, two.training.weight_decay) == (0.0, 0.1)
    assert (variant.data, variant.objective) == ("preference → only_prompting", "ipo → simpo")


@pytest.mark.parametrize(
    ("round_", "problem"),
    [
        ({"data": "spinn"}, "methods.1.rounds.0.data = 'spinn': no data is called so; did you mean 'spin'?"),
        ({"data": {"name": "spin", "negatives": 2}}, "methods.1.rounds.0.data.negatives = 2: no such field"),
        ({"training": {"epochs": 0}}, "methods.1.rounds.0.training.epochs = 0: it should be greater than or equal to 1"),
        ({"reference": "base"}, "methods.1.rounds.0.reference = 'base': it should be 'previous' or 'start'"),
    ],
)
def test_what_is_wrong_with_a_round_is_said_of_it(
    raw: dict[str, Any], registry: Registry, round_: dict[str, Any], problem: str
) -> None:
    raw["methods"] = ["sft", {"method": "dpo", "rounds": [round_]}]
    (said,) = refused(raw, registry)
    assert said.startswith(problem)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"budget": {"prompts": 16, "pairs": 10, "updates": 2}},
            "budget = {'prompts': 16, 'pairs': 10, 'updates': 2}: pairs and updates are two limits",
        ),
        (
            {"budget": {"prompts": 16, "pairs": 2}},
            "budget.pairs = 2: a method has 3 rounds that share it: it should be at least 3",
        ),
        (
            {"budget": {"prompts": 16, "tokens": 99}, "training": {"epochs": 1}},
            "training.epochs = 1: budget.tokens decides how often a prompt",
        ),
    ],
)
def test_one_budget_and_only_one(raw: dict[str, Any], registry: Registry, changes: dict[str, Any], problem: str) -> None:
    raw["methods"] = ["sft", "only_prompting"]
    (said,) = refused({**raw, **changes}, registry)
    assert said.startswith(problem)


def test_epochs_of_a_row_are_refused_where_the_budget_decides(raw: dict[str, Any], registry: Registry) -> None:
    entry = {"method": "dpo", "training": {"epochs": 2}, "rounds": [{"training": {"epochs": 3}}]}
    said = refused({**raw, "methods": ["sft", entry], "budget": {"prompts": 16, "updates": 5}}, registry)
    assert [text.split(" = ")[0] for text in said] == ["methods.1.training.epochs", "methods.1.rounds.0.training.epochs"]


def test_a_judged_evaluator_needs_a_judge_and_may_change_it(raw: dict[str, Any], registry: Registry) -> None:
    raw["evaluators"] = [{"name": "pairwise_judge", "opponent": "dpoo"}]
    said = refused(raw, registry)
    assert "judge = (absent): 'pairwise_judge' asks a judge: add a section such as `judge: {model: " in "\n".join(said)
    assert "evaluators.0 = 'dpoo': no row has this label; did you mean 'dpo'?" in said
    raw["judge"] = {"model": "gpt-4o", "temprature": 1}
    assert "judge.temprature = 1: no such field; did you mean 'temperature'?" in refused(raw, registry)
    raw["judge"] = {"model": "gpt-4o", "max_usd": 5}
    raw["evaluators"] = [{"name": "pairwise_judge", "judge": {"concurrency": 0}}]
    assert refused(raw, registry) == ["evaluators.0.judge.concurrency = 0: it should be greater than or equal to 1"]
    raw["evaluators"] = [{"name": "pairwise_judge", "judge": {"model": "gpt-4", "concurrency": 2}}, "gold_reward"]
    judges = resolve(raw, registry).judges
    assert {name: (judge.model, judge.concurrency, judge.max_usd) for name, judge in judges.items()} == {
        "pairwise_judge": ("gpt-4", 2, 5.0)
    }


def test_files_that_an_evaluator_needs_are_looked_for(raw: dict[str, Any], registry: Registry, tmp_path: Path) -> None:
    raw |= {"judge": {"model": "gpt-4o"}, "evaluators": [{"name": "mt_bench", "questions": str(tmp_path / "none")}]}
    assert any(
        text.startswith("evaluators.0.questions = ") and "there is no such file" in text for text in refused(raw, registry)
    )


PAIRED = {"name": "pairwise_judge", "opponent": "dpo"}


def test_an_evaluator_listed_twice_has_labels_and_judges_of_its_own(raw: dict[str, Any], registry: Registry) -> None:
    raw["judge"] = {"model": "one"}
    raw["evaluators"] = [
        {**PAIRED, "label": "a"},
        {**PAIRED, "label": "b", "judge": {"model": "two"}},
        {"name": "pairwise_judge", "opponent": "target"},
    ]
    models = {"a": "one", "b": "two", "pairwise_judge": "one"}
    comparison = resolve(raw, registry)
    assert list(comparison.evaluators) == ["a", "b", "pairwise_judge"]
    assert {label: judge.model for label, judge in comparison.judges.items()} == models
    graph = plan(comparison)
    for row in graph.rows:
        stages = {label: graph.stages[key] for label, (key,) in row.evaluations.items()}
        assert {label: judge_of(graph.judges, stage.payload).model for label, stage in stages.items()} == models
        assert len({stage.key for stage in stages.values()}) == 3


def test_a_label_is_part_of_no_key(raw: dict[str, Any], registry: Registry) -> None:
    plain = plan(resolve({**raw, "evaluators": ["gold_reward"]}, registry))
    labelled = plan(resolve({**raw, "evaluators": [{"name": "gold_reward", "label": "gold"}]}, registry))
    assert set(plain.stages) == set(labelled.stages)
    assert {tuple(row.evaluations) for row in labelled.rows} == {("gold",)}


def test_each_opponent_has_metrics_of_its_own(raw: dict[str, Any], registry: Registry) -> None:
    raw |= {"judge": {"model": "one"}, "methods": ["sft", "dpo", {"method": "dpo", "label": "a/b", "training": {"epochs": 2}}]}
    raw["evaluators"] = [{"name": "pairwise_judge", "opponent": "each", "label": "duel"}, "gold_reward"]
    comparison = resolve(raw, registry)
    opponents = {label: tuple(evaluator.opponents()) for label, evaluator in comparison.evaluators.items()}
    assert opponents == {"duel@sft": ("sft",), "duel@dpo": ("dpo",), "duel@a_b": ("a/b",), "gold_reward": ()}
    graph = plan(comparison)
    for row in graph.rows:
        for other in ("sft", "dpo", "a/b"):
            inputs = graph.stages[row.evaluations[f"duel@{other.replace('/', '_')}"][0]].inputs
            assert [name for name in inputs if name.startswith("opponent:")] == [f"opponent:{other}"]
    # The board keeps the config as written: resolving it again gives the same stages.
    again = resolve(comparison.config.model_dump(mode="json", by_alias=True), registry)
    assert set(plan(again).stages) == set(graph.stages)


@pytest.mark.parametrize(
    ("evaluators", "problem"),
    [
        ([{**PAIRED, "label": "x"}, {**PAIRED, "label": "x"}], "evaluators = 'x': two evaluators have this label"),
        ([PAIRED, {"name": "gold_reward", "label": "pairwise_judge"}], "evaluators = 'pairwise_judge': two evaluators have"),
        ([{**PAIRED, "label": "a/b"}], "evaluators.0.label = 'a/b': it should have no `/`"),
        ([{**PAIRED, "label": ""}], "evaluators.0.label = '': it should be text of one line"),
        ([{**PAIRED, "label": "a\nb"}], "evaluators.0.label = 'a\\nb': it should be text of one line"),
        ([{**PAIRED, "label": 3}], "evaluators.0.label = 3: it should be text"),
        ([{**PAIRED, "label": "data builders"}], "evaluators.0.label = 'data builders': it stands for the judge of data"),
        ([{**PAIRED, "opponent": "dpoo"}], "evaluators.0 = 'dpoo': no row has this label; did you mean 'dpo'?"),
        ([{"name": "gold_reward", "opponent": "each"}], "evaluators.0.opponent = 'sft': no such field"),
        (
            [{"name": "mt_bench", "mode": ["single"], "opponent": "each"}],
            "evaluators.0.opponent = 'each': 'mt_bench' with these fields compares with no row",
        ),
    ],
)
def test_labels_and_opponents_that_are_refused(
    raw: dict[str, Any], registry: Registry, evaluators: list[Any], problem: str
) -> None:
    raw |= {"judge": {"model": "gpt-4o"}, "evaluators": evaluators}
    assert any(text.startswith(problem) for text in refused(raw, registry)), refused(raw, registry)


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        (
            {"primary": ["gold_reward/glod"]},
            "statistics.primary.0 = 'gold_reward/glod': no evaluator reports this metric; did you",
        ),
        ({"equivalent_within": {"gold/gold": 1}}, "statistics.equivalent_within.gold/gold = 'gold/gold': no evaluator reports"),
        ({"equivalent_within": {"gold_reward/gold": 0}}, "statistics.equivalent_within.gold_reward/gold = 0: it should be"),
        ({"primary": ["gold_reward/gold"] * 2}, "'gold_reward/gold' occurs twice: list each metric once"),
        ({"primary": []}, "statistics.primary = []: give at least one"),
    ],
)
def test_what_a_config_cannot_declare(section: Any, problem: str, raw: dict[str, Any], registry: Registry) -> None:
    (found,) = refused({**raw, "statistics": section}, registry)
    assert problem in found


def test_a_metric_of_an_evaluator_that_is_wrong_is_no_second_problem(raw: dict[str, Any], registry: Registry) -> None:
    (found,) = refused({**raw, "evaluators": ["gold_rewart"], "statistics": {"primary": ["gold_reward/gold"]}}, registry)
    assert found.startswith("evaluators.0")


@pytest.mark.parametrize(
    ("device", "installed", "large", "name"),
    [
        ("cuda", True, True, "vllm"),
        ("cuda", True, False, "transformers"),
        ("cuda", False, True, "transformers"),
        ("cpu", True, True, "transformers"),
    ],
)
def test_an_automatic_backend_is_vllm_for_large_models_where_it_runs(
    device: str,
    installed: bool,
    large: bool,
    name: str,
    raw: dict[str, Any],
    registry: Registry,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(automatic_backend, "device_kind", lambda: device)
    for module in (automatic_backend, vllm):
        monkeypatch.setattr(module, "find_spec", lambda package: object() if installed else None)
    parameters = automatic_backend.model_size(json.loads((tiny_checkpoint / "config.json").read_text())).parameters
    monkeypatch.setattr(automatic_backend, "LARGE", parameters if large else parameters + 1)
    chosen = resolve(raw | {"generation": {"backend": "auto"}}, registry)
    assert chosen.backend.name == name
    fixed = resolve(raw | {"generation": {"backend": chosen.backend.name}}, registry) if name == "transformers" else None
    assert fixed is None or {*plan(fixed).stages} == {*plan(chosen).stages}


def test_an_automatic_backend_has_no_fields(raw: dict[str, Any], registry: Registry) -> None:
    with pytest.raises(ConfigError, match=r"generation\.backend"):
        resolve(raw | {"generation": {"backend": {"name": "auto", "rows_per_batch": 8}}}, registry)


def test_fields_of_a_backend_that_nobody_named_are_the_defaults(raw: dict[str, Any], registry: Registry) -> None:
    named = resolve(raw | {"generation": {"backend": {"name": "transformers", "random": "by_response"}}}, registry)
    changed = resolve(raw | {"generation": {"backend": {"random": "by_response"}}}, registry)
    assert changed.backend == named.backend != resolve(raw, registry).backend
    assert changed.config == named.config


def test_settings_for_a_gpu_can_be_planned_without_one_and_not_run(raw: dict[str, Any], registry: Registry) -> None:
    settings = raw.get("training", {}) | {"attention": "varlen"}
    here = raw | {
        "training": settings,
        "methods": ["dpo", {"method": "ipo", "training": {"attention": "flex"}}],
        "baseline": "dpo",
    }
    planned = resolve(here, registry, offline=True)
    assert list(planned.missing) == ["training.attention", "methods.1.training.attention"]
    assert "needs a CUDA device" in planned.missing["methods.1.training.attention"]
    with pytest.raises(ConfigError, match=r"training\.attention = 'varlen': it needs a CUDA device") as refused:
        resolve(here, registry)
    assert "methods.1.training.attention = 'flex'" in str(refused.value)
