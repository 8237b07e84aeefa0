"""Several starting models in one config: one comparison for each, with the stages of the config that has only that model."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from inline import inline_workers
from typer.testing import CliRunner

from harness.api.registry import Registry
from harness.board.board import Board
from harness.board.verify import VerifyOutcome
from harness.cli import app
from harness.config import resolve, resolve_each, resolved_configs
from harness.config.file import load_raw, override
from harness.errors import ConfigError, HarnessError
from harness.run.graph import joined
from harness.run.plan import plan
from harness.run.records import EvaluateInputs
from harness.run.verify import verification

sys.path.insert(0, str(Path(__file__).parent / "models"))
from checkpoints import make_checkpoint


@pytest.fixture(scope="module", autouse=True)
def _no_worker_processes() -> Iterator[None]:
    with inline_workers():
        yield


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture(scope="module")
def starts(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models with one tokenizer, a third with another, and a folder that is no checkpoint."""
    from harness.models.load import load_tokenizer
    from harness.sandbox.pretrain import Recipe, build_model

    folder = tmp_path_factory.mktemp("starts")
    tokenizer = load_tokenizer(tiny_checkpoint)
    recipe = Recipe(hidden_size=32, layers=1, heads=2, intermediate_size=64, initializer_range=0.2, seed=1)
    build_model(recipe, tokenizer).save_pretrained(folder / "small")
    tokenizer.save_pretrained(folder / "small")
    shutil.copytree(tiny_checkpoint, folder / "tiny")
    (folder / "empty").mkdir()
    return {
        "tiny": folder / "tiny",
        "small": folder / "small",
        "other": make_checkpoint(folder / "other", "qwen2"),
        "empty": folder / "empty",
    }


GROWING = {
    "evaluation": {"until": "decided", "most": 200},
    "source": {"name": "sandbox", "heldout": 300},
    "seeds": [0, 1, 2],
}


def config(models: Any, **sections: Any) -> dict[str, Any]:
    return {
        "name": "starts",
        "source": {"name": "sandbox", "sft": 8, "train": 12, "tuning": 8, "heldout": 5},
        "model": models,
        "sft": {"epochs": 1},
        "generation": {"max_tokens": 8},
        "budget": {"prompts": 12},
        "methods": ["sft", "dpo", "ipo"],
        "evaluators": ["preference_accuracy"],
        "seeds": [0],
        "baseline": "sft",
        **sections,
    }


def test_each_model_has_the_very_stages_of_the_config_with_that_model_alone(
    starts: dict[str, Path], registry: Registry
) -> None:
    several = resolve_each(config([str(starts["tiny"]), {"label": "b", "path": str(starts["small"])}]), registry)
    assert [comparison.start for comparison in several] == ["tiny", "b"]
    graphs = {comparison.start: plan(comparison) for comparison in several}
    for label, model in (("tiny", "tiny"), ("b", "small")):
        alone = plan(resolve(config({"path": str(starts[model])}), registry))
        assert list(graphs[label].stages) == list(alone.stages)
    whole = joined(graphs)
    assert set(whole.stages) == set(graphs["tiny"].stages) | set(graphs["b"].stages)
    shared = {stage.kind for key, stage in whole.stages.items() if all(key in graph.stages for graph in graphs.values())}
    assert shared == {"source"}
    assert {stage.title for stage in whole if stage.kind == "sft"} == {"SFT · seed 0 · tiny", "SFT · seed 0 · b"}
    seen = set[str]()
    for stage in whole:  # parents come first
        assert stage.parents <= seen
        seen.add(stage.key)


def test_a_list_of_one_model_is_that_model(starts: dict[str, Path], registry: Registry) -> None:
    (one,) = resolve_each(config([{"label": "x", "path": str(starts["tiny"])}]), registry)
    assert one.start is None
    assert joined({None: plan(one)}).stages == plan(resolve(config({"path": str(starts["tiny"])}), registry)).stages


def test_the_resolved_config_has_the_list_and_gives_the_same_stages(starts: dict[str, Path], registry: Registry) -> None:
    several = resolve_each(config([str(starts["tiny"]), {"path": str(starts["small"]), "label": "b"}]), registry)
    written = resolved_configs(several)
    assert [section["label"] for section in written["model"]] == ["tiny", "b"]
    again = resolve_each(json.loads(json.dumps(written)), registry)
    assert [list(plan(item).stages) for item in again] == [list(plan(item).stages) for item in several]


@pytest.mark.parametrize(
    ("models", "sections", "field", "fix"),
    [
        ([], {}, "model", "list one starting model or more"),
        (["tiny", "tiny"], {}, "model.1.label", "model.0 is called so too"),
        (["tiny", {"label": "again", "path": "tiny"}], {}, "model.1", "it is the same model as model.0"),
        (["tiny", {"label": "tiny", "path": "small"}], {}, "model.1.label", "model.0 is called so too"),
        (["tiny", {"label": "a/b", "path": "small"}], {}, "model.1.label", "it should have no `/`"),
        (["tiny", {"label": 3, "path": "small"}], {}, "model.1.label", "it should be text"),
        (["tiny", 3], {}, "model.1", "write a path or hub name"),
        (["tiny", "empty"], {}, "model.1.path", "no *.safetensors"),
        (["tiny", {"path": "small", "dtyp": "float32"}], {}, "model.1.dtyp", "dtype"),
        (["tiny", "small"], {"seeds": {"until": "decided"}}, "seeds", "list the seeds"),
        (["tiny", "small"], GROWING, "evaluation.until", "would get different prompts"),
        (["tiny", "other"], {"limits": {"max_tokens": 99}}, "limits", "each model would keep other prompts"),
        (["tiny", "small"], {"methods": ["sft", "dpoo"]}, "methods.1.method", "dpo"),
    ],
)
def test_a_wrong_list_is_one_error(
    starts: dict[str, Path], registry: Registry, models: Any, sections: dict[str, Any], field: str, fix: str
) -> None:
    def placed(entry: Any) -> Any:
        if isinstance(entry, str):
            return str(starts[entry])
        return {**entry, "path": str(starts[entry["path"]])} if isinstance(entry, dict) else entry

    with pytest.raises(ConfigError) as caught:
        resolve_each(config([placed(entry) for entry in models], **sections), registry)
    (problem,) = caught.value.problems
    assert problem.field == field
    assert fix in problem.fix


def test_limits_are_fine_where_models_have_one_tokenizer(starts: dict[str, Path], registry: Registry) -> None:
    several = config([str(starts["tiny"]), str(starts["small"])], limits={"max_tokens": 99})
    assert len(resolve_each(several, registry)) == 2


def test_a_model_made_from_the_text_stands_beside_a_checkpoint(starts: dict[str, Path], registry: Registry) -> None:
    several = resolve_each(config([str(starts["tiny"]), {"scratch": {"epochs": 1}}]), registry)
    assert [comparison.start for comparison in several] == ["tiny", "scratch"]
    assert [comparison.config.model.scratch is None for comparison in several] == [True, False]


def test_other_uses_of_a_config_take_one_model(starts: dict[str, Path], registry: Registry) -> None:
    with pytest.raises(ConfigError, match="several starting models are for `harness compare` and `harness plan`"):
        resolve(config([str(starts["tiny"]), str(starts["small"])]), registry)


def test_a_change_goes_to_a_model_by_its_label_or_number(starts: dict[str, Path]) -> None:
    raw = config([{"label": "a", "path": "x"}, {"label": "b", "path": "y"}])
    changed = override(raw, ["model.b.dtype=bfloat16", "model.0.path=z"])
    assert changed["model"] == [{"label": "a", "path": "z"}, {"label": "b", "path": "y", "dtype": "bfloat16"}]
    with pytest.raises(HarnessError, match="or one of a, b"):
        override(raw, ["model.path=z"])


def test_paths_of_a_parents_models_count_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "in" / "young").mkdir(parents=True)
    (tmp_path / "in" / "parent.yaml").write_text(yaml.safe_dump({"model": ["young", {"label": "o", "path": "./old"}]}))
    (tmp_path / "child.yaml").write_text(yaml.safe_dump({"extends": "in/parent.yaml", "+model": ["sandbox"]}))
    models = load_raw(tmp_path / "child.yaml")["model"]
    assert models == [str(tmp_path / "in" / "young"), {"label": "o", "path": str(tmp_path / "in" / "old")}, "sandbox"]


# A whole comparison


def invoke(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def run(starts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run from two models, with a checkpoint row that belongs to neither."""
    folder = tmp_path_factory.mktemp("run")
    methods = ["sft", "dpo", "ipo", {"checkpoint": str(starts["tiny"]), "label": "there"}]
    evaluators = ["preference_accuracy", {"name": "response_stats", "n": 1, "max_tokens": 8}]
    raw = config([str(starts["tiny"]), {"label": "b", "path": str(starts["small"])}], methods=methods, evaluators=evaluators)
    (folder / "config.yaml").write_text(yaml.safe_dump(raw))
    compare(folder, "first")
    return folder


def compare(folder: Path, out: str) -> None:
    invoke("compare", folder / "config.yaml", "--workers", 1, "--store", folder / "store", "--out", folder / out)


def test_one_run_gives_one_board_with_the_rows_of_both_models(run: Path) -> None:
    board = Board.read(run / "first")
    assert {row.method for row in board.rows} == {f"{m}/{row}" for m in ("tiny", "b") for row in ("sft", "dpo", "ipo", "there")}
    assert verification(run / "first").outcome() is VerifyOutcome.verified
    assert board.across is not None
    assert [(order.left, order.right, order.rows) for order in board.across.orders] == [("tiny", "b", 3)]
    hashes = {row.model: row.provenance["model"]["hash"] for row in board.rows}
    assert len(set(hashes.values())) == 2
    assert [section["label"] for section in board.config["model"]] == ["tiny", "b"]
    example = board.example_rows[0]
    assert example.answers["tiny/there"] == example.answers["b/there"]
    assert (run / "first" / "models" / "tiny.html").exists()
    status = json.loads(invoke("status", run / "first", "--json"))
    assert status["done"] == status["stages"]


def test_a_model_from_elsewhere_answers_once_for_all_starting_models(run: Path) -> None:
    graphs = [plan(item) for item in resolve_each(load_raw(run / "config.yaml"), Registry.load())]
    rows = [next(row for row in graph.rows if row.label == "there") for graph in graphs]
    answers = [
        EvaluateInputs.of(graph.stages[row.evaluations["response_stats"][0]]).answers
        for graph, row in zip(graphs, rows, strict=True)
    ]
    assert answers[0] == answers[1] and answers[0]
    assert rows[0].evaluations["preference_accuracy"] != rows[1].evaluations["preference_accuracy"]  # KL is from each start


def test_plan_counts_stages_of_all_models_once(run: Path) -> None:
    report = json.loads(invoke("plan", run / "config.yaml", "--store", run / "store", "--json"))
    assert set(report["models"]) == {"tiny", "b"} and report["together"]["remaining"] == 0
    both = sum(len(model["stages"]) for model in report["models"].values())
    assert 0 < both - report["together"]["stages"] < 5  # the data, and the answers of `there`
    assert "starting model tiny" in invoke("plan", run / "config.yaml", "--store", run / "store")


def test_a_trained_row_of_a_model_is_exported_by_its_whole_label(run: Path, tmp_path: Path) -> None:
    invoke("export", run / "first", "b/dpo", "--to", tmp_path / "dpo", "--store", run / "store")
    invoke("export", run / "first", "b/sft", "--to", tmp_path / "sft", "--store", run / "store")
    assert (tmp_path / "dpo" / "model.safetensors").exists() and (tmp_path / "sft" / "model.safetensors").exists()


@pytest.mark.slow
def test_a_run_that_lost_half_of_its_stages_gives_the_same_board(run: Path) -> None:
    before = Board.read(run / "first").without_times()
    artifacts = sorted((run / "store" / "artifacts").glob("*/*"))
    for folder in artifacts[::2]:
        shutil.rmtree(folder)
    compare(run, "again")
    assert Board.read(run / "again").without_times() == before
