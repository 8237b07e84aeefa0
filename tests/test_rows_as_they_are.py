"""Rows that train nothing: a trained row's exported model, another model's folder, and a model behind an endpoint."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from harness.board.board import Board, board_scores
from harness.board.verify import verify
from harness.cli import app
from harness.models.checkpoint import checkpoint_folder
from harness.models.serve import PolicyServer

sys.path.insert(0, str(Path(__file__).parent / "models"))
from checkpoints import make_checkpoint


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
        assert code != 0, done.output
        return str(done.exception)
    assert done.exit_code == code, done.output
    return done.output


def compare(folder: Path, raw: dict[str, Any], out: str, *more: object, code: int = 0) -> str:
    file = folder / f"{out}.yaml"
    file.write_text(yaml.safe_dump(raw))
    return invoke("compare", file, "--workers", 1, "--out", folder / out, "--store", folder / "store", *more, code=code)


class Lab:
    """The folder of runs; `exported` is the dpo row's model of seed 3, `other` has another tokenizer and template."""

    def __init__(self, folder: Path, tiny: Path) -> None:
        self.folder, self.tiny, self.exported = folder, tiny, folder / "exported"
        self.other = make_checkpoint(folder / "other", "qwen2")


@pytest.fixture(scope="module")
def lab(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    lab = Lab(tmp_path_factory.mktemp("elsewhere"), tiny_checkpoint)
    compare(lab.folder, config(tiny_checkpoint, ["sft", "dpo"]), "trained")
    invoke("export", lab.folder / "trained", "dpo", "--seed", 3, "--to", lab.exported, "--store", lab.folder / "store")
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
    greedy = {"name": "gold_reward", "temperature": 0, "n": 1, "max_tokens": 12}
    rows = [
        "sft",
        "dpo",
        {"checkpoint": str(lab.exported), "label": "same"},
        {"checkpoint": {"path": str(lab.other)}, "label": "other"},
        {"served": {"base_url": server, "model": "mine"}, "label": "api"},
    ]
    sampled = config(lab.tiny, rows)
    compare(lab.folder, sampled, "all")
    compare(lab.folder, {**sampled, "evaluators": [greedy]}, "greedy")
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


def test_another_tokenizer_leaves_out_what_the_start_is_needed_for(run: Path) -> None:
    board = Board.read(run)
    other = board.row("other")
    assert other is not None and other.failed is None
    assert {"gold_reward/gold", "response_stats/tokens", "preference_accuracy/likelihood"} <= set(other.scores)
    assert not {"response_stats/kl", "preference_accuracy/pair_accuracy", "preference_accuracy/margin"} & set(other.scores)
    assert any("other has no kl of response_stats: its tokenizer differs" in text for text in board.warnings)


def test_a_served_row_gives_answers_alone(run: Path, server: str) -> None:
    board = Board.read(run)
    api = board.row("api")
    assert api is not None and api.failed is None and api.kind == "served"
    assert "gold_reward/gold" in api.scores and not any(key.startswith("preference_accuracy") for key in api.scores)
    assert api.provenance["served"] == {"model": "mine", "base_url": server}
    assert any(text.startswith("api has no ") and "gives answers alone" in text for text in board.warnings)


def test_a_served_policy_gives_the_same_greedy_answers(run: Path, lab: Lab) -> None:
    scores, examples = board_scores(lab.folder / "greedy"), Board.read(lab.folder / "greedy").example_rows
    assert scores["api"]["gold_reward"][3] == scores["same"]["gold_reward"][3] == scores["dpo"]["gold_reward"][3]
    assert examples and all(row.answers["api"] == row.answers["same"] == row.answers["dpo"] for row in examples)


def test_no_seeds_are_paired_for_a_model_from_elsewhere(run: Path) -> None:
    board = Board.read(run)
    same = board.row("same")
    assert same is not None and same.kind == "checkpoint" and same.seeds == (3,) and same.budget == {}
    assert same.cost.seconds is None
    delta = same.delta("gold_reward/gold")
    assert delta is not None and delta.seeds == 0 and delta.n == 6
    assert sum("no seeds were sampled" in text for text in board.warnings) == 1
    assert verify(run) == []
    assert "not measured here" in (run / "board.md").read_text() and "not measured here" in (run / "index.html").read_text()


def test_keys_of_the_trained_rows_are_as_they_were(run: Path, lab: Lab) -> None:
    before, after = Board.read(lab.folder / "trained"), Board.read(run)
    assert before.row("dpo").provenance["models"] == after.row("dpo").provenance["models"]  # type: ignore[union-attr]
