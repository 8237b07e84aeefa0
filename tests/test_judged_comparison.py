"""A comparison with a judge, end to end: the sandbox's judge behind HTTP, workers that ask it, and its marks on the board."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from inline import Ended, harness
from models.judge.scripted import ScriptedJudge

from harness.board.build import Board
from harness.board.verify import VerifyOutcome
from harness.run.verify import verification
from harness.sandbox.judge import SandboxJudge

KEY = "sk-secret-of-the-end-to-end-test"


class Lab:
    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder, self.config = folder, config
        (folder / "judged.yaml").write_text(yaml.safe_dump(config))

    def run(self, out: str, *more: str, key: str | None = KEY, code: int = 0) -> Ended:
        command = ["compare", self.folder / "judged.yaml", "--workers", "1"]
        command += ["--out", self.folder / out, "--store", self.folder / "store", *more]
        environment = {name: value for name, value in os.environ.items() if name != "TEST_JUDGE_KEY"}
        if key is not None:
            environment["TEST_JUDGE_KEY"] = key
        done = harness(*command, environment=environment)
        assert done.returncode == code, done.stderr
        return done

    def board(self, out: str) -> Board:
        return Board.read(self.folder / out)


@pytest.fixture(scope="module")
def served() -> Iterator[ScriptedJudge]:
    judge = SandboxJudge(noise=0.5, bias=1.0)
    with ScriptedJudge(lambda prompt, times: judge(prompt)).serving() as server:
        yield server


@pytest.fixture(scope="module")
def lab(served: ScriptedJudge, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Its first run stops at the budget, its second goes to the end."""
    config = {
        "name": "judged",
        "source": {"name": "sandbox", "sft": 16, "train": 16, "tuning": 8, "heldout": 8},
        "model": {"path": str(tiny_checkpoint)},
        "sft": None,
        "training": {"prompts_per_batch": 8},
        "budget": {"prompts": 8},
        "methods": ["sft", "dpo", {"method": "dpo", "label": "dpo_hot", "training": {"learning_rate": 0.01}}],
        "judge": {
            "model": "sandbox-judge",
            "base_url": served.url,
            "name": "test",
            "api_key_env": "TEST_JUDGE_KEY",
            "price": {"input": 1000, "output": 1000},
            "max_calls": 10,
        },
        "evaluators": [{"name": "pairwise_judge", "opponent": "all", "max_tokens": 8}],
        "seeds": [0],
        "baseline": "sft",
    }
    return Lab(tmp_path_factory.mktemp("judged"), config)


def test_a_missing_key_is_said_before_anything_runs(lab: Lab) -> None:
    done = lab.run("none", key=None, code=2)
    assert "judge.api_key_env = 'TEST_JUDGE_KEY': this environment variable is not set" in done.stderr
    assert not (lab.folder / "none").exists()


def test_the_budget_stops_the_run_with_what_was_done_kept(lab: Lab, served: ScriptedJudge) -> None:
    done = lab.run("short", "--json", code=3)
    assert sum(served.asked.values()) == 10
    warnings = json.loads(done.stdout)["board"]["warnings"] if done.stdout else [done.stderr]
    assert any("the judge's budget is spent (judge.max_calls = 10" in warning for warning in warnings)


def test_the_board_says_who_judged_and_what_it_took(lab: Lab, served: ScriptedJudge) -> None:
    lab.run("whole", "--set", "judge.max_calls=1000")
    assert set(served.asked.values()) == {
        1
    }  # nothing is asked twice, neither what the first run asked nor a pair from both sides
    board = lab.board("whole")
    for row in board.rows:
        assert row.failed is None
        judge = row.provenance["judges"]["pairwise_judge"]
        assert judge["model"] == "sandbox-judge"
        assert judge["versions"] == ["sandbox-judge (judge-2026-01-01)"]
        assert row.cost.judge_tokens == judge["judge_tokens"] > 0
        assert row.cost.usd == pytest.approx(row.cost.judge_tokens * 1000 / 1e6)
        assert {"pairwise_judge/win_rate", "pairwise_judge/agreement", "pairwise_judge/strength"} <= row.scores.keys()
        strength = row.scores["pairwise_judge/strength"]
        assert strength.low is not None and strength.high is not None
        assert strength.low <= strength.mean <= strength.high
    sft = board.row("sft")
    assert sft is not None
    assert sft.scores["pairwise_judge/strength"].mean == 0
    assert sft.cost.seconds is None
    said = [item for example in board.example_rows for items in example.judged.values() for item in items]
    assert said and all(item["evaluator"] == "pairwise_judge" and item["words"] for item in said)
    assert "Judge tokens" in (lab.folder / "whole" / "index.html").read_text()


def test_a_second_run_needs_neither_the_judge_nor_its_key(lab: Lab) -> None:
    lab.run("again", "--set", "judge.max_calls=0", "--set", "judge.base_url=http://127.0.0.1:9/v1", key=None)
    assert lab.board("again").without_times()["rows"] == lab.board("whole").without_times()["rows"]


@pytest.mark.slow
def test_the_baseline_that_nobody_is_asked_about_is_compared_with_all(lab: Lab) -> None:
    lab.run("default", "--set", "judge.max_calls=1000", "--set", "evaluators=[{name: pairwise_judge, max_tokens: 8}]")
    board = lab.board("default")
    sft, hot = board.row("sft"), board.row("dpo_hot")
    assert sft is not None and hot is not None
    assert sft.provenance["judges"]["pairwise_judge"]["versions"] == []
    assert sft.scores["pairwise_judge/win_rate"].mean == 0.5
    assert hot.provenance["judges"]["pairwise_judge"]["versions"] == ["sandbox-judge (judge-2026-01-01)"]
    score = hot.scores["pairwise_judge/win_rate"]
    assert score.delta is not None
    assert score.delta.mean == pytest.approx(score.mean - 0.5)
    assert 0 < score.delta.p <= 1
    assert [text for text in board.warnings if "was judged by" in text] == []


def test_what_an_evaluator_cautions_of_is_said_on_the_board(lab: Lab) -> None:
    pytest.importorskip("fastchat")
    question = {"question_id": 81, "category": "writing", "turns": ["Say a word."]}
    (lab.folder / "question.jsonl").write_text(json.dumps(question))
    prompt = {"name": "single-v1", "type": "single", "system_prompt": "", "prompt_template": "{answer}"}
    (lab.folder / "judge_prompts.jsonl").write_text(json.dumps({**prompt, "output_format": "[[rating]]"}))
    bench = {"name": "vicuna_bench", "max_tokens": 8, "questions": str(lab.folder / "question.jsonl")}
    bench |= {"prompts": str(lab.folder / "judge_prompts.jsonl")}
    lab.run("cautious", "--set", "judge.max_calls=1000", "--set", "methods=[sft]", "--set", f"evaluators={json.dumps([bench])}")
    said = "vicuna_bench: coding and math were judged without reference answers, which FastChat judges them with"
    assert [text for text in lab.board("cautious").warnings if text.startswith(said)] != []


def test_the_key_is_in_no_file(lab: Lab) -> None:
    files = [path for path in lab.folder.rglob("*") if path.is_file()]
    assert any(path.parent.name == "judgments" for path in files)
    assert any(path.name.endswith(".log") for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_the_board_says_how_far_the_judge_agrees_with_itself(lab: Lab) -> None:
    """The sandbox's judge gives a question one answer, whenever it is asked."""
    more = ("--set", "judge.max_calls=1000", "--set", "judge.repeats=2", "--set", "judge.repeat_share=1.0")
    before = lab.board("whole")
    lab.run("repeated", *more)
    board = lab.board("repeated")
    (entry,) = board.statistics.judges or ()
    assert (entry.evaluator, entry.verdicts, entry.agreement) == ("pairwise_judge", 3.0, 1.0)
    assert entry.questions > 10
    assert before.statistics.judges is None
    assert "gave the same verdict in 100% of pairs" in (lab.folder / "repeated" / "index.html").read_text()
    one, other = board.row("dpo_hot"), before.row("dpo_hot")
    assert one is not None and other is not None
    assert one.scores["pairwise_judge/win_rate"] == other.scores["pairwise_judge/win_rate"]
    assert one.cost.judge_tokens == 3 * (other.cost.judge_tokens or 0)
    assert "repeated" not in one.provenance["judges"]["pairwise_judge"]


@pytest.mark.slow
def test_two_judges_stand_side_by_side(lab: Lab) -> None:
    """One evaluator under two labels, each with its own judge: metrics, strengths, provenance and verdicts by label."""
    one, other = [{"name": "pairwise_judge", "opponent": "sft", "max_tokens": 8, "label": label} for label in ("one", "other")]
    listed = json.dumps([one, {**other, "judge": {"model": "another-judge"}}])
    lab.run("labels", "--set", "judge.max_calls=1000", "--set", f"evaluators={listed}")
    board = lab.board("labels")
    assert {metric.key.partition("/")[0] for metric in board.metrics} == {"one", "other"}
    row = board.row("dpo_hot")
    assert {"one/win_rate", "other/win_rate", "one/strength", "other/strength"} <= row.scores.keys()
    assert {label: judge["model"] for label, judge in row.provenance["judges"].items()} == {
        "one": "sandbox-judge",
        "other": "another-judge",
    }
    assert [entry["label"] for entry in board.config["evaluators"]] == ["one", "other"]
    (entry,) = [pair for pair in board.analysis.raters or () if pair.left == "one/win_rate"]  # type: ignore[union-attr]
    assert entry.right == "other/win_rate" and entry.questions == row.scores["one/win_rate"].n
    assert verification(lab.folder / "labels").outcome() is VerifyOutcome.verified
