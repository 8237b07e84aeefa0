"""A board that a run wrote is verified by its stages' manifests, and by computing some of them again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forging import Content, copied, edit_evidence, edit_scores, reseal, save
from test_compare import Lab, made_lab, tiny_config
from typer.testing import CliRunner

from harness.api.types import Score
from harness.board import Board
from harness.board.build import LoadedBoard
from harness.board.evidence import hash_of
from harness.board.merge import merge
from harness.board.restate import restated
from harness.board.verify import VerifyOutcome
from harness.cli import app
from harness.run.recompute import chance_of_finding
from harness.run.verify import verification


@pytest.fixture(scope="module")
def lab(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    config = {**tiny_config(tiny_checkpoint), "methods": ["sft", "null", "dpo"]}
    config["evaluators"] = config["evaluators"][:2]
    return made_lab(tmp_path_factory.mktemp("verified"), config, inline=True)


@pytest.fixture
def forged(lab: Lab, tmp_path: Path) -> Path:
    """A copy of the board's folder."""
    copied(lab.folder / "first", tmp_path)
    return tmp_path


def content_of(folder: Path) -> Content:
    content: Content = json.loads((folder / "board.json").read_text())
    return content


def dpo(content: Content) -> Any:
    return next(row for row in content["rows"] if row["method"] == "dpo")


def stages(folder: Path, kind: str) -> list[tuple[str, Any]]:
    evidence = Board.read(folder).evidence
    assert evidence is not None
    return [(key, stage) for key, stage in evidence.runs[0].stages.items() if stage.manifest["kind"] == kind]


def test_a_board_that_a_run_wrote_is_verified(lab: Lab) -> None:
    run = CliRunner().invoke(app, ["verify", str(lab.folder / "first")])
    assert run.exit_code == 0, run.stdout
    assert run.stdout.startswith("Verified") and "Not verified" not in run.stdout and "1e-06" in run.stdout


def test_boards_that_are_made_from_it_keep_its_stages(lab: Lab, tmp_path: Path) -> None:
    first = lab.folder / "first"
    merge([LoadedBoard.read(first)], name="merged", created="").write(tmp_path / "merged")
    restated(LoadedBoard.read(first), created="").write(tmp_path / "restated")
    for name in ("merged", "restated"):
        checked = verification(tmp_path / name)
        assert checked.outcome() is VerifyOutcome.verified, (name, checked)


def cost(content: Content, folder: Path) -> None:
    dpo(content)["cost"]["seconds"] = 0.1


def budget(content: Content, folder: Path) -> None:
    dpo(content)["budget"]["tokens"] = 7.0


def curve(content: Content, folder: Path) -> None:
    dpo(content)["curves"]["0"][0]["loss"] = 0.1


def data(content: Content, folder: Path) -> None:
    dpo(content)["provenance"]["data"]["0"][0]["pairs"] = 1000


def model(content: Content, folder: Path) -> None:
    dpo(content)["provenance"]["models"]["0"] = "0" * 32


def objective(content: Content, folder: Path) -> None:
    dpo(content)["provenance"]["rounds"][0]["objective"]["fields"]["beta"] = 0.9


def sharing(content: Content, folder: Path) -> None:
    content["sharing"]["seconds_saved"] = 1e6


def scores(content: Content, folder: Path) -> None:
    def improve(scores: Any) -> None:
        listed = scores["dpo"]["gold_reward"][0]
        scores["dpo"]["gold_reward"][0] = [Score(s.example, s.metric, s.value + 1, s.sample, s.question) for s in listed]

    edit_scores(folder, improve)


def log(content: Content, folder: Path) -> None:
    key = stages(folder, "train")[0][0]
    edit_evidence(folder, lambda evidence: evidence["runs"][0]["stages"][key]["history"][0].update(loss=0.1))


def payload(content: Content, folder: Path) -> None:
    key = stages(folder, "train")[0][0]
    edit_evidence(folder, lambda evidence: evidence["runs"][0]["stages"][key]["payload"].update(seed=7))


def no_manifest(content: Content, folder: Path) -> None:
    key = stages(folder, "evaluate")[0][0]
    edit_evidence(folder, lambda evidence: evidence["runs"][0]["stages"].pop(key))


FORGERIES: dict[Callable[[Content, Path], None], str] = {
    cost: "dpo: cost seconds is 0.1, the stages give",
    budget: "dpo: budget tokens is 7.0, the stages give",
    curve: "dpo: curves 0 [0] loss is 0.1, the stages give",
    data: "dpo: provenance data 0 [0] pairs is 1000, the stages give",
    model: "dpo: provenance models 0 is",
    objective: "dpo: round 1 objective fields beta is 0.9, its stage was asked for",
    sharing: "sharing seconds_saved is 1000000.0, the stages give",
    scores: "dpo, seed 0, gold_reward: the scores are not those that stage",
    log: "its training log is not the file that its manifest names",
    payload: "its key is not the hash of its payload and inputs",
    no_manifest: "the evidence has no manifest of the stage that gave these scores",
}


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_a_forger_who_writes_all_hashes_again_is_caught_by_the_stages(
    forge: Callable[[Content, Path], None], forged: Path
) -> None:
    content = content_of(forged)
    forge(content, forged)
    save(content, forged)
    reseal(forged)
    problems = verification(forged).differences
    assert any(FORGERIES[forge] in problem for problem in problems), problems


def test_a_doctored_stage_is_named_when_it_is_computed_again(forged: Path) -> None:
    """A training was made up, with every hash: only computing it again shows that. All other stages give the same bytes."""
    key, stage = stages(forged, "train")[0]

    def doctor(evidence: Content) -> None:
        evidence["runs"][0]["stages"][key]["manifest"]["files"]["model/model.safetensors"] = "0" * 64

    edit_evidence(forged, doctor)
    save(content_of(forged), forged)
    reseal(forged)
    assert verification(forged).outcome() is VerifyOutcome.verified  # nothing beside the board says otherwise
    run = CliRunner().invoke(app, ["verify", str(forged), "--recompute", "99", "--seed", "1", "--json"], catch_exceptions=False)
    answer = json.loads(run.stdout)
    assert run.exit_code == 4 and len(answer["problems"]) == 1, answer["problems"]
    (problem,), sample = answer["problems"], answer["recomputed"]
    assert problem.startswith(f"stage {stage.title} ({key}): other model/model.safetensors than the evidence says")
    assert sample["exact"] and sample["seed"] == 1 and sample["chance"]["0.25"] == 1.0 and sample["eligible"] > 8
    same = {made["title"].split()[0] for made in sample["stages"] if made["same"] and made["drawn"]}
    assert same >= {"SFT", "answers", "gold_reward"} and all(made["same"] for made in sample["stages"] if made["key"] != key)


@pytest.mark.parametrize(
    ("stages_", "drawn", "share", "chance"),
    [(100, 5, 0.01, 0.05), (100, 5, 0.1, 1 - 0.58375), (10, 10, 0.01, 1.0), (10, 0, 0.5, 0.0), (0, 0, 0.5, 0.0)],
)
def test_the_chance_of_finding_a_forged_stage(stages_: int, drawn: int, share: float, chance: float) -> None:
    """5 of 100 with 10 forged: 1 - 90·89·88·87·86 / (100·99·98·97·96)."""
    assert chance_of_finding(stages_, drawn, share) == pytest.approx(chance, abs=1e-4)


def test_hashes_are_of_canonical_json() -> None:
    assert hash_of({"b": 1, "a": [1.5, None]}) == hash_of({"a": [1.5, None], "b": 1}) != hash_of({"a": [1.5], "b": 1})
