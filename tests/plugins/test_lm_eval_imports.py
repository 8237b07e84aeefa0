"""What lm-eval's `--output_path` holds, read for a board: of which model, what is a mean, and over which documents."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from harness import DataError, Imported
from harness.board.imports import ImportRequest, import_rows
from harness.board.verify import verify
from harness.board.views.page import write_all
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
    assert shown(whole) == {"arc/acc": [0, 1], "in/acc": [0, 1]}
    assert shown(alone) == {"cut/acc": [0.5], "gsm8k/acc": [0.5], "out/acc": [0.5]}
    assert whole.warnings == (
        "groups that lm-eval gives no number of, so shown by their tasks: group (in, out)",
        "not all documents are there (--log_samples), so shown as lm-eval's own numbers, without interval and test: "
        "cut, out, gsm8k",
    )
    del results["out"]
    run = write_results(tmp_path / "run", results, group_subtasks=groups)
    whole, alone = read(run)
    assert shown(alone) == {"gsm8k/acc": [0.5]}
    assert whole.warnings[-1] == "left out, with neither all documents nor a number of its own: out"


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_documents_without_a_finite_value_are_holes_and_no_other_metric(tmp_path: Path, odd: float) -> None:
    run = write_results(tmp_path / "run", {"t": {"acc,none": 0.5, "score,none": odd, "acc_stderr,none": odd}})
    write_documents(run, "t", {"acc": [0, odd, 1], "score": [1.0, odd, 2.0]})
    word = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(odd)]
    (found,) = read(run)
    assert shown(found) == {"t/acc": [0, 1]}
    assert found.warnings == (
        f"left out, since lm-eval's number is not finite: t/score = {word}",
        f"documents without a finite value, left out of the mean: "
        f"t/acc (1 of 3; the first is {run}/samples_t_{DATE}.jsonl:2: acc = {word})",
    )


@pytest.mark.parametrize("written", ["NaN", "Infinity", "-Infinity", "1e999", '"nan"'])
def test_results_that_are_no_finite_number_are_named_and_nothing_else_is_lost(tmp_path: Path, written: str) -> None:
    run = write_results(tmp_path / "run", {"t": {"acc,none": 0.5}, "u": {"acc,none": 77}})
    file = run / f"results_{DATE}.json"
    file.write_text(file.read_text().replace("77", written))
    (alone,) = read(run)
    assert shown(alone) == {"t/acc": [0.5]}
    (said,) = alone.warnings
    assert said.startswith("left out, since lm-eval's number is not finite: u/acc = ")
    assert said.removeprefix("left out, since lm-eval's number is not finite: u/acc = ") in ("NaN", "Infinity", "-Infinity")
    with pytest.raises(DataError, match=r"results_.*\.json: no number of .* to show \(left out, since .* u/acc = "):
        read(run, tasks=("u",))


@pytest.mark.parametrize(("field", "change"), [
    ("versions.t", {"versions": {"t": math.nan}}),
    ("n-shot.t", {"n-shot": {"t": math.inf}}),
    ("config.limit", {"config": {"limit": -math.inf}}),
])  # fmt: skip
def test_facts_that_are_no_finite_number_are_refused_by_field(tmp_path: Path, field: str, change: dict[str, Any]) -> None:
    write_results(tmp_path, {"t": {"acc,none": 0.5}}, **change)
    with pytest.raises(
        DataError, match=rf"results_{DATE}\.json cannot be read .* {field} = -?(NaN|Infinity), which is no finite"
    ):
        read(tmp_path)


GROUPS = {"all": ["mmlu", "loose"], "mmlu": ["mmlu_a", "mmlu_b"], "loose": ["x", "y"]}


@pytest.mark.parametrize(
    "nothing", [{" ": " ", "alias": "g"}, {"alias": "g", "name": "g"}, {"acc,none": "N/A", "alias": "g"}, None]
)
def test_a_group_without_a_number_is_shown_by_its_tasks_and_one_with_a_number_as_given(tmp_path: Path, nothing: Any) -> None:
    """lm-eval 0.4.4 to 0.4.12 write `" ": " "` for such a group, later ones its name and alias alone."""
    tasks = {"mmlu_a": {"acc,none": 1.0}, "mmlu_b": {"acc,none": 0.0}, "x": {"acc,none": 0.5}, "y": {"acc,none": 0.25}}
    groups = {"all": nothing, "loose": nothing} if nothing else {}
    run = write_results(tmp_path / "run", {**groups, "mmlu": {"acc,none": 0.5}, **tasks}, group_subtasks=GROUPS)
    for task, values in (("mmlu_a", [1]), ("mmlu_b", [0]), ("x", [1, 0]), ("y", [1, 0, 0, 0])):
        write_documents(run, task, {"acc": values})
    (found,) = read(run)
    assert shown(found) == {"mmlu/acc": [1, 0], "x/acc": [1, 0], "y/acc": [1, 0, 0, 0]}
    assert found.warnings == ("groups that lm-eval gives no number of, so shown by their tasks: all (mmlu, x, y)",)
    (chosen,) = read(run, tasks=("loose", "x"))
    assert shown(chosen) == {"x/acc": [1, 0], "y/acc": [1, 0, 0, 0]}
    for samples in run.glob("*.jsonl"):
        samples.unlink()
    (alone,) = read(run)
    assert not alone.whole and shown(alone) == {"mmlu/acc": [0.5], "x/acc": [0.5], "y/acc": [0.25]}
    assert alone.warnings == found.warnings


def test_groups_as_the_installed_lm_eval_writes_them(tmp_path: Path) -> None:
    from lm_eval.api.group import AggMetricConfig, Group
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator_utils import EvalAcc, aggregate_groups

    values = {"a": [1, 0], "b": [1, 1, 1, 0]}
    means = {task: sum(found) / len(found) for task, found in values.items()}
    groups = {"pooled": Group("pooled", aggregate_metric_list=[AggMetricConfig(metric="acc")]), "loose": Group("loose")}
    for name in values:
        named = type("Named", (ConfigurableTask,), {"task_name": name})
        task = named.__new__(named)  # without its data
        for group in groups.values():
            group.add(task)
    acc = EvalAcc(
        metrics={
            task: {"name": task, "alias": task, "sample_len": len(found), "acc,none": means[task], "acc_stderr,none": 0.1}
            for task, found in values.items()
        },
        versions=dict.fromkeys(values, 1.0),
        num_fewshot=dict.fromkeys(values, 5),
        higher_is_better={task: {"acc": True} for task in values},
        n_samples={task: {"original": len(found), "effective": len(found)} for task, found in values.items()},
        groups=groups,
    )  # fmt: skip
    content = aggregate_groups(acc)._to_eval_results()
    assert "acc,none" not in content["results"]["loose"] and content["results"]["pooled"]["acc,none"] == pytest.approx(4 / 6)
    (tmp_path / f"results_{DATE}.json").write_text(json.dumps({**content, "model_name": "m"}))
    for task, found in values.items():
        write_documents(tmp_path, task, {"acc": found})
    (row,) = read(tmp_path)
    assert shown(row) == {"a/acc": [1, 0], "b/acc": [1, 1, 1, 0], "pooled/acc": [1, 0, 1, 1, 1, 0]}
    assert row.warnings == ("groups that lm-eval gives no number of, so shown by their tasks: loose (a, b)",)
    assert row.facts["shots"] == {"a": 5, "b": 5, "pooled": 5}


def test_a_groups_metric_that_lm_eval_does_not_give_is_not_pooled(tmp_path: Path) -> None:
    """agieval's group has `acc` alone, its tasks `acc_norm` too."""
    row = {"acc,none": 0.5, "acc_norm,none": 0.5}
    results = {"agi": {"acc,none": 0.5}, "a": row, "b": row}
    run = write_results(tmp_path / "run", results, group_subtasks={"agi": ["a", "b"]})
    for task in ("a", "b"):
        write_documents(run, task, {"acc": [1, 0], "acc_norm": [0, 1]})
    (found,) = read(run)
    assert shown(found) == {"agi/acc": [1, 0, 1, 0]}
    assert found.warnings == ("left out, since lm-eval gives no number of it: agi/acc_norm",)


def test_a_groups_number_stands_in_either_part_of_a_file(tmp_path: Path) -> None:
    run = write_results(tmp_path, {"a": {"acc,none": 1.0}}, groups={"g": {"acc,none": 0.75}}, group_subtasks={"g": ["a"]})
    (alone,) = read(run)
    assert shown(alone) == {"g/acc": [0.75]}


def old_documents(values: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """All documents of one filter, then of the next, as releases before 0.4.7 wrote them; values are by filter."""
    return [{"doc_id": number, "target": "x", **row} for rows in values.values() for number, row in enumerate(rows)]


GSM8K = {"exact_match,strict-match": 0.25, "exact_match_stderr,strict-match": 0.1, "exact_match,flexible-extract": 0.75}
STRICT, FLEXIBLE = [{"exact_match": v} for v in (1, 0, 0, 0.0)], [{"exact_match": v} for v in (1, 1.0, 0, "1.0")]


@pytest.mark.parametrize("form", ["0.4.3", "0.4.0"])
def test_documents_that_name_no_filter_are_read_by_the_filters_order(tmp_path: Path, form: str) -> None:
    rows = old_documents({"strict-match": STRICT, "flexible-extract": FLEXIBLE})
    arguments = "pretrained=org/model,dtype=float"
    config = {"model": "hf", "model_args": arguments}
    run = write_results(tmp_path, {"gsm8k": {"alias": "gsm8k", **GSM8K}}, config=config, model_name=None)
    if form == "0.4.3":
        (run / f"samples_gsm8k_{DATE}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:  # results.json, and a list of all documents in a file that is named by the model's arguments
        (run / f"results_{DATE}.json").rename(run / "results.json")
        (run / "pretrained__org__model,dtype__float_gsm8k.jsonl").write_text(json.dumps(rows, indent=2))
    (found,) = read(run)
    assert found.label == "org/model" and found.whole and found.warnings == ()
    assert shown(found) == {"gsm8k/exact_match,strict-match": [1, 0, 0, 0], "gsm8k/exact_match,flexible-extract": [1, 1, 0, 1]}
    assert {path.name for path in found.files} == {path.name for path in run.iterdir()}


@pytest.mark.parametrize("rows", [
    old_documents({"strict-match": STRICT}),
    old_documents({"strict-match": STRICT, "flexible-extract": FLEXIBLE, "third": FLEXIBLE}),
])  # fmt: skip
def test_documents_that_name_no_filter_and_fit_none_are_named_with_their_version(tmp_path: Path, rows: list[Any]) -> None:
    run = write_results(tmp_path, {"gsm8k": GSM8K, "arc": {"acc,none": 0.5}})
    write_documents(run, "arc", {"acc": [0, 1]})
    (run / f"samples_gsm8k_{DATE}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole, alone = read(run)
    assert shown(whole) == {"arc/acc": [0, 1]}
    assert shown(alone) == {"gsm8k/exact_match,strict-match": [0.25], "gsm8k/exact_match,flexible-extract": [0.75]}
    count = len(rows) // 4
    assert whole.warnings == (
        "documents name no filter (lm-eval before 0.4.7) and not each has a row for each filter, so shown as lm-eval's own "
        f"numbers, without interval and test: gsm8k ({count} row{'s' if count > 1 else ''} of document 0 for 2 filters)",
    )


def test_filters_in_another_order_are_seen_by_their_means(tmp_path: Path) -> None:
    rows = old_documents({"flexible-extract": FLEXIBLE, "strict-match": STRICT})
    run = write_results(tmp_path, {"gsm8k": GSM8K})
    (run / f"samples_gsm8k_{DATE}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (alone,) = read(run)
    assert not alone.whole and "exact_match,strict-match 0.25 (mean over documents 0.75)" in alone.warnings[0]


def test_results_before_filters_are_read_with_the_shots_that_the_run_had(tmp_path: Path) -> None:
    """Release 0.3 wrote one file of the user's name."""
    content = {
        "results": {
            "lambada": {"ppl": 9.5, "ppl_stderr": 0.25, "acc": 0.5, "acc_stderr": 0.02},
            "arc": {"acc": 0.25, "acc_stderr": 0.01, "acc_norm": 0.375, "acc_norm_stderr": math.nan},
        },
        "versions": {"lambada": 0, "arc": 0},
        "config": {"model": "gpt2", "model_args": "", "num_fewshot": 25, "batch_size": None, "limit": None},
    }  # fmt: skip
    path = tmp_path / "gpt2.json"
    path.write_text(json.dumps(content))
    (alone,) = read(path)
    assert (alone.label, alone.whole, alone.warnings) == ("gpt2", False, ())
    assert shown(alone) == {"arc/acc": [0.25], "arc/acc_norm": [0.375], "lambada/ppl": [9.5], "lambada/acc": [0.5]}
    assert [metric.higher_is_better for metric in alone.metrics] == [True, True, False, True]
    assert alone.facts["shots"] == {"lambada": 25, "arc": 25}


def test_what_other_releases_and_tools_write_is_read_or_named(tmp_path: Path) -> None:
    run = write_results(
        tmp_path / "run", {"t": {"alias": "t", "sample_len": 4, "acc,none": "0.53125", "acc_stderr,none": "N/A"}}
    )
    (run / f"results_{DATE}.json").rename(run / f"mine_{DATE}T10-00-00.5.json")  # --output_path run/mine.json
    (alone,) = read(run)
    assert shown(alone) == {"t/acc": [0.53125]}  # numpy's 32-bit floats were written as texts
    only = write_results(tmp_path / "predictions", {"t": {"alias": "t", "bypass,none": 999, "bypass_stderr,none": "N/A"}})
    with pytest.raises(
        DataError, match=r"results_.*\.json: no number of /models/tiny to show \(left out, with neither .* own: t\)"
    ):
        read(only)
    other = tmp_path / "results_2.json"
    other.write_text(json.dumps({"results": {"all": {"acc": 0.5}}, "versions": {}, "config_general": {"model_name": "m"}}))
    with pytest.raises(DataError, match=r"results_2\.json holds results of lighteval, which is another tool"):
        read(other)


def test_directions_come_from_a_groups_tasks_where_the_file_has_none_for_the_group(tmp_path: Path) -> None:
    results = {"g": {"ppl2,none": 2.0, "mixed,none": 1.0, "word_perplexity,none": 3.0}}
    better = {"a": {"ppl2": False, "mixed": True}, "b": {"ppl2": False, "mixed": False}}
    run = write_results(tmp_path, results, group_subtasks={"g": ["a", "b"]}, higher_is_better=better)
    (alone,) = read(run)
    assert {metric.name: metric.higher_is_better for metric in alone.metrics} == {
        "g/ppl2": False, "g/mixed": None, "g/word_perplexity": False
    }  # fmt: skip


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
