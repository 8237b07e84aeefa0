"""The sandbox's judge: gold decides, and bias shows where it is close."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness.api.types import Message
from harness.models.judge.judge import Judge
from harness.models.judge.settings import JudgeSettings
from harness.sandbox import build_dataset, gold, tasks
from harness.sandbox.judge import MODEL, UNKNOWN, SandboxJudge
from harness.store import Store
from harness_plugins.evaluators.pairwise_judge import TEMPLATE, read_verdict


def asked(question: str, first: str, second: str) -> str:
    return TEMPLATE.format(question=question, answer_a=first, answer_b=second)


def test_gold_decides_whatever_the_order() -> None:
    judge = SandboxJudge(noise=0.0, bias=0.0)
    compared = 0
    for example in build_dataset({"heldout": 30}, 0.0, 0)["heldout"]:
        task = tasks.Task.from_dict(example.metadata["task"])
        better, worse = example.ranked[0], "i do not know ."
        if gold.mark(task, better).total - gold.mark(task, worse).total > judge.tie:
            compared += 1
            assert judge(asked(task.question, better, worse)) == "[[A]]"
            assert judge(asked(task.question, worse, better)) == "[[B]]"
    assert compared > 20


def test_bias_prefers_what_is_shown_first_and_noise_is_repeatable() -> None:
    example = build_dataset({"heldout": 1}, 0.0, 0)["heldout"][0]
    question, answer = example.prompt.text, example.ranked[0]
    assert SandboxJudge(noise=0.0, bias=2.0)(asked(question, answer, answer)) == "[[A]]"
    assert SandboxJudge(noise=0.0, bias=0.0)(asked(question, answer, answer)) == "[[C]]"
    noisy = SandboxJudge(noise=3.0)
    assert noisy(asked(question, answer, "no")) == SandboxJudge(noise=3.0)(asked(question, answer, "no"))


def test_it_rates_single_answers_and_says_when_it_knows_no_such_question() -> None:
    example = build_dataset({"heldout": 1}, 0.0, 0)["heldout"][0]
    single = "[Question]\n{}\n\n[The Start of Assistant's Answer]\n{}\n[The End of Assistant's Answer]"
    rated = SandboxJudge(noise=0.0)(single.format(example.prompt.text, example.ranked[0]))
    assert rated.startswith("Rating: [[")
    assert SandboxJudge()(asked("who are you ?", "a", "b")) == UNKNOWN
    assert SandboxJudge()("nonsense") == UNKNOWN


def test_it_is_served_as_openai_serves(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from harness.cli import main; main()",
        "sandbox",
        "serve-judge",
        "--port",
        "0",
        "--noise",
        "0",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        url = said.split()[2].rstrip(";")
        try:
            settings = JudgeSettings(model=MODEL, base_url=url, max_usd=0)  # its price is listed: nothing
            judge = Judge(settings, Store(tmp_path), "run", None, lambda *progress: None)
            example = build_dataset({"heldout": 1}, 0.0, 0)["heldout"][0]
            question = asked(example.prompt.text, example.ranked[0], "i do not know .")
            judgment = judge.judge([(Message("user", question),)], read_verdict, {})[0]
        finally:
            process.terminate()
    assert judgment.value == "A"
    assert judgment.answer.model == "sandbox-judge-noise-0-bias-0.5-seed-0"
    assert judge.tally.facts()["judge_usd"] == 0
