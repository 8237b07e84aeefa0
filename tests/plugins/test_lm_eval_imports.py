"""What lm-eval's `--output_path` holds, read for a board: of which model, what is a mean, and over which documents."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from harness import DataError, Imported
from harness.leaderboard.imports import ImportRequest, import_rows
from harness.leaderboard.page import write_all
from harness.leaderboard.verify import verify
from harness_plugins.evaluators import LmEvalImporter

DATE = "2026-01-01"


def write_results(folder: Path, results: dict[str, Any], date: str = DATE, **rest: Any) -> Path:
    content = {
        "results": results, "group_subtasks": {}, "versions": dict.fromkeys(results, 1.0), "n-shot": dict.fromkeys(results, 5),
        "higher_is_better": {}, "model_name": "/models/tiny", **rest,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"results_{date}.json").write_text(json.dumps(content))
    return folder


def write_documents(
    folder: Path, task: str, values: dict[str, list[Any]], date: str = DATE, texts: str = "document {}"
) -> None:
    """One per position of the values, which are by metric."""
    rows = [
        {"doc_id": number, "filter": "none", "metrics": list(values), **dict(zip(values, found, strict=True)),
         "doc_hash": hashlib.sha256(texts.format(number).encode()).hexdigest()}
        for number, found in enumerate(zip(*values.values(), strict=True))
    ]  # fmt: skip
    (folder / f"samples_{task}_{date}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(*paths: Path, **fields: Any) -> list[Imported]:
    return list(LmEvalImporter(**fields).read(paths))


def board_of(found: list[Imported], *paths: Path, **fields: Any) -> Any:
    return import_rows(found, ImportRequest("lm_eval", paths, "now", **fields), "others")


def shown(row: Imported) -> dict[str, list[float]]:
    """By metric."""
    return {metric.name: [s.value for s in row.scores if s.metric == metric.name] for metric in row.metrics}


def test_groups_stand_for_all_documents_and_numbers_without_documents_stay_numbers(tmp_path: Path) -> None:
    results = {"mmlu": {"acc,none": 0.5}, "mmlu_a": {"acc,none": 1.0}, "mmlu_b": {"acc,none": 0.0}}
    run = write_results(tmp_path / "run", results, group_subtasks={"mmlu": ["mmlu_a", "mmlu_b"]})
    for task, value in (("mmlu_a", 1.0), ("mmlu_b", 0.0)):
        write_documents(run, task, {"acc": [value]})
    (found,) = read(run)
    assert found.label == "tiny" and found.whole and found.warnings == ()
    assert [(score.example, score.metric, score.value) for score in found.scores] == [
        ("mmlu_a:0", "mmlu/acc", 1.0),
        ("mmlu_b:0", "mmlu/acc", 0.0),
    ]
    assert (found.facts["versions"], found.facts["shots"]) == ({"mmlu": 1.0}, {"mmlu": 5})
    other = write_results(tmp_path / "other", {"gsm8k": {"alias": "gsm8k", "exact_match,strict-match": 0.25, "x": 1}})
    (bare,) = read(other)
    assert not bare.whole and bare.warnings == ()
    assert shown(bare) == {"gsm8k/exact_match,strict-match": [0.25]}
    with pytest.raises(DataError, match="has no results of it: it has gsm8k"):
        read(other, tasks=("arc",))


def test_models_whose_paths_end_alike_are_rows_of_their_own(tmp_path: Path) -> None:
    for number, name in enumerate(("/runs/dpo/checkpoint-100", "/runs/sft/checkpoint-100/", "/runs/dpo/final", "org/model")):
        run = write_results(tmp_path / str(number), {"arc": {"acc,none": number / 4}}, model_name=name)
        write_documents(run, "arc", {"acc": [number / 4] * 4})
    found = read(*(tmp_path / str(number) for number in range(4)))
    assert {row.label: shown(row)["arc/acc"][0] for row in found} == {
        "dpo/checkpoint-100": 0.0, "sft/checkpoint-100": 0.25, "final": 0.5, "org/model": 0.75
    }  # fmt: skip
    assert [row.method for row in board_of(found).rows] == ["org/model", "final", "sft/checkpoint-100", "dpo/checkpoint-100"]


def test_revisions_of_one_model_and_models_that_only_the_arguments_name_are_told_apart(tmp_path: Path) -> None:
    for step in (1, 2):
        config = {"model": "hf", "model_revision": f"step{step}"}
        write_results(tmp_path / "new", {"arc": {"acc,none": step}}, f"2026-01-0{step}", model_name="org/m", config=config)
        config = {"model": "hf", "model_args": f"dtype=auto,pretrained=/base,peft=/runs/{step}/adapter"}
        write_results(tmp_path / "old", {"arc": {"acc,none": step}}, f"2026-01-0{step}", model_name=None, config=config)
    assert [row.label for row in read(tmp_path / "new")] == ["org/m@step1", "org/m@step2"]
    assert [row.label for row in read(tmp_path / "old")] == ["1/adapter", "2/adapter"]


def test_another_model_of_the_same_short_name_does_not_join_a_row_that_is_there(tmp_path: Path) -> None:
    for run, task in (("dpo", "arc"), ("sft", "gsm8k")):
        folder = write_results(tmp_path / run, {task: {"acc,none": 0.5}}, model_name=f"/runs/{run}/checkpoint-100")
        write_documents(folder, task, {"acc": [0, 1]})
    board = board_of(read(tmp_path / "dpo"))
    write_all(board, board.example_rows, tmp_path / "board")
    later = read(tmp_path / "sft")
    with pytest.raises(DataError, match=r"the row 'checkpoint-100' is another model.*--label 'checkpoint-100=ANOTHER NAME'"):
        import_rows(later, ImportRequest("lm_eval", (), "now"), "others", tmp_path / "board")
    for label, methods in (("sft", {"checkpoint-100", "sft"}), ("checkpoint-100", {"checkpoint-100"})):
        request = ImportRequest("lm_eval", (), "now", {"checkpoint-100": label})
        assert {row.method for row in import_rows(later, request, "others", tmp_path / "board").rows} == methods
    assert "runs" not in (tmp_path / "board" / "board.json").read_text()  # folders are nobody's business


def test_what_is_no_mean_over_documents_keeps_lm_evals_own_number_apart(tmp_path: Path) -> None:
    logs = [-1.0, -2.0, -6.0]
    row = {"perplexity,none": math.exp(3.0), "acc,none": 1 / 3, "perplexity_stderr,none": 0.1, "words,none": 7.5}
    better = {"lambada": {"perplexity": False, "acc": True}}
    run = write_results(tmp_path / "run", {"lambada": row}, higher_is_better=better)
    write_documents(run, "lambada", {"perplexity": logs, "acc": [1, 0, 0], "words": [[1, 2]] * 3})
    whole, alone = read(run)
    assert shown(whole) == {"lambada/acc": [1, 0, 0]}
    assert shown(alone) == {"lambada/perplexity": [math.exp(3.0)], "lambada/words": [7.5]}
    assert [metric.higher_is_better for metric in alone.metrics] == [False, True]
    board = board_of([whole, alone])
    assert [(entry.method, entry.kind) for entry in board.rows] == [("tiny", "imported"), ("tiny (figures)", "published")]
    figure = board.row("tiny (figures)").scores["lm_eval/lambada/perplexity"]
    assert (figure.mean, figure.low, figure.delta) == (math.exp(3.0), None, None)
    assert board.warnings == (
        "tiny: no mean over documents, so shown as lm-eval's own numbers, without interval and test: "
        "lambada/perplexity 20.09 (mean over documents -3), lambada/words 7.5 (no values per document)",
    )
    write_all(board, board.example_rows, tmp_path / "board")
    assert verify(tmp_path / "board") == []


def test_a_group_that_weighs_its_tasks_alike_has_no_documents_mean(tmp_path: Path) -> None:
    results = {"both": {"acc,none": 0.75}, "a": {"acc,none": 1.0}, "b": {"acc,none": 0.5}}
    run = write_results(tmp_path / "run", results, group_subtasks={"both": ["a", "b"]})
    write_documents(run, "a", {"acc": [1]})
    write_documents(run, "b", {"acc": [1, 0, 1, 0]})
    (alone,) = read(run)
    assert not alone.whole and shown(alone) == {"both/acc": [0.75]}
    (said,) = alone.warnings
    assert said.endswith("both/acc 0.75 (mean over documents 0.6); --set 'tasks=[…]' takes tasks of a group by themselves")
    (tasks,) = read(run, tasks=("a", "b"))
    assert tasks.whole and tasks.warnings == () and shown(tasks) == {"a/acc": [1], "b/acc": [1, 0, 1, 0]}


def test_tasks_without_all_their_documents_are_named_and_keep_their_numbers(tmp_path: Path) -> None:
    results = {name: {"acc,none": 0.5} for name in ("arc", "gsm8k", "cut", "in", "out")}
    groups = {"group": ["in", "out"]}
    run = write_results(
        tmp_path / "run", results, group_subtasks=groups, **{"n-samples": {"cut": {"original": 9, "effective": 4}}}
    )
    for task in ("arc", "cut", "in"):
        write_documents(run, task, {"acc": [0, 1]})
    whole, alone = read(run)
    assert shown(whole) == {"arc/acc": [0, 1]}
    assert shown(alone) == {"cut/acc": [0.5], "gsm8k/acc": [0.5]}
    assert whole.warnings == (
        "not all documents are there (--log_samples), so shown as lm-eval's own numbers, without interval and test: cut, gsm8k",
        "left out, with neither all documents nor a number of its own: group (out)",
    )


def test_documents_without_a_finite_value_are_holes_and_no_other_metric(tmp_path: Path) -> None:
    run = write_results(tmp_path / "run", {"t": {"acc,none": 0.5, "score,none": math.nan}})
    write_documents(run, "t", {"acc": [0, math.nan, 1], "score": [1.0, math.nan, 2.0]})
    (found,) = read(run)
    assert list(shown(found)) == ["t/acc", "t/score"] and found.warnings == ()


def test_other_documents_limits_and_templates_are_said(tmp_path: Path) -> None:
    results = {"arc": {"acc,none": 0.5}, "piqa": {"acc,none": 0.5}}
    for model, texts, limit, template in (("a", "document {}", None, None), ("b", "{} reordered", 2.0, "<user>")):
        run = write_results(tmp_path / model, results, model_name=model, config={"limit": limit}, chat_template=template)
        write_documents(run, "arc", {"acc": [0, 1]}, texts=texts)
        write_documents(run, "piqa", {"acc": [0, 1]})
    a, b = read(tmp_path / "a", tmp_path / "b")
    assert b.facts["limit"] == {"arc": 2, "piqa": 2} and b.facts["chat_template"] == {"arc": True, "piqa": True}
    assert a.facts["documents"]["piqa"] == b.facts["documents"]["piqa"]
    digests = [row.facts["documents"]["arc"] for row in (b, a)]
    end = "by lm_eval: their difference may be that of the task."
    assert board_of([a, b]).warnings == (
        f"b has limit 2 of arc, piqa and a none, {end}",
        f"b has chat_template yes of arc, piqa and a no, {end}",
        f"b has documents {digests[0]} of arc and a {digests[1]}, {end}",
    )
    assert digests[0].startswith("2 (sha256 ")


def test_a_folders_files_are_hashed_for_the_provenance(tmp_path: Path) -> None:
    run = write_results(tmp_path / "run" / "tiny", {"arc": {"acc,none": 0.5}, "other": {"acc,none": 0.5}})
    write_documents(run, "arc", {"acc": [0, 1]})
    board = board_of(read(tmp_path / "run"), tmp_path / "run")
    (entry,) = board.row("tiny").provenance["imported"]
    assert entry["files"] == [
        {"name": name, "sha256": hashlib.sha256((run / name).read_bytes()).hexdigest()}
        for name in (f"results_{DATE}.json", f"samples_arc_{DATE}.jsonl")
    ]
