"""Files of other tools, in every reader of evaluators and importers: another encoding, half a surrogate pair and an array are
one error with the place; a byte order mark changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import DataError
from harness_plugins.evaluators import AlpacaEval, LmEval, MtBench, PairwiseJudge, VicunaBench
from harness_plugins.evaluators.fastchat import files as fastchat
from harness_plugins.evaluators.imports import AlpacaImporter, FastChatImporter, LmEvalImporter

HALF = "\ud83d"
QUESTION = {"question_id": 81, "category": "writing", "turns": ["Café?", "Shorter."]}
ANSWER = {"question_id": 81, "choices": [{"index": 0, "turns": ["Café.", "Non."]}]}
PROMPT = {
    "name": "pair-v2",
    "type": "pairwise",
    "system_prompt": "Judge the café.",
    "prompt_template": "{question} {answer_a} {answer_b}",
    "output_format": "[[A]]",
}
SINGLE = {"question_id": 81, "model": "é", "judge": ["gpt-4", "single-v1"], "turn": 1, "score": 7}
REFERENCE = {"instruction": "Café?", "output": "Oui.", "generator": "m"}
ANNOTATION = {
    "instruction": "Café?",
    "annotator": "a",
    "output_1": "Oui.",
    "output_2": "Non.",
    "generator_1": "b",
    "generator_2": "é",
    "preference": 1.0,
}
RESULTS = {"results": {"tea": {"acc,none": 1.0}}, "versions": {"tea": 1}, "n-shot": {"tea": 0}, "model_name": "é"}


def lines(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def array(row: dict[str, Any]) -> str:
    return json.dumps([row], ensure_ascii=False)


def judged(path: Path) -> Any:
    if problems := PairwiseJudge(prompts=str(path)).problems():
        raise DataError(problems[0][1])
    return PairwiseJudge(prompts=str(path)).fingerprint()


def documents(path: Path) -> Any:
    """lm-eval's results, and as its documents the file."""
    results = path.with_name("results_2026-01-01T00-00-00.json")
    results.write_text(json.dumps(RESULTS))
    path.rename(path.with_name("samples_tea_2026-01-01T00-00-00.jsonl"))
    return list(LmEvalImporter().read([results]))


Reader = Callable[[Path], Any]
READERS: dict[str, tuple[Reader, str, dict[str, Any], str]] = {
    "MT-Bench's questions": (lambda path: MtBench(questions=str(path)).benchmark_prompts(), lines(QUESTION), QUESTION, "turns"),
    "Vicuna-Bench's questions": (
        lambda path: VicunaBench(questions=str(path)).benchmark_prompts(),
        lines(QUESTION),
        QUESTION,
        "turns",
    ),
    "FastChat's answers": (fastchat.read_answers, lines(ANSWER), ANSWER, "choices"),
    "a judge's prompts": (judged, lines(PROMPT), PROMPT, "system_prompt"),
    "AlpacaEval's reference": (
        lambda path: AlpacaEval(reference=str(path), official=False)._reference(),
        array(REFERENCE),
        REFERENCE,
        "instruction",
    ),
    "AlpacaEval's questions": (
        lambda path: AlpacaEval(reference=str(path)).benchmark_prompts(),
        array(REFERENCE),
        REFERENCE,
        "instruction",
    ),
    "FastChat's judgments": (lambda path: list(FastChatImporter().read([path])), lines(SINGLE), SINGLE, "model"),
    "AlpacaEval's annotations": (
        lambda path: list(AlpacaImporter(official=False).read([path])),
        array(ANNOTATION),
        ANNOTATION,
        "instruction",
    ),
    "lm-eval's results": (
        lambda path: list(LmEvalImporter().read([path])),
        json.dumps(RESULTS, ensure_ascii=False),
        RESULTS,
        "model_name",
    ),
    "lm-eval's documents": (
        documents,
        lines({"doc_id": 0, "filter": "none", "metrics": ["acc"], "acc": 1.0, "doc": {"q": "Café?"}}),
        {"doc_id": 0, "filter": "none", "metrics": ["acc"], "acc": 1.0, "doc": {"q": "Café?"}},
        "filter",
    ),
}
IN_LINES = [
    "MT-Bench's questions",
    "Vicuna-Bench's questions",
    "FastChat's answers",
    "a judge's prompts",
    "FastChat's judgments",
]


@pytest.mark.parametrize("name", READERS)
def test_a_byte_order_mark_changes_nothing(name: str, tmp_path: Path) -> None:
    read, text, _, _ = READERS[name]
    given = []
    for number, mark in enumerate(("", "\ufeff")):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "file.json").write_text(mark + text, encoding="utf-8")
        given.append(repr(read(folder / "file.json")).replace(str(folder), ""))
    assert given[0] == given[1]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "latin-1"])
@pytest.mark.parametrize("name", READERS)
def test_another_encoding_is_one_error(name: str, encoding: str, tmp_path: Path) -> None:
    read, text, _, _ = READERS[name]
    path = tmp_path / "file.json"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match=r"(line |:)1: it is (UTF-16, and should be|not) UTF-8.*iconv"):
        read(path)


@pytest.mark.parametrize("name", READERS)
def test_half_a_surrogate_pair_is_one_error(name: str, tmp_path: Path) -> None:
    read, text, row, field = READERS[name]
    changed = {**row, field: [HALF] if isinstance(row[field], list) else HALF}
    path = tmp_path / "file.json"
    path.write_text(json.dumps([changed] if text.startswith("[") else changed))
    with pytest.raises(DataError, match="half a surrogate pair") as caught:
        read(path)
    assert str(tmp_path) in str(caught.value)
    str(caught.value).encode()


@pytest.mark.parametrize("name", IN_LINES)
def test_an_array_in_place_of_lines_names_the_fix(name: str, tmp_path: Path) -> None:
    read, _, row, _ = READERS[name]
    path = tmp_path / "file.json"
    path.write_text(json.dumps([row], indent=2))
    with pytest.raises(DataError, match=r"file.json:1 begins a JSON array: write one object per line, e.g. with `jq"):
        read(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (lines({"question": "Café?", "answer": "#### 1"}).encode("utf-16"), "line 1: it is UTF-16"),
        (lines({"question": "Café?", "answer": "#### 1"}).encode("latin-1"), "line 1: it is not UTF-8"),
        (json.dumps({"question": HALF, "answer": "#### 1"}).encode(), "line 1: `question` holds half a surrogate pair"),
        (b'{"question": 1}\n{', "line 2: not JSON"),
    ],
)
def test_lm_evals_local_data_that_cannot_be_read_are_one_error(content: bytes, problem: str, tmp_path: Path) -> None:
    data = tmp_path / "openai" / "gsm8k" / "main"
    data.mkdir(parents=True)
    for split in ("train", "test"):
        (data / f"{split}.jsonl").write_bytes(content)
    evaluator = LmEval(tasks=("gsm8k",), report=("gsm8k/exact_match,strict-match",), data=str(tmp_path))
    with pytest.raises(DataError, match=problem):
        evaluator.benchmark_prompts()
