"""Results of other tools from anybody: importers give rows or refuse the file, and a board of such rows can be written."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from fuzz.budget import examples, survives
from fuzz.mutations import changed, damaged
from hypothesis import given
from hypothesis import strategies as st

from harness import DataError
from harness.api.interfaces import Importer
from harness.board.imports import ImportRequest, import_rows
from harness.board.views.page import write_all
from harness_plugins.evaluators import AlpacaImporter, FastChatImporter, LmEvalImporter

ANNOTATIONS: list[Any] = [
    {"instruction": f"task {number}", "output_1": "old", "generator_1": "gpt4", "output_2": "answer", "generator_2": model,
     "annotator": "judge", "preference": preference}
    for model in ("one", "two") for number, preference in enumerate((1.0, 2.0, None, 1.5))
]  # fmt: skip
SINGLE: list[Any] = [
    {"question_id": question, "model": model, "judge": ["gpt-4", "single-v1"], "turn": turn, "score": 7, "tstamp": 1.0}
    for model in ("one", "two") for question in (81, 82, 5) for turn in (1, 2)
]  # fmt: skip
PAIRS: list[Any] = [
    {"question_id": question, "model_1": model, "model_2": "old", "g1_winner": "model_1", "g2_winner": winner, "turn": 1,
     "judge": ["gpt-4", "pair-v2"]}
    for model in ("one", "two") for question, winner in ((81, "model_1"), (82, "tie"), (83, "error"))
]  # fmt: skip
RESULTS: dict[str, Any] = {
    "results": {"mmlu": {"acc,none": 0.5}, "mmlu_a": {"acc,none": 1.0, "alias": "a"}, "gsm8k": {"exact_match,strict": 0.25}},
    "group_subtasks": {"mmlu": ["mmlu_a"]}, "versions": {"mmlu_a": 1, "gsm8k": 3}, "n-shot": {"mmlu_a": 5, "gsm8k": 5},
    "higher_is_better": {"mmlu_a": {"acc": True}}, "model_name": "/models/tiny",
    "config": {"model": "hf", "model_args": "pretrained=/models/tiny", "model_revision": "step1", "limit": 3.0},
    "chat_template": None, "n-samples": {"mmlu_a": {"original": 3, "effective": 3}},
}  # fmt: skip
DOCUMENTS: list[Any] = [
    {"doc_id": number, "filter": "none", "metrics": ["acc"], "acc": number % 2, "doc_hash": f"{number:064x}"}
    for number in range(3)
]


def lines(rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in (rows if isinstance(rows, list) else [rows]))


def boarded(importer: Importer, paths: Iterable[Path], out: Path) -> None:
    """What `harness import` does with files."""
    found = list(importer.read(list(paths)))
    board = import_rows(found, ImportRequest(importer.name, list(paths), "now"), "imported")
    write_all(board, board.example_rows, out)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics of few draws, and no page: boards have their own test."""
    monkeypatch.setattr("harness.board.compare.DRAWS", 20)
    monkeypatch.setattr("harness.board.compare.FLIPS", 20)
    monkeypatch.setattr("harness.board.views.page.to_html", lambda board, examples: "")


def files(rows: Any, write: Callable[[Any], bytes]) -> st.SearchStrategy[bytes]:
    whole = write(rows)
    odd = (b"[" * 100_000, b'{"a": ' * 50_000, b"[" + b"9" * 5000 + b"]", b"null", b"", b"\xff\xfe")
    return st.one_of(changed(rows).map(write), changed(rows).map(write), damaged(whole), st.sampled_from(odd))


@examples(60)
@given(content=files(ANNOTATIONS, lambda rows: json.dumps(rows).encode()), packed=st.booleans(), data=st.data())
def test_annotations(content: bytes, packed: bool, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / ("annotations.json.gz" if packed else "annotations.json")
    whole = gzip.compress(content) if packed else content
    path.write_bytes(data.draw(damaged(whole)) if packed and data.draw(st.booleans()) else whole)
    survives(lambda: boarded(AlpacaImporter(official=False), [path], folder / "out"))


@examples(120)
@given(content=files(SINGLE, lines) | files(PAIRS, lines), opponent=st.sampled_from((None, "old", "one", "\x00")))
def test_judgments(content: bytes, opponent: str | None, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "judgments.jsonl").write_bytes(content)
    survives(lambda: boarded(FastChatImporter(opponent=opponent), [folder / "judgments.jsonl"], folder / "out"))


@examples(120)
@given(
    content=files(RESULTS, lambda rows: json.dumps(rows).encode()) | st.just(json.dumps(RESULTS).encode()),
    documents=files(DOCUMENTS, lines),
    tasks=st.sampled_from(((), ("mmlu",), ("../x",))),
)
def test_results(content: bytes, documents: bytes, tasks: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "results_2026-01-01.json").write_bytes(content)
    for task in ("mmlu_a", "gsm8k"):
        (folder / f"samples_{task}_2026-01-01.jsonl").write_bytes(documents)
    survives(lambda: boarded(LmEvalImporter(tasks=tasks), [folder], folder / "out"))


def test_a_group_in_itself_and_a_task_that_is_a_path_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results_1.json"
    for change, said in (
        ({"group_subtasks": {"mmlu": ["mmlu_a"], "mmlu_a": ["mmlu"], "x": ["mmlu"]}}, "contains itself"),
        ({"results": {"../../x": {"acc,none": 1.0}}}, r"'\.\./\.\./x' is no name of a task"),
        ({"results": {"/etc/passwd": {"acc,none": 1.0}}}, "is no name of a task"),
        ({"versions": [1]}, "versions = a list: Input should be a valid dictionary"),
    ):
        path.write_text(json.dumps({**RESULTS, **change}))
        with pytest.raises(DataError, match=said):
            list(LmEvalImporter().read([path]))


def test_a_bomb_of_annotations_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness_plugins.evaluators.imports.LARGEST_BYTES", 1_000_000)
    path = tmp_path / "annotations.json.gz"
    path.write_bytes(gzip.compress(b" " * 50_000_000))
    with pytest.raises(DataError, match="holds more than 1,000,000 bytes"):
        list(AlpacaImporter().read([path]))


def test_line_breaks_inside_a_text_end_no_judgment(tmp_path: Path) -> None:
    """FastChat writes texts as they are; Unicode's own line separators are among them."""
    path = tmp_path / "judgments.jsonl"
    path.write_text(json.dumps({**SINGLE[0], "judgment": "a\u2028b\x85c"}, ensure_ascii=False) + "\n", encoding="utf-8")
    (row,) = FastChatImporter().read([path])
    assert row.label == "one"
