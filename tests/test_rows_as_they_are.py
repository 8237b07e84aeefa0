"""Rows that train nothing: a trained row's exported model, another model's folder, and a model behind an endpoint."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from inline import inline_workers
from typer.testing import CliRunner

from harness.api.registry import Registry
from harness.board.board import Board, board_scores
from harness.board.verify import VerifyOutcome
from harness.cli import app
from harness.config import resolve, starting_model
from harness.errors import ConfigError, UnreachableError
from harness.models.checkpoint import Checkpoint, checkpoint_folder
from harness.models.serve import PolicyServer
from harness.models.server import MODELS, OpenAIServer, models_document
from harness.run.plan import plan
from harness.run.records import AnswersPayload, EvaluateInputs
from harness.run.stages.context import read_answers
from harness.run.verify import verification
from harness.store import Store

sys.path.insert(0, str(Path(__file__).parent / "models"))
from checkpoints import make_checkpoint

LORA = {"method": "dpo", "label": "lora", "training": {"lora": {"rank": 4}, "learning_rate": 0.01}}


@pytest.fixture(scope="module", autouse=True)
def _no_worker_processes() -> Iterator[None]:
    with inline_workers():
        yield


def config(tiny: Path, methods: list[Any], **sections: Any) -> dict[str, Any]:
    return {
        "name": "elsewhere",
        "source": {"name": "sandbox", "sft": 8, "train": 16, "tuning": 8, "heldout": 6},
        "model": {"path": str(tiny)},
        "sft": {"epochs": 1},
        "generation": {"max_tokens": 12},
        "budget": {"prompts": 16},
        "methods": methods,
        "evaluators": [
            {"name": "gold_reward", "n": 2, "max_tokens": 12},
            {"name": "response_stats", "n": 2, "max_tokens": 12},
            "preference_accuracy",
        ],
        "seeds": [3, 5],
        "baseline": "sft",
        **sections,
    }


def invoke(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        assert code != 0, f"{done.exception}\n{done.output}"
        return str(done.exception)
    assert done.exit_code == code, done.output
    return done.output


def compare(folder: Path, raw: dict[str, Any], out: str, *more: object, code: int = 0) -> str:
    file = folder / f"{out}.yaml"
    file.write_text(yaml.safe_dump(raw))
    return invoke("compare", file, "--workers", 1, "--out", folder / out, "--store", folder / "store", *more, code=code)


class Lab:
    """The folder of runs; `exported` is the dpo row's model of seed 3, `other` has another tokenizer and template.

    `adapter` is what the row `lora` added to `start`, at seed 3.
    """

    def __init__(self, folder: Path, tiny: Path) -> None:
        self.folder, self.tiny, self.exported = folder, tiny, folder / "exported"
        self.start, self.adapter = folder / "start", folder / "adapter"
        self.other = make_checkpoint(folder / "other", "qwen2")


@pytest.fixture(scope="module")
def lab(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    lab = Lab(tmp_path_factory.mktemp("elsewhere"), tiny_checkpoint)
    compare(lab.folder, config(tiny_checkpoint, ["sft", "dpo", LORA]), "trained")
    for row, folder, *more in (("dpo", lab.exported), ("sft", lab.start), ("lora", lab.adapter, "--adapter")):
        invoke("export", lab.folder / "trained", row, "--seed", 3, "--to", folder, "--store", lab.folder / "store", *more)
    return lab


@pytest.fixture(scope="module")
def server(lab: Lab) -> Iterator[str]:
    """The address of the exported model's server."""
    with PolicyServer.of(lab.exported, "mine").listen("127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def run(lab: Lab, server: str) -> Path:
    rows = [
        "sft",
        "dpo",
        LORA,
        {"checkpoint": str(lab.exported), "label": "same"},
        {"checkpoint": {"path": str(lab.start), "adapter": str(lab.adapter)}, "label": "adapted"},
        {"checkpoint": {"path": str(lab.other), "dtype": "bfloat16"}, "label": "other"},
        {"served": {"base_url": server, "model": "mine"}, "label": "api"},
    ]
    compare(lab.folder, config(lab.tiny, rows), "all")
    return lab.folder / "all"


def test_an_exported_folder_is_a_checkpoint_with_a_card(lab: Lab) -> None:
    assert checkpoint_folder(str(lab.exported)) == lab.exported
    card = (lab.exported / "README.md").read_text()
    assert "# dpo, seed 3" in card and "gold\\_reward" in card and "objective: dpo" in card
    assert {"config.json", "model.safetensors", "README.md"} <= {path.name for path in lab.exported.iterdir()}


def test_an_exported_model_has_the_scores_of_its_row(run: Path) -> None:
    scores = board_scores(run)
    assert set(scores["same"]["gold_reward"]) == {3}  # evaluated once, with the first seed
    for evaluator in ("gold_reward", "response_stats", "preference_accuracy"):
        assert scores["same"][evaluator][3] and scores["same"][evaluator][3] == scores["dpo"][evaluator][3]


def test_an_exported_adapter_on_its_start_has_the_scores_of_its_row(run: Path, lab: Lab) -> None:
    scores = board_scores(run)
    for evaluator in ("gold_reward", "response_stats", "preference_accuracy"):
        assert scores["adapted"][evaluator][3] == scores["lora"][evaluator][3] != scores["sft"][evaluator][3]
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md"} == {file.name for file in lab.adapter.iterdir()}
    none = ("export", lab.folder / "trained", "dpo", "--adapter", "--to", lab.folder / "none", "--store", lab.folder / "store")
    assert "was trained without `lora`" in invoke(*none, code=2)


def test_another_tokenizer_leaves_out_what_the_start_is_needed_for(run: Path) -> None:
    board = Board.read(run)
    other = board.row("other")
    assert other is not None and other.failed is None
    assert other.provenance["checkpoint"]["dtype"] == other.provenance["precision"]["generation"] == "bfloat16"
    assert {"gold_reward/gold", "response_stats/tokens", "preference_accuracy/likelihood"} <= set(other.scores)
    assert not {"response_stats/kl", "preference_accuracy/pair_accuracy", "preference_accuracy/margin"} & set(other.scores)
    assert any("other has no kl of response_stats: its tokenizer differs" in text for text in board.warnings)


def test_a_served_row_gives_answers_alone(run: Path, server: str) -> None:
    board = Board.read(run)
    api = board.row("api")
    assert api is not None and api.failed is None and api.kind == "served"
    assert "gold_reward/gold" in api.scores and not any(key.startswith("preference_accuracy") for key in api.scores)
    assert api.provenance["precision"] == {} and api.provenance["model"] and not api.provenance["rounds"]
    assert api.provenance["served"] == {"model": "mine", "base_url": server}
    assert any(text.startswith("api has no ") and "gives answers alone" in text for text in board.warnings)


def test_a_served_policy_gives_the_same_greedy_answers(run: Path, lab: Lab) -> None:
    graph = plan(resolve(yaml.safe_load((lab.folder / "all.yaml").read_text()), Registry.load()))
    store, texts = Store(lab.folder / "store"), {}
    for row in graph.rows:
        keys = EvaluateInputs.of(graph.stages[row.evaluations["gold_reward"][0]]).answers.values()
        (greedy,) = [key for key in keys if AnswersPayload.of(graph.stages[key]).drawn.temperature == 0]
        if row.seed == 3:
            texts[row.label] = [[answer.text for answer in drawn] for drawn in read_answers(store.open(greedy))]
    assert len(texts["api"]) == 6 and texts["api"] == texts["same"] == texts["dpo"] != texts["sft"]


def test_no_seeds_are_paired_for_a_model_from_elsewhere(run: Path) -> None:
    board = Board.read(run)
    same = board.row("same")
    assert same is not None and same.kind == "checkpoint" and same.seeds == (3,) and same.budget == {}
    assert same.cost.seconds is None
    delta = same.delta("gold_reward/gold")
    assert delta is not None and delta.seeds == 0 and delta.n == 6
    assert sum("no seeds were sampled" in text for text in board.warnings) == 1
    assert verification(run).outcome() is VerifyOutcome.verified
    assert "not measured here" in (run / "board.md").read_text() and "not measured here" in (run / "index.html").read_text()


def test_keys_of_the_trained_rows_are_as_they_were(run: Path, lab: Lab) -> None:
    before, after = Board.read(lab.folder / "trained"), Board.read(run)
    assert before.row("dpo").provenance["models"] == after.row("dpo").provenance["models"]  # type: ignore[union-attr]


def test_the_plan_has_each_row_with_its_cost(run: Path, lab: Lab) -> None:
    arguments = ("plan", lab.folder / "all.yaml", "--store", lab.folder / "store")
    rows = {row["label"]: row for row in json.loads(invoke(*arguments, "--json"))["elsewhere"]}
    assert list(rows) == ["same", "adapted", "other", "api"]
    assert {row["cost"] for row in rows.values()} == {"not measured here"}
    assert rows["api"]["kind"] == "served" and rows["api"]["waiting"] == 0 and rows["api"]["answers"] == 3
    assert "same: checkpoint" in invoke(*arguments)


def test_a_finished_served_row_needs_no_server_any_more(run: Path, lab: Lab) -> None:
    raw = yaml.safe_load((lab.folder / "all.yaml").read_text())
    with PolicyServer.of(lab.exported, "mine").listen("127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}/v1"
        raw["methods"] = ["sft", {"served": {"base_url": address, "model": "mine", "name": "declared"}, "label": "api"}]
        compare(lab.folder, raw, "named")
        server.shutdown()
        thread.join()
    compare(lab.folder, raw, "named-again")
    raw["methods"][1]["served"]["base_url"] = "http://127.0.0.1:9/v1"  # the declared name is its identity
    compare(lab.folder, raw, "named-elsewhere")
    assert board_scores(lab.folder / "named-elsewhere") == board_scores(lab.folder / "named")


def problem(lab: Lab, row: dict[str, Any]) -> str:
    raw = config(lab.tiny, ["sft", row])
    (lab.folder / "bad.yaml").write_text(yaml.safe_dump(raw))
    message = invoke("plan", lab.folder / "bad.yaml", "--store", lab.folder / "none", code=2)
    assert message.startswith("1 problem in"), message
    return message


def test_what_is_no_checkpoint_is_one_error_of_its_row(lab: Lab, tiny_classifier: Path, tmp_path: Path) -> None:
    empty, pickled = tmp_path / "empty", tmp_path / "pickled"
    empty.mkdir()
    shutil.copytree(lab.other, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert "methods.1.checkpoint.path = " in problem(lab, {"checkpoint": str(empty)})
    assert "no *.safetensors" in problem(lab, {"checkpoint": str(empty)})
    assert "no such folder" in problem(lab, {"checkpoint": str(tmp_path / "absent")})
    assert "pytorch_model.bin is not read, because it may run code" in problem(lab, {"checkpoint": str(pickled)})
    assert "which is no causal language model" in problem(lab, {"checkpoint": str(tiny_classifier)})
    adapter = problem(lab, {"checkpoint": {"path": str(lab.other), "adapter": str(empty)}})
    assert "methods.1.checkpoint.adapter" in adapter and "no adapter_config.json" in adapter
    assert "methods.1.checkpoint.revision" in problem(lab, {"checkpoint": {"path": str(lab.other), "revision": "main"}})


def test_a_checkpoint_without_its_head_or_template_is_refused(lab: Lab, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    headless = shutil.copytree(lab.other, tmp_path / "headless")
    weights = load_file(headless / "model.safetensors")
    save_file({name: value for name, value in weights.items() if "lm_head" not in name}, headless / "model.safetensors")
    assert "its weights lack a language model's head" in problem(lab, {"checkpoint": str(headless)})
    bare = make_checkpoint(tmp_path / "bare", "gpt_neox", template=None)
    assert "methods.1.checkpoint.chat_template" in problem(lab, {"checkpoint": str(bare)})


def test_an_endpoint_that_is_down_or_serves_another_model_is_one_error(lab: Lab, server: str) -> None:
    down = problem(lab, {"served": {"base_url": "http://127.0.0.1:9/v1", "model": "mine"}})
    assert "methods.1.served.base_url = 'http://127.0.0.1:9/v1'" in down
    other = problem(lab, {"served": {"base_url": server, "model": "yours"}})
    assert "methods.1.served.model = 'yours'" in other and "serves mine" in other
    assert "write it with http://" in problem(lab, {"served": {"base_url": "localhost:8000", "model": "mine"}})
    keyless = {"base_url": server, "model": "mine", "api_key_env": "NO_SUCH_KEY_IS_SET"}
    assert "methods.1.served.api_key_env" in problem(lab, {"served": keyless})


def test_a_row_that_trains_nothing_takes_no_training(lab: Lab) -> None:
    assert "leave `training` out" in problem(lab, {"checkpoint": str(lab.other), "training": {"epochs": 2}})
    assert "leave `served` out" in problem(
        lab, {"checkpoint": str(lab.other), "served": {"base_url": "http://localhost/v1", "model": "m"}}
    )


def test_what_is_there_is_not_overwritten_by_an_export(lab: Lab) -> None:
    said = invoke("export", lab.folder / "trained", "dpo", "--to", lab.exported, "--store", lab.folder / "store", code=2)
    assert "it is there already" in said


def test_a_server_that_refuses_to_answer_fails_its_row_alone(lab: Lab) -> None:
    with OpenAIServer({}, {MODELS: models_document("mute")}, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        served = {"base_url": f"http://127.0.0.1:{server.server_address[1]}/v1", "model": "mute"}
        compare(lab.folder, config(lab.tiny, ["sft", {"served": served}], seeds=[3]), "mute", code=3)
        server.shutdown()
        thread.join()
    board = Board.read(lab.folder / "mute")
    sft, mute = board.row("sft"), board.row("mute")
    assert sft is not None and "gold_reward/gold" in sft.scores
    assert mute is not None and not mute.scores
    assert any(text.startswith("mute, seed 3: no scores of gold_reward, since it failed") for text in board.warnings)


def test_a_hub_s_checkpoint_that_cannot_be_looked_up_is_named_by_a_plan(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def locate(path: str, revision: str | None = None) -> Checkpoint:
        if path == "owner/model":
            raise UnreachableError("owner/model: the hub cannot be reached")
        return located(path, revision)

    located = starting_model.locate
    monkeypatch.setattr(starting_model, "locate", locate)
    raw = config(lab.tiny, ["sft", {"checkpoint": "owner/model"}])
    comparison = resolve(raw, Registry.load(), offline=True)
    assert comparison.unreachable == {"methods.1.checkpoint": "owner/model: the hub cannot be reached"}
    assert comparison.rows[1].label == "model"
    assert [row.label for row in plan(comparison).rows] == ["sft", "model", "sft"]
    with pytest.raises(ConfigError, match=r"methods\.1\.checkpoint\.path = 'owner/model'"):
        resolve(raw, Registry.load())


def test_a_null_row_needs_a_baseline_that_is_trained(lab: Lab) -> None:
    raw = config(lab.tiny, [{"checkpoint": str(lab.other), "label": "other"}, {"method": "null"}], baseline="other")
    with pytest.raises(ConfigError, match="this one is not trained here: leave the null row out"):
        resolve(raw, Registry.load())


def test_a_checkpoint_as_the_baseline_is_compared_by_prompt(run: Path, lab: Lab) -> None:
    raw = {**yaml.safe_load((lab.folder / "all.yaml").read_text()), "baseline": "same"}
    compare(lab.folder, raw, "baseline")
    board = Board.read(lab.folder / "baseline")
    deltas = {row.method: row.delta("gold_reward/gold") for row in board.rows if row.method != "same"}
    assert deltas["dpo"] is not None and deltas["dpo"].seeds == 0
    assert deltas["other"] is not None and deltas["other"].seeds == 1
    assert verification(lab.folder / "baseline").outcome() is VerifyOutcome.verified
