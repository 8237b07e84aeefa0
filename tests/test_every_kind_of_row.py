"""One board with every kind of row: trained, by rounds, on other data and budgets, checkpoints, adapters, served; two judges.

The config is that of the README of rows (docs/configuration.md), with local stand-ins for what a hub has.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from models.checkpoints import make_checkpoint
from models.judge.scripted import ScriptedJudge

from harness.board import Board
from harness.board.verify import VerifyOutcome
from harness.models.serve import PolicyServer
from harness.run.verify import verification
from harness.sandbox.judge import SandboxJudge

pytestmark = pytest.mark.slow
MAIN = "from harness.cli import main; main()"
LORA = {"method": "dpo", "label": "lora", "training": {"lora": {"rank": 4}}}
SMALL: dict[str, Any] = {
    "extends": "quickstart",
    "name": "every-kind",
    "source": {"sft": 32, "train": 48, "tuning": 8, "heldout": 12},
    "sft": {"epochs": 1},
    "generation": {"max_tokens": 16},
    "training": {"prompts_per_batch": 4},
    "budget": {"prompts": 24},
    "run": {"checkpoint_minutes": 0},
}


class Lab:
    """The folder of a run; what its rows need from elsewhere was trained and exported by an earlier one."""

    def __init__(self, folder: Path, judge: str) -> None:
        self.folder = folder
        self.other = make_checkpoint(folder / "other", "qwen2")
        self.write("before", {**SMALL, "methods": ["sft", "dpo", LORA], "evaluators": ["response_stats"], "seeds": [0]})
        self.harness("compare", "before.yaml", "--out", "before", "--workers", "1")
        for row, *more in (("dpo",), ("sft",), ("lora", "--adapter")):
            self.harness("export", "before", row, "--to", f"exported/{row}", *more)
        self.judge = judge

    def write(self, name: str, config: dict[str, Any]) -> None:
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(config))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", MAIN, *arguments, "--store", "store"]

    def harness(self, *arguments: str) -> str:
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, cwd=self.folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def every_kind(self, served: str) -> dict[str, Any]:
        """The config, whose rows and evaluators are those that issue a reader of the papers asks for."""
        judged = {"name": "pairwise_judge", "max_tokens": 16}
        return {
            **SMALL,
            "judge": {"model": "sandbox-judge", "base_url": self.judge, "name": "scripted"},
            "methods": [
                "sft",
                "dpo",
                "ipo",
                LORA,
                {"checkpoint": "exported/dpo", "label": "released"},
                {"checkpoint": {"path": "exported/sft", "adapter": "exported/lora"}, "label": "adapted"},
                {"checkpoint": {"path": str(self.other), "dtype": "bfloat16"}, "label": "other"},
                {"served": {"base_url": served, "model": "mine", "name": "mine"}, "label": "api"},
                {"method": "only_prompting", "rounds": [{}, {}], "rows": "each_round"},
                {"method": "dpo", "label": "dpo_more", "source": {"name": "sandbox", "seed": 5}, "budget": {"prompts": 32}},
            ],
            "evaluators": [
                {"name": "gold_reward", "max_tokens": 16},
                {**judged, "label": "against_dpo", "opponent": "dpo"},
                {**judged, "label": "against_ipo", "opponent": "ipo"},
                {**judged, "label": "second_judge", "opponent": "dpo", "judge": {"model": "another-judge"}},
            ],
            "evaluation": {"during": [0.5], "during_evaluators": ["gold_reward"]},
            "seeds": [0, 1],
            "baseline": "sft",
        }


@contextmanager
def policy(folder: Path) -> Iterator[str]:
    """The address of a server as `harness serve-policy` starts one."""
    with PolicyServer.of(folder, "mine").listen("127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    judge = SandboxJudge(noise=0.5, bias=1.0)
    with ScriptedJudge(lambda prompt, times: judge(prompt)).serving() as server:
        lab = Lab(tmp_path_factory.mktemp("every-kind"), server.url)
        with policy(lab.folder / "exported" / "dpo") as served:
            lab.write("every-kind", lab.every_kind(served))
            (lab.folder / "plan.txt").write_text(lab.harness("plan", "every-kind.yaml", "--gpu", "h100-80gb"))
            (lab.folder / "plan.json").write_text(lab.harness("plan", "every-kind.yaml", "--json"))
            lab.harness("compare", "every-kind.yaml", "--out", "run", "--workers", "2")
            yield lab


def test_every_row_is_in_the_plan_with_its_cost(lab: Lab) -> None:
    report, text = json.loads((lab.folder / "plan.json").read_text()), (lab.folder / "plan.txt").read_text()
    assert [(row["label"], row["kind"], row["cost"]) for row in report["elsewhere"]] == [
        ("released", "checkpoint", "not measured here"),
        ("adapted", "checkpoint", "not measured here"),
        ("other", "checkpoint", "not measured here"),
        ("api", "served", "not measured here"),
    ]
    assert [item["name"] for item in report["judges"]] == ["against_dpo", "against_ipo", "second_judge"]
    assert report["states"]["states"] == report["states"]["waiting"] and "learning curves:" in text
    rows = {row["label"]: (row["kind"], row["trainings"]) for row in report["rows"]}
    assert rows["sft"] == ("measured", 0) and rows["released"] == ("checkpoint", 0) and rows["api"] == ("served", 0)
    assert rows["only_prompting@1"] == ("measured", 2) and rows["only_prompting@2"] == ("measured", 4)
    assert all(f"{label} " in text for label in rows) and "GPU-hours" in text


def test_every_row_is_on_the_board_with_its_kind(lab: Lab) -> None:
    board = Board.read(lab.folder / "run")
    assert {row.method: row.kind for row in board.rows if row.kind != "measured"} == {
        "released": "checkpoint",
        "adapted": "checkpoint",
        "other": "checkpoint",
        "api": "served",
    }
    assert [row.method for row in board.rows if row.failed] == []
    page = (lab.folder / "run" / "index.html").read_text()
    for kind in ("checkpoint", "served"):
        assert f'<span class="tag {kind}">{kind}</span>' in page
    assert verification(lab.folder / "run").outcome() is VerifyOutcome.verified


def test_what_came_back_has_the_scores_of_what_went_out(lab: Lab) -> None:
    rows = {row.method: row for row in Board.read(lab.folder / "run").rows}
    for row, origin in (("released", "dpo"), ("adapted", "lora")):
        assert rows[row].scores["gold_reward/gold"].per_seed[0] == rows[origin].scores["gold_reward/gold"].per_seed[0]
    greedy = "gold_reward/greedy_gold"
    assert rows["api"].scores[greedy].per_seed[0] == rows["dpo"].scores[greedy].per_seed[0]


def test_judges_agreement_and_learning_curves_are_there(lab: Lab) -> None:
    board = Board.read(lab.folder / "run")
    assert board.analysis is not None and board.analysis.raters is not None
    assert {(pair.left, pair.right) for pair in board.analysis.raters} >= {("against_dpo/win_rate", "second_judge/win_rate")}
    assert not any("against_ipo" in pair.left + pair.right for pair in board.analysis.raters)
    reasons = {row.method: row.without_states for row in board.rows}
    assert reasons["dpo"] is None and reasons["api"] == "it trains nothing"
    positions = {row.method: [state.position for state in row.states or ()] for row in board.rows}
    assert positions["dpo"] == [0.0, 0.5] and positions["only_prompting@2"] == [0.0, 0.25, 0.5, 0.75]


def test_killed_anywhere_it_goes_on_to_the_same_board(lab: Lab) -> None:
    """A store that holds nothing but what the rows from elsewhere were made of; the run is killed after so many artifacts."""

    def published() -> int:
        return sum(1 for _ in (lab.folder / "killed-store" / "index").glob("*/*"))

    with policy(lab.folder / "exported" / "dpo") as served:  # at another address, under the declared name
        lab.write("killed", lab.every_kind(served))
        command = [*lab.command("compare", "killed.yaml", "--out", "killed", "--workers", "2")[:-1], "killed-store"]
        for count in (3, 15, 30, 60):
            process = subprocess.Popen(command, cwd=lab.folder, start_new_session=True, stdout=-3, stderr=-3)
            while published() < count and process.poll() is None:
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        done = subprocess.run(command, cwd=lab.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, again = (Board.read(lab.folder / name).without_times() for name in ("run", "killed"))
    first["config"] = again["config"] = None  # the server's address
    assert again == first
