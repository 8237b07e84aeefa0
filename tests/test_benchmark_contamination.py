"""Training prompts held against the questions that evaluators bring: counted by evaluator, left out where the config says."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from inline import inline_workers
from typer.testing import CliRunner

from harness import DataError, Evaluator, Message, Prompt, sandbox
from harness.api.types import Example
from harness.board import Board
from harness.board.views.markdown import to_markdown
from harness.board.views.page import to_html
from harness.cli import app
from harness.run.records import SplitOverlap
from harness.run.stages.benchmarks import Benchmark, overlap, overlap_warnings, read_benchmarks
from harness_plugins.evaluators import AlpacaEval, LmEval, MtBench, PairwiseJudge, VicunaBench
from harness_plugins.sources import Sandbox

QUESTION = "Is tea that was left in a cold room overnight still hot in the morning?"


@pytest.fixture(scope="module", autouse=True)
def _no_worker_processes() -> Iterator[None]:
    with inline_workers():
        yield


def asked(*turns: str) -> Prompt:
    roles = ("user", "assistant")
    return Prompt("x", tuple(Message(roles[place % 2], turn) for place, turn in enumerate(turns)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompt", "same", "ids"),
    [
        (asked(QUESTION), True, {"long"}),
        (asked(QUESTION.upper().replace("?", " !?")), True, {"long"}),
        (asked("Hi", "Hello!", QUESTION), True, {"long"}),
        (asked(f"Answer in one word.\n{QUESTION} Thank you."), False, {"long"}),
        (asked(f"Is tea hot? {QUESTION}"), False, {"long"}),
        (asked("is tea hot"), True, {"short"}),
        (asked("Say whether: is tea hot? Please"), False, set()),  # too short to be looked for inside
        (asked("Hi", QUESTION, "Why?"), False, set()),  # an answer is no prompt
        (asked(QUESTION.replace("hot", "cold")), False, set()),
        (asked("Question: Is tea hot? Answer:"), True, {"short"}),  # another wording of it
    ],
)
def test_a_prompt_holds_a_question_word_for_word_or_inside(prompt: Prompt, same: bool, ids: set[str]) -> None:
    questions = [("long", QUESTION), ("short", "Is tea hot?"), ("short", "Question: Is tea hot? Answer:")]
    benchmark = Benchmark(Prompt.of(name, text) for name, text in questions)
    assert benchmark.ids == {"long", "short"}
    assert benchmark.held_by(prompt) == (same, frozenset(ids))


def test_counts_and_warnings_name_evaluator_and_split() -> None:
    benchmark = Benchmark([Prompt.of("a", QUESTION), Prompt.of("b", "Is tea hot?")])
    examples = [Example(asked(text)) for text in (QUESTION, f"So: {QUESTION}", "Is milk hot?")]
    counts = overlap({"tea_bench": benchmark, "other": "there is no file"}, {"train": examples, "sft": examples[2:]})
    assert {name: count.as_json() for name, count in counts.items()} == {
        "tea_bench": {
            "questions": 2,
            "splits": {
                "train": {"of": 3, "prompts": 2, "same": 1, "questions": 1},
                "sft": {"of": 1, "prompts": 0, "same": 0, "questions": 0},
            },
        },
        "other": {"unknown": "there is no file"},
    }
    assert overlap_warnings(counts) == [
        "tea_bench: training prompts hold 1 of its 2 questions: train 2 of 3 (1 word for word); its scores may show what was "
        "learnt by heart",
        "other: training prompts were not held against its questions: there is no file",
    ]
    assert "they were left out" in overlap_warnings(counts, dropped=True)[0]


def test_evaluators_bring_their_questions_without_any_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing may be fetched")

    monkeypatch.setattr("urllib.request.urlopen", refused)
    absent = [
        MtBench(questions=str(tmp_path / "no.jsonl"), fetch=True),
        VicunaBench(questions=str(tmp_path / "no.jsonl"), fetch=True),
        AlpacaEval(reference=str(tmp_path / "no.json")),
        LmEval(tasks=("gsm8k",), report=("gsm8k/exact_match,strict-match",), data=str(tmp_path)),
    ]
    read = read_benchmarks(absent, Sandbox())
    assert set(read) == {"mt_bench", "vicuna_bench", "alpaca_eval", "lm_eval"}
    assert all(isinstance(reason, str) and reason for reason in read.values())
    questions = tmp_path / "question.jsonl"
    questions.write_text(json.dumps({"question_id": 81, "category": "writing", "turns": [QUESTION, "Shorter."]}) + "\n")
    reference = tmp_path / "reference.json"
    reference.write_text(json.dumps([{"instruction": QUESTION, "output": "No.", "generator": "m"}]))
    for evaluator in (
        MtBench(questions=str(questions)),
        VicunaBench(questions=str(questions)),
        AlpacaEval(reference=str(reference)),
    ):
        assert [prompt.text for prompt in evaluator.benchmark_prompts()] == [QUESTION]
    assert not PairwiseJudge.brings_questions() and not Evaluator.brings_questions()  # it asks the evaluated split


def test_lm_evals_documents_are_held_by_what_they_ask(tmp_path: Path) -> None:
    data = tmp_path / "openai" / "gsm8k" / "main"
    data.mkdir(parents=True)
    rows = [{"question": f"{QUESTION} {number}", "answer": f"No. #### {number}"} for number in range(3)]
    for split in ("train", "test"):
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluator = LmEval(tasks=("gsm8k",), report=("gsm8k/exact_match,strict-match",), data=str(tmp_path), limit=2)
    benchmark = read_benchmarks([evaluator], Sandbox())["lm_eval"]
    assert isinstance(benchmark, Benchmark)
    assert benchmark.ids == {"gsm8k:0", "gsm8k:1"}  # as many as are asked
    assert benchmark.held_by(asked(rows[0]["question"])) == (True, frozenset({"gsm8k:0"}))
    shipped = read_benchmarks([LmEval()], Sandbox())["lm_eval"]
    assert isinstance(shipped, Benchmark) and len(shipped.ids) == 200


def test_real_benchmarks_on_real_prompts(tmp_path: Path) -> None:
    folder = os.environ.get("HARNESS_REFERENCE_DATA")
    if not folder:
        pytest.skip("HARNESS_REFERENCE_DATA is not set: the folder that holds gsm8k and mt_bench")
    real = tmp_path / "openai" / "gsm8k" / "main"
    real.mkdir(parents=True)
    for split in ("train", "test"):
        shutil.copy(Path(folder, "gsm8k", f"{split}.jsonl"), real)
    gsm8k = LmEval(tasks=("gsm8k",), report=("gsm8k/exact_match,strict-match",), data=str(tmp_path))
    bench = MtBench(questions=str(Path(folder, "mt_bench", "question.jsonl")))
    read = read_benchmarks([gsm8k, bench], Sandbox())

    def texts(split: str) -> list[str]:
        return [json.loads(line)["question"] for line in (real / f"{split}.jsonl").read_text().splitlines()]

    test = texts("test")
    train = [Example(asked(text)) for text in texts("train")]
    wrapped = [Example(asked(f"Solve it step by step.\n\n{text}\n\nGive a number.")) for text in test[:50]]
    counts = overlap(read, {"train": train, "sft": [*wrapped, *(Example(asked(text)) for text in test)]})
    assert counts["lm_eval"].questions == 1319 and counts["mt_bench"].questions == 80
    assert counts["lm_eval"].splits["train"].prompts == 0  # published apart
    assert counts["lm_eval"].splits["sft"] == SplitOverlap(of=1369, prompts=1369, same=1319, questions=1319)
    assert counts["mt_bench"].splits["sft"].prompts == 0


@pytest.fixture(scope="module")
def config(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison whose training file holds three of the questions of an lm-eval task, and its path."""
    folder = tmp_path_factory.mktemp("contaminated")
    sandbox.write_benchmarks(folder / "tasks")
    questions = [
        prompt.text for prompt in LmEval().benchmark_prompts(folder / "tasks") if prompt.id.startswith("sandbox_choice")
    ]
    world = sandbox.build_dataset({"sft": 1, "train": 40, "tuning": 0, "heldout": 0}, 0.0, 0)["train"]
    rows = [{"prompt": text, "ranked": ["pear .", "plum ."]} for text in (*questions[:2], f"{questions[2]} please")]
    rows += [{"prompt": example.prompt.text, "ranked": list(example.ranked)} for example in world]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    test = [{"prompt": f"name {number} trees .", "ranked": ["elm .", "pear ."]} for number in range(4)]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in test))
    path = folder / "contaminated.yaml"
    raw = {
        "name": "contaminated",
        "source": {"name": "jsonl", "path": str(folder / "rows.jsonl"), "splits": {"heldout": str(folder / "test.jsonl")}},
        "model": {"path": str(tiny_checkpoint)},
        "sft": {"epochs": 1, "batch_size": 16},
        "budget": {"prompts": 8},
        "methods": ["sft", "dpo"],
        "evaluators": [
            "preference_accuracy",
            {"name": "lm_eval", "tasks": ["sandbox_choice"], "report": ["sandbox_choice/acc"], "folder": str(folder / "tasks")},
        ],
        "seeds": [0],
        "baseline": "sft",
    }
    path.write_text(yaml.safe_dump(raw))
    return path


def board(config: Path, name: str, *more: str) -> Board:
    places = ["--out", str(config.parent / name), "--store", str(config.parent / "store"), "--workers", "1"]
    result = CliRunner().invoke(app, ["compare", str(config), *places, *more])
    assert result.exit_code == 0, result.output
    return Board.read(config.parent / name)


def test_a_board_counts_them_by_evaluator_and_warns(config: Path) -> None:
    first = board(config, "counted")
    counts = first.sharing["data"]["benchmarks"]
    assert counts["lm_eval"]["questions"] == 100
    assert counts["lm_eval"]["splits"]["sft"] == {"of": 43, "prompts": 3, "same": 2, "questions": 3}
    assert counts["lm_eval"]["splits"]["train"]["of"] == 8
    assert set(counts) == {"lm_eval"}
    (warning,) = (text for text in first.warnings if "learnt by heart" in text)
    assert warning.startswith("lm_eval: training prompts hold 3 of its 100 questions: ")
    page = to_html(first, ())
    assert "learnt by heart" in to_markdown(first) and "learnt by heart" in page
    assert "3 of 43" in page
    again = board(config, "again")  # from the store
    assert again.sharing["data"] == first.sharing["data"]


def test_they_are_left_out_where_the_config_says_so(config: Path) -> None:
    dropped = board(config, "dropped", "--set", "evaluation.contaminated=drop")
    data = dropped.sharing["data"]
    assert data["kept"] == {"sft": 40, "train": 40, "tuning": 0, "heldout": 4}
    assert data["contaminated"]["train"]["benchmark"] == data["contaminated"]["sft"]["benchmark"] == 3
    assert any("they were left out" in text for text in dropped.warnings)
    plan = CliRunner().invoke(app, ["plan", str(config), "--json", "--set", "evaluation.contaminated=drop"])
    assert json.loads(plan.stdout)["data"]["kept"] == data["kept"]


def test_dropping_by_questions_that_are_not_here_is_refused(config: Path, tmp_path: Path) -> None:
    missing = f"evaluators=[{{name: lm_eval, tasks: [gsm8k], report: ['gsm8k/exact_match,strict-match'], data: {tmp_path}}}]"
    command = ["plan", str(config), "--set", missing, "--set", "evaluation.contaminated=drop"]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, DataError)
    assert "evaluation.contaminated = 'drop': the questions of lm_eval cannot be read" in str(result.exception)
