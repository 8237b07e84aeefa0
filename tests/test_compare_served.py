"""A comparison whose policies are served, one server per checkpoint, and whose data and scores a reward model decides."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from harness.api.registry import Registry
from harness.board.build import Board
from harness.cli import app
from harness.config import resolve
from harness.errors import ConfigError
from harness.models.checkpoint import checkpoint_hash

FAKE = Path(__file__).parent / "plugins" / "fake_server.py"


@pytest.fixture(scope="module")
def config(tiny_checkpoint: Path, tiny_classifier: Path) -> dict:
    reward = {"model": str(tiny_classifier)}
    return {
        "name": "served",
        "source": {"name": "sandbox", "sft": 8, "train": 16, "tuning": 8, "heldout": 6},
        "model": {"path": str(tiny_checkpoint)},
        "sft": None,
        "generation": {
            "max_tokens": 12,
            "backend": {
                "name": "openai",
                "command": f"{sys.executable} {FAKE} {{name}} {{port}} {{folder}}",
                "engine": "fake 1.2.3",
            },
        },
        "budget": {"prompts": 16},
        "methods": ["sft", {"method": "reward_filtered", "data": {"samples": 4, "reward": reward}}],
        "evaluators": [{"name": "reward_model", "reward": reward, "n": 3, "max_tokens": 12}],
        "seeds": [0],
        "baseline": "sft",
    }


@pytest.fixture(scope="module")
def run(config: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the finished run; its store is `store`."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "served.yaml").write_text(yaml.safe_dump(config))
    options = ["--workers", "1", "--out", str(folder), "--store", str(folder / "store"), "--json"]
    done = CliRunner().invoke(app, ["compare", str(folder / "served.yaml"), *options])
    assert done.exit_code == 0, done.output
    return folder


def test_every_policy_had_a_server_of_its_own(run: Path, tiny_checkpoint: Path) -> None:
    board = Board.read(run)
    trained = board.row("reward_filtered")
    assert trained is not None and trained.failed is None
    names = {f"policy-{checkpoint_hash(tiny_checkpoint)[:16]}.log", f"policy-{trained.provenance['models']['0'][:16]}.log"}
    assert {path.name for path in (run / "store" / "engines").glob("*.log")} == names
    assert trained.provenance["backend"]["fingerprint"] == "fake 1.2.3"


def test_the_reward_model_made_the_data_and_the_scores(run: Path) -> None:
    board = Board.read(run)
    trained = board.row("reward_filtered")
    assert trained is not None
    (made,) = trained.provenance["data"]["0"]
    assert made["groups"] > 0
    assert made["means"]["negative_reward"] < made["means"]["target_reward"]
    assert {key: trained.scores[key].n for key in trained.scores} == dict.fromkeys(
        ("reward_model/reward", "reward_model/sigmoid", "reward_model/win_rate"), 6
    )
    assert 0 <= trained.scores["reward_model/win_rate"].mean <= 1


def serve(run: Path, *arguments: str) -> list[str]:
    options = ["--engine", "vllm", "--python", "py", "--dry-run", "--json", "--store", str(run / "store")]
    done = CliRunner().invoke(app, ["serve-policy", str(run), *arguments, *options], catch_exceptions=False)
    return json.loads(done.output)["command"]


def test_a_rows_model_is_found_for_serving(run: Path, tiny_checkpoint: Path) -> None:
    board = Board.read(run)
    trained = board.row("reward_filtered")
    assert trained is not None
    key = trained.provenance["models"]["0"]
    command = serve(run, "reward_filtered", "--seed", "0", "--port", "81")
    pairs = dict(zip(command[3::2], command[4::2], strict=True))
    assert Path(pairs["--model"]) == run / "store" / "artifacts" / key[:2] / key / "model"
    assert (pairs["--served-model-name"], pairs["--port"]) == (f"policy-{key[:16]}", "81")
    assert str(tiny_checkpoint) in serve(run, "sft")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "which row of .* Name one of: "),
        (("reward_filterd",), "did you mean 'reward_filtered'"),
        (("reward_filtered", "--seed", "7"), "--seed 7: the row 'reward_filtered' has 0"),
    ],
)
def test_a_row_that_is_not_there_is_said(run: Path, arguments: tuple[str, ...], words: str) -> None:
    from harness.errors import HarnessError

    with pytest.raises(HarnessError, match=words):
        serve(run, *arguments)


def test_one_server_for_policies_that_differ_is_refused(config: dict) -> None:
    fixed = {"name": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "one", "engine": "some 1"}
    with pytest.raises(ConfigError, match=r"its server answers with one model, and the row 'reward_filtered' trains another"):
        resolve({**config, "generation": {"backend": fixed}}, Registry.load())
    alone = {**config, "generation": {"backend": fixed}, "methods": ["sft"]}
    assert not resolve(alone, Registry.load()).backend.serves_any_policy()


def test_a_reward_model_takes_the_place_of_gold(config: dict, tiny_classifier: Path) -> None:
    builder = resolve(config, Registry.load()).rows[1].rounds[0].builder
    assert builder.required() == {"target"}
    assert builder.fingerprint() == checkpoint_hash(tiny_classifier)
    wrong = {**config, "methods": ["sft", {"method": "oracle", "data": {"reward": {"model": "nowhere/at-all"}}}]}
    with pytest.raises(ConfigError, match=r"methods\.1\.data\.reward\.revision = None: no such folder"):
        resolve(wrong, Registry.load())
