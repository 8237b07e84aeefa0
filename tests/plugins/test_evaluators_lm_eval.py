"""lm-eval on a tiny model with random weights: its numbers are computed again by hand."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from harness import DataError, HarnessError, Score
from harness.sandbox.benchmarks import write_benchmarks
from harness.sandbox.pretrain import Recipe, build_model
from harness.sandbox.tokenizer import build_tokenizer
from harness_plugins.evaluators import LmEval
from harness_plugins.evaluators.lm_eval import engine

DOCUMENTS = 12


class PolicyTask:
    """A policy in memory and the sandbox's benchmarks."""

    examples = ()
    seed = 0

    def __init__(self, folder: Path, model: Any, tokenizer: Any) -> None:
        self.folder, self.model, self.tokenizer = folder, model, tokenizer
        self.notes: dict[str, Any] = {}

    def note(self, name: str, value: Any) -> None:
        self.notes[name] = value

    def benchmarks(self) -> Path:
        folder = self.folder.parent / "benchmarks"
        write_benchmarks(folder, documents=DOCUMENTS)
        return folder

    def policy(self) -> tuple[Any, Any]:
        return self.model, self.tokenizer


@pytest.fixture(scope="module")
def model() -> Any:
    return build_model(Recipe(hidden_size=32, layers=1, heads=2, intermediate_size=64), build_tokenizer()).eval()


@pytest.fixture
def task(tmp_path: Path, model: Any) -> Iterator[PolicyTask]:
    (tmp_path / "scratch").mkdir()
    yield PolicyTask(tmp_path / "scratch", model, build_tokenizer())


def summed_logp(model: Any, tokenizer: Any, question: str, answer: str) -> float:
    import torch

    prompt = tokenizer(f"<s> <user> {question} <end> <assistant>")["input_ids"]
    ids = torch.tensor([prompt + tokenizer(answer)["input_ids"]])
    with torch.no_grad():
        logps = model(input_ids=ids).logits.log_softmax(-1)[0, :-1]  # [tokens - 1, vocabulary]
    return float(logps.gather(1, ids[0, 1:, None])[len(prompt) - 1 :].sum())


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_accuracy_agrees_with_log_probabilities_computed_by_hand(
    task: PolicyTask, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = task.folder.parent / "home"
    monkeypatch.setenv("HOME", str(home))
    scores = list(LmEval().evaluate(task))
    choice = [score for score in scores if score.metric == "sandbox_choice/acc"]
    expected = []
    for number, row in enumerate(read(task.benchmarks(), "sandbox_choice")):
        logps = [summed_logp(task.model, task.tokenizer, row["question"], text) for text in row["choices"]]
        expected.append(
            Score(f"sandbox_choice:{number}", "sandbox_choice/acc", float(logps.index(max(logps)) == row["answer"]))
        )
    assert choice == expected
    assert 0 < sum(score.value for score in choice) < DOCUMENTS
    generation = [score for score in scores if score.metric == "sandbox_generation/exact_match"]
    assert [score.example for score in generation] == [f"sandbox_generation:{number}" for number in range(DOCUMENTS)]
    assert capfd.readouterr() == ("", "")
    assert not home.exists()
    assert (task.folder / "datasets").is_dir()
    assert logging.getLogger("lm_eval").level != logging.ERROR


def test_limit(task: PolicyTask) -> None:
    scores = list(LmEval(limit=3, report=("sandbox_choice/acc",)).evaluate(task))
    assert [score.example for score in scores] == [f"sandbox_choice:{number}" for number in range(3)]


def test_which_documents_were_taken_is_noted(task: PolicyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, noted = task.benchmarks(), []
    monkeypatch.setattr(task, "benchmarks", lambda: folder)
    path = folder / "sandbox_choice.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    for order in (lines, lines, [*lines[1:], lines[0]]):
        path.write_text("".join(order))
        list(LmEval(limit=3, report=("sandbox_choice/acc",)).evaluate(task))
        noted.append(task.notes["documents"]["sandbox_choice"])
    assert noted[0] == noted[1] != noted[2]
    assert noted[0].startswith("3 (sha256 ")


def test_a_filter_may_be_named(task: PolicyTask) -> None:
    scores = list(LmEval(limit=2, report=("sandbox_generation/exact_match,list",)).evaluate(task))
    assert [score.metric for score in scores] == ["sandbox_generation/exact_match,list"] * 2


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("sandbox_chioce/acc", "the tasks asked for are sandbox_choice, sandbox_generation"),
        ("sandbox_choice/f1", "sandbox_choice reports acc"),
        ("sandbox_generation/exact_match,strict", "write sandbox_generation/exact_match,list"),
    ],
)
def test_a_report_that_cannot_be_made_is_refused_before_the_run(task: PolicyTask, entry: str, message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        list(LmEval(report=(entry,)).evaluate(task))


def test_two_beginning_tokens_are_refused(task: PolicyTask) -> None:
    task.tokenizer.chat_template = "{{ bos_token }}" + task.tokenizer.chat_template
    for entry in ("sandbox_choice/acc", "sandbox_generation/exact_match"):
        with pytest.raises(HarnessError, match="prompts begin with <s> twice"):
            list(LmEval(report=(entry,), limit=2).evaluate(task))


def test_a_tokenizer_without_chat_template_is_refused(task: PolicyTask) -> None:
    task.tokenizer.chat_template = None
    with pytest.raises(HarnessError, match="apply_chat_template = True"):
        list(LmEval().evaluate(task))


def test_a_group_from_a_folder_stands_for_the_documents_of_its_tasks(task: PolicyTask) -> None:
    folder = task.benchmarks()
    (folder / "other.yaml").write_text("include: sandbox_choice.yaml\ntask: other_choice\n")
    (folder / "group.yaml").write_text("group: both\ntask: [sandbox_choice, other_choice]\n")
    scores = list(LmEval(tasks=("both",), folder=str(folder), report=("both/acc",), limit=2).evaluate(task))
    assert {score.metric for score in scores} == {"both/acc"}
    assert {score.example for score in scores} == {
        f"{name}_choice:{number}" for name in ("sandbox", "other") for number in (0, 1)
    }


@pytest.mark.slow
def test_official_tasks(task: PolicyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", task.folder)
    with pytest.raises(HarnessError, match="lm-eval knows no task 'no_such_task'"):
        list(LmEval(tasks=("no_such_task",), report=("no_such_task/acc",)).evaluate(task))
    with pytest.raises(DataError, match=r"data set 'allenai/ai2_arc' .ARC-Challenge. is not on this machine: set `data`"):
        list(LmEval(tasks=("arc_challenge",), report=("arc_challenge/acc_norm",)).evaluate(task))


def test_declared_metrics_and_needs() -> None:
    assert [metric.name for metric in LmEval().metrics()] == ["sandbox_choice/acc", "sandbox_generation/exact_match"]
    official = LmEval(tasks=("gsm8k",), report=("gsm8k/exact_match,strict-match", "gsm8k/exact_match,flexible-extract"))
    assert [metric.name for metric in official.metrics()] == list(official.report)
    assert LmEval.needs == LmEval().needs == {"benchmarks"}
    assert official.needs == frozenset()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tasks": ("gsm8k",)}, "say in `report` which metrics of gsm8k to show"),
        ({"report": ("acc",)}, "should read 'task/metric'"),
        ({"report": ("a/acc", "a/acc")}, "an entry occurs twice"),
        ({"tasks": ()}, "tasks"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": "some"}, "batch_size"),
        ({"tasks": ("open_llm_leaderboard", "source"), "report": ("mmlu/acc",)}, "set apply_chat_template"),
    ],
)
def test_fields_are_validated(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LmEval(**fields)


def test_the_least_batch_size() -> None:
    assert LmEval(batch_size=1).batch_size == 1


@pytest.mark.parametrize(("requests", "expected"), [(0.5, 1), (3.5, 3), (64, 64), (1000, 64)])
def test_on_a_cpu_the_logits_of_a_batch_bound_its_size(
    model: Any, monkeypatch: pytest.MonkeyPatch, requests: float, expected: int
) -> None:
    config = model.config
    each = 2 * 4 * config.max_position_embeddings * config.vocab_size  # logits and their softmax, 4 bytes a number
    monkeypatch.setattr(engine, "LOGITS_BYTES", int(requests * each))
    wrapped, batch_size = engine.language_model(model, build_tokenizer(), "auto")
    assert batch_size == wrapped.batch_size_per_gpu == expected
