"""What AlpacaEval, FastChat and lm-eval leave, read for a board; real files where they are at hand."""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from harness import DataError, Imported
from harness.board import Board
from harness.board.imports import ImportRequest, import_rows
from harness_plugins.evaluators import AlpacaImporter, FastChatImporter, LmEvalImporter
from harness_plugins.evaluators.alpaca_eval.package import package

DATA = os.environ.get("HARNESS_REFERENCE_DATA")
REFERENCE = Path(DATA or ".")
needs_reference = pytest.mark.skipif(DATA is None, reason="HARNESS_REFERENCE_DATA is not set")


def mean(row: Imported, metric: str) -> float:
    values = [score.value for score in row.scores if score.metric == metric]
    return sum(values) / len(values)


def annotations(model: str, preferences: list[float | None]) -> list[dict[str, Any]]:
    return [
        {
            "instruction": f"task {number}", "output_1": "the reference", "generator_1": "gpt4", "output_2": model * 3,
            "generator_2": model, "annotator": "an_annotator", "preference": preference,
        }
        for number, preference in enumerate(preferences)
    ]  # fmt: skip


def judgment(model: str, question: int, turn: int, score: float, judge: str = "gpt-4") -> dict[str, Any]:
    return {"question_id": question, "model": model, "judge": [judge, "single-v1"], "turn": turn, "score": score, "tstamp": 1.0}


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@needs_reference
def test_published_annotations_give_the_published_figures() -> None:
    with package() as found:
        file = Path(found.__file__).parent / "leaderboards/data_AlpacaEval_2/weighted_alpaca_eval_gpt4_turbo_leaderboard.csv"
    published = {row[""]: row for row in csv.DictReader(file.read_text().splitlines())}
    paths = sorted((REFERENCE / "alpaca_eval" / "annotations").glob("*.json.gz"))
    rows = list(AlpacaImporter().read(paths))
    assert len(rows) == 3
    for row in rows:
        expected = published[row.label]
        for figure in ("win_rate", "standard_error", "discrete_win_rate"):
            assert row.facts["alpaca_eval"][figure] == pytest.approx(float(expected[figure]), abs=1e-6)
        assert 100 * mean(row, "win_rate") == pytest.approx(float(expected["win_rate"]), abs=1e-6)
        assert row.judge == "weighted_alpaca_eval_gpt4_turbo against gpt4_1106_preview"
        assert len(row.warnings) == 1 and "import with --set difficulty=FOLDER" in row.warnings[0]
    assert len({score.example for row in rows for score in row.scores}) == 805  # the same names in all three


def test_annotations_are_named_by_instruction_and_unread_ones_are_counted(tmp_path: Path) -> None:
    rows = annotations("model", [1.0, 2.0, None, 1.25])
    (tmp_path / "a.json").write_text(json.dumps(rows))
    with gzip.open(tmp_path / "b.json.gz", "wt") as file:
        json.dump(rows[::-1], file)
    first, second = AlpacaImporter(official=False).read([tmp_path / "a.json", tmp_path / "b.json.gz"])
    assert sorted(first.scores, key=repr) == sorted(second.scores, key=repr)
    assert mean(first, "win_rate") == pytest.approx((0 + 1 + 0.25) / 3)
    assert mean(first, "unparsed") == 0.25
    assert [metric.name for metric in first.metrics] == ["win_rate", "discrete_win_rate", "characters", "unparsed"]
    assert next(iter(first.answers.values())) == ("task 0", "the reference", "model" * 3)


def test_damaged_or_partial_annotations_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(annotations("model", [1.0])))
    with pytest.raises(DataError, match="has 1 instructions and AlpacaEval 805"):
        list(AlpacaImporter().read([path]))
    path.write_text(json.dumps(annotations("model", [1.0]) * 2))
    with pytest.raises(DataError, match="model: two annotations of one instruction"):
        list(AlpacaImporter(official=False).read([path]))
    path.write_text(json.dumps([{"instruction": "x"}]))
    with pytest.raises(DataError, match="annotation 1 has no 'annotator'"):
        list(AlpacaImporter().read([path]))
    path.write_text('{"instruction": "x"}')
    with pytest.raises(DataError, match=r"a\.json holds an object, and no list of annotations: give the annotations\.json"):
        list(AlpacaImporter().read([path]))
    path.write_text("{")
    with pytest.raises(DataError, match=r"a\.json cannot be read as annotations"):
        list(AlpacaImporter().read([path]))
    with pytest.raises(DataError, match=r"it has no df_gamed\.csv"):
        list(AlpacaImporter(difficulty=str(tmp_path)).read([path]))


def show_result(path: Path, mode: str = "single", **options: Any) -> dict[str, dict[str, dict[str, float]]]:
    """What FastChat's own show_result prints of a file: table -> model -> column -> number."""
    from fastchat.llm_judge import show_result as tool

    options = {"input_file": str(path), "bench_name": "mt_bench", "judge_model": "gpt-4", "model_list": None, **options}
    printed: list[Any] = []
    display = tool.display_result_single if mode == "single" else tool.display_result_pairwise
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tool, "print", lambda *values: printed.extend(values), raising=False)
        display(argparse.Namespace(mode=mode, **options))
    tables = [value.reset_index() for value in printed if hasattr(value, "reset_index")]
    names = ("turn_1", "turn_2", "average") if mode == "single" else ("pairs",)
    return {name: {row["model"]: row for row in table.to_dict("records")} for name, table in zip(names, tables, strict=True)}


@needs_reference
def test_real_judgments_give_what_fastchat_shows_but_where_it_averages_repeats() -> None:
    file = REFERENCE / "mt_bench" / "gpt-4_single.jsonl"
    printed = show_result(file)
    rows = {row.label: row for row in FastChatImporter().read([file])}
    assert sorted(rows) == ["mistral-orpo", "mistral-orpo-capybara", "mistral-orpo-mix", "mistral-orpo-trl"]
    for row in rows.values():
        shown = row.facts["show_result"]
        for figure in ("turn_1", "turn_2", "average"):
            assert shown[figure] == pytest.approx(printed[figure][row.label]["score"])
        assert row.evaluator == "mt_bench" and row.judge == "gpt-4"
        assert len(row.answers) == 0 and len({score.example for score in row.scores}) == 160
        assert {score.question for score in row.scores} == {f"mt_bench:{number}" for number in range(81, 161)}
    for label in sorted(rows)[1:]:
        shown = rows[label].facts["show_result"]
        assert [mean(rows[label], metric) for metric in ("turn_1", "turn_2", "score")] == pytest.approx(
            [shown[figure] for figure in ("turn_1", "turn_2", "average")]
        )
        assert rows[label].warnings == () and "repeats" not in rows[label].facts
    repeated = rows["mistral-orpo"]  # judged again, of other answers
    assert repeated.facts["repeats"] == {"left_out": 160, "changed": 100}
    assert repeated.facts["show_result"]["average"] == pytest.approx(5.858934, abs=1e-6)
    assert mean(repeated, "score") == pytest.approx(6.328125)
    assert repeated.warnings == (
        "160 of 320 judgments repeat earlier ones, and the last counts: 100 ratings changed by it; "
        "FastChat's show_result averages repeats, to 5.859 where this row has 6.328",
    )
    for line in (REFERENCE / "mt_bench" / "question.jsonl").read_text().splitlines():
        question = json.loads(line)
        own = [s for s in rows["mistral-orpo"].scores if s.metric == question["category"]]
        assert f"mt_bench:{question['question_id']}:1" in {score.example for score in own}
    assert round(rows["mistral-orpo-trl"].facts["show_result"]["average"], 6) == 7.165625


def test_judgments_become_scores_by_turn_and_category(tmp_path: Path) -> None:
    rows = [judgment("m", 81, 1, 8), judgment("m", 81, 1, 6), judgment("m", 81, 2, 4), judgment("m", 120, 1, -1)]
    (row,) = FastChatImporter().read([lines(tmp_path / "single.jsonl", rows)])
    assert [(score.example, score.metric, score.value) for score in row.scores if score.metric != "unparsed"] == [
        ("mt_bench:81:1", "score", 6.0),
        ("mt_bench:81:1", "turn_1", 6.0),
        ("mt_bench:81:1", "writing", 6.0),
        ("mt_bench:81:2", "score", 4.0),
        ("mt_bench:81:2", "turn_2", 4.0),
        ("mt_bench:81:2", "writing", 4.0),
    ]
    assert mean(row, "unparsed") == pytest.approx(1 / 3)
    assert [metric.name for metric in row.metrics] == ["score", "turn_1", "turn_2", "writing", "unparsed"]


def test_two_judges_of_one_answer_are_not_averaged(tmp_path: Path) -> None:
    rows = [judgment("m", question, 1, score, judge) for question in (81, 82) for judge, score in (("gpt-4", 8), ("claude", 2))]
    path = lines(tmp_path / "single.jsonl", rows)
    with pytest.raises(DataError, match=r"several judgments of one answer: .* --set judge=NAME \(claude, gpt-4\)"):
        list(FastChatImporter().read([path]))
    with pytest.raises(DataError, match=r"has no judgments by gpt-5: it has those of claude, gpt-4"):
        list(FastChatImporter(judge="gpt-5").read([path]))
    (row,) = FastChatImporter(judge="claude").read([path])
    assert (row.judge, mean(row, "score")) == ("claude", 2.0)
    assert list(FastChatImporter().read([lines(tmp_path / "empty.jsonl", [])])) == []
    parts = [judgment("m", 81, 1, 8, "gpt-4"), judgment("m", 82, 1, 6, "gpt-4-0613")]  # a version that changed on the way
    (row,) = FastChatImporter().read([lines(tmp_path / "single.jsonl", parts)])
    assert row.judge == "gpt-4, gpt-4-0613"


def test_vicuna_bench_is_told_by_its_questions(tmp_path: Path) -> None:
    (row,) = FastChatImporter().read([lines(tmp_path / "single.jsonl", [judgment("m", 5, 1, 8)])])
    assert row.evaluator == "vicuna_bench"
    assert [(score.example, score.metric) for score in row.scores] == [
        ("vicuna_bench:5:1", "unparsed"),
        ("vicuna_bench:5:1", "score"),
    ]


def pair(question: int, models: tuple[str, str], winners: tuple[str, str]) -> dict[str, Any]:
    return {
        "question_id": question, "model_1": models[0], "model_2": models[1], "g1_winner": winners[0],
        "g2_winner": winners[1], "judge": ["gpt-4", "pair-v2"], "turn": 1,
    }  # fmt: skip


PAIRS = [
    pair(81, ("new", "old"), ("model_1", "model_1")),
    pair(82, ("old", "new"), ("model_2", "model_2")),
    pair(83, ("old", "new"), ("model_1", "model_1")),
    pair(84, ("new", "old"), ("model_1", "model_2")),
    pair(85, ("new", "old"), ("error", "model_1")),
]


def test_pairs_are_turned_to_the_model_and_give_fastchats_figures(tmp_path: Path) -> None:
    path = lines(tmp_path / "pair.jsonl", PAIRS)
    (row,) = FastChatImporter(opponent="old").read([path])
    assert (row.label, row.judge, row.facts["opponents"]) == ("new", "gpt-4", {"pair": "old"})
    assert row.facts["show_result"] == {"win": 2, "loss": 1, "tie": 1, "unparsed": 1, "adjusted_win_rate": 0.625}
    assert mean(row, "win_rate") == 0.625
    assert (mean(row, "win"), mean(row, "loss"), mean(row, "unparsed")) == (0.5, 0.25, 0.1)
    printed = show_result(path, "pairwise-baseline", baseline_model="old")["pairs"]["new"]
    assert (printed["win"], printed["loss"], printed["tie"], printed["win_rate_adjusted"]) == (2, 1, 1, 0.625)
    with pytest.raises(DataError, match=r"--set opponent=odl: .*pair\.jsonl has pairs of new, old"):
        list(FastChatImporter(opponent="odl").read([path]))


def test_of_two_models_each_met_the_other(tmp_path: Path) -> None:
    path = lines(tmp_path / "pair.jsonl", PAIRS)
    rows = list(FastChatImporter().read([path]))
    assert [(row.label, row.facts["opponents"], mean(row, "win_rate")) for row in rows] == [
        ("new", {"pair": "old"}, 0.625),
        ("old", {"pair": "new"}, 0.375),
    ]
    new, old = ({s.example: s.value for s in row.scores if s.metric == "win_rate"} for row in rows)
    assert len(new) == 4 and {example: 1 - value for example, value in new.items()} == old
    printed = show_result(path, "pairwise-all", baseline_model=None)["pairs"]
    for row in rows:
        shown = row.facts["show_result"]
        assert [shown[name] for name in ("win", "loss", "tie")] == [printed[row.label][name] for name in ("win", "loss", "tie")]
    board = import_rows(rows, ImportRequest("fastchat", [path], "now"), "pairs")
    delta = board.row("old").scores["mt_bench/win_rate"].delta  # type: ignore[union-attr]
    assert board.baseline == "new" and delta is not None and delta.mean == pytest.approx(-0.25)
    assert board.warnings == ()  # that their opponents differ is what a pair is


def test_of_more_than_two_models_the_opponent_must_be_clear(tmp_path: Path) -> None:
    won, lost = ("model_1", "model_1"), ("model_2", "model_2")
    path = lines(tmp_path / "all.jsonl", [pair(81, ("a", "b"), won), pair(81, ("b", "c"), won), pair(81, ("c", "d"), lost)])
    with pytest.raises(DataError, match=r"say which model the others met, with --set opponent=MODEL \(a, b, c, d\)"):
        list(FastChatImporter().read([path]))
    a, c = FastChatImporter(opponent="b").read([path])
    assert (a.label, mean(a, "win_rate"), a.warnings) == ("a", 1.0, ("no row for d, which did not meet b",))
    assert (c.label, mean(c, "win_rate")) == ("c", 0.0)
    assert c.warnings == ("left out: 1 judgment against other models than b", *a.warnings)
    path = lines(tmp_path / "one.jsonl", [pair(81, ("a", "old"), won), pair(81, ("old", "b"), won)])
    assert [(row.label, mean(row, "win_rate")) for row in FastChatImporter().read([path])] == [("a", 1.0), ("b", 0.0)]
    with pytest.raises(DataError, match=r"self\.jsonl:1 compares 'a' with itself"):
        list(FastChatImporter().read([lines(tmp_path / "self.jsonl", [pair(81, ("a", "a"), won)])]))


def test_what_was_judged_again_is_said_of_ratings_and_of_pairs_in_either_order(tmp_path: Path) -> None:
    rows = [judgment("m", 81, 1, 8), judgment("m", 82, 1, 5), judgment("m", 81, 1, 4), judgment("m", 82, 1, 5)]
    path = lines(tmp_path / "single.jsonl", rows)
    (row,) = FastChatImporter().read([path])
    assert mean(row, "score") == 4.5 and row.facts["repeats"] == {"left_out": 2, "changed": 1}
    assert row.facts["show_result"]["average"] == show_result(path)["average"]["m"]["score"] == 5.5
    assert row.warnings == (
        "2 of 4 judgments repeat earlier ones, and the last counts: 1 rating changed by it; "
        "FastChat's show_result averages repeats, to 5.5 where this row has 4.5",
    )
    again = pair(81, ("old", "new"), ("model_1", "model_1"))  # the first of PAIRS, in the other order: now lost
    path = lines(tmp_path / "pair.jsonl", [*PAIRS, again])
    (row,) = FastChatImporter(opponent="old").read([path])
    assert len({score.example for score in row.scores}) == 5 and mean(row, "win_rate") == 0.375
    assert row.facts["repeats"] == {"left_out": 1, "changed": 1}
    printed = show_result(path, "pairwise-baseline", baseline_model="old")["pairs"]["new"]
    assert row.facts["show_result"]["adjusted_win_rate"] == printed["win_rate_adjusted"] == 0.5
    assert row.warnings == (
        "1 of 6 judgments repeat earlier ones, and the last counts: 1 verdict changed by it; "
        "FastChat's show_result counts repeats",
    )


def test_ratings_off_the_scale_are_flagged_and_counted_as_fastchat_counts_them(tmp_path: Path) -> None:
    rows = [judgment("m", 81, 1, 8), judgment("m", 81, 2, 85), judgment("m", 82, 1, 0), judgment("m", 82, 2, -1)]
    path = lines(tmp_path / "single.jsonl", rows)
    (row,) = FastChatImporter().read([path])
    assert mean(row, "score") == show_result(path)["average"]["m"]["score"] == 31
    assert row.warnings == (
        "2 of 4 ratings are not from 1 to 10 (the first is 85, of question 81, turn 2, in single.jsonl:2): "
        "they count as they are, as in FastChat",
    )
    (row,) = FastChatImporter().read(
        [lines(tmp_path / "single.jsonl", [judgment("m", 81, turn, s) for turn, s in ((1, 1), (2, 10))])]
    )
    assert row.warnings == ()


ODD_NUMBERS = (("NaN", "NaN"), ("Infinity", "Infinity"), ("-Infinity", "-Infinity"), ("1e999", "Infinity"))


@pytest.mark.parametrize(("written", "shown"), ODD_NUMBERS)
def test_numbers_that_are_not_finite_are_named_with_file_row_and_field(tmp_path: Path, written: str, shown: str) -> None:
    single = json.dumps(judgment("m", 81, 1, 8))
    for field, old in (("score", '"score": 8'), ("question_id", '"question_id": 81'), ("turn", '"turn": 1')):
        path = tmp_path / "single.jsonl"
        path.write_text(f"{single}\n{single.replace(old, old.partition(':')[0] + f': {written}')}\n")
        with pytest.raises(DataError, match=rf"single\.jsonl:2 {field} = {shown}, which is no finite number: give judgments"):
            list(FastChatImporter().read([path]))
    row = json.dumps(annotations("model", [1.25])[0])
    fields = [("output_2", '"modelmodelmodel"'), *([("preference", "1.25")] if written != "NaN" else [])]
    for field, old in fields:
        path = tmp_path / "annotations.json"
        path.write_text(f"[{row}, {row.replace(old, written)}]")
        with pytest.raises(
            DataError, match=rf"annotation 2 {field} = {shown}, which is no finite number: give the annotations"
        ):
            list(AlpacaImporter(official=False).read([path]))


def test_a_preference_of_nan_is_unread_as_null_is(tmp_path: Path) -> None:
    """pandas writes an unread judgment as null, and json.dumps of the same table as NaN."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps(annotations("mine", [1.0, float("nan"), None, 1.5])))
    (row,) = AlpacaImporter(official=False).read([path])
    assert mean(row, "unparsed") == 0.5 and mean(row, "win_rate") == 0.25
    assert row.warnings[0] == "preference = NaN in 1 annotation (the first is number 2): counted as unread, like null"
    path.write_text(json.dumps(annotations("mine", [None, float("nan")])))
    with pytest.raises(DataError, match=r"a\.json, mine: no preference is a number: the annotator's answers"):
        list(AlpacaImporter(official=False).read([path]))
    path.write_text(json.dumps(annotations("mine", [1.0, 0.5])))
    with pytest.raises(DataError, match=r"annotation 2 preference = 0\.5: it should be from 1"):
        list(AlpacaImporter(official=False).read([path]))


def test_a_standard_error_of_nan_is_left_out_and_said(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(annotations("mine", [1.75])))
    (row,) = AlpacaImporter(official=False).read([path])
    assert "standard_error" not in row.facts["alpaca_eval"] and row.facts["alpaca_eval"]["win_rate"] == 75
    assert row.warnings[0] == "no standard_error: alpaca_eval gives NaN, as it does for a single readable verdict"
    import_rows([row], ImportRequest("alpaca_eval", [path], "now"), "one").write(tmp_path / "board")
    assert Board.read(tmp_path / "board").row("mine") is not None


def write_annotations(path: Path, model: str, annotator: str = "an_annotator") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([{**row, "annotator": annotator} for row in annotations(model, [1.0, 2.0])]))
    return path


def test_a_row_is_named_by_its_place_where_the_generator_tells_nothing(tmp_path: Path) -> None:
    """`example` is what the published annotations of NullModel say."""
    importer = AlpacaImporter(official=False)
    first = write_annotations(tmp_path / "results/NullModel/an_annotator/annotations.json", "example")
    second = write_annotations(tmp_path / "results/mine/annotations.json", "Current model")
    third = write_annotations(tmp_path / "results/phi.json", "")
    fourth = write_annotations(tmp_path / "results/plain/annotations.json", "plain name")
    rows = list(importer.read([first, second, third, fourth]))
    assert {row.label: row.warnings[0].partition(",")[0] for row in rows} == {
        "NullModel": "named by its file or folder", "mine": "named by its file or folder", "phi": "named by its file or folder",
        "plain name": "there is no length-controlled win rate",
    }  # fmt: skip
    assert "since the file names the model 'example'" in next(row for row in rows if row.label == "NullModel").warnings[0]
    assert sorted(row.label for row in importer.read([tmp_path])) == ["NullModel", "mine", "plain name"]  # a folder's
    assert [row.files for row in importer.read([first, tmp_path / "results/../results/NullModel"])] == [(first,)]  # a file once
    board = import_rows(rows, ImportRequest("alpaca_eval", [tmp_path], "now"), "named")
    assert {row.method for row in board.rows} == {"NullModel", "mine", "phi", "plain name"}


def test_rows_of_files_that_share_a_generators_name_are_told_apart_by_their_places(tmp_path: Path) -> None:
    importer = AlpacaImporter(official=False)
    paths = [write_annotations(tmp_path / f"{run}/an_annotator/annotations.json", "mistral") for run in ("sft", "dpo")]
    alone = write_annotations(tmp_path / "other/an_annotator/annotations.json", "llama")
    rows = list(importer.read([*paths, alone]))
    assert sorted(row.label for row in rows) == ["dpo", "llama", "sft"]
    assert "since several files name it 'mistral'" in next(row for row in rows if row.label == "sft").warnings[0]
    judges = [write_annotations(tmp_path / f"m/{judge}/annotations.json", "m", judge) for judge in ("weighted", "plain")]
    assert sorted(row.label for row in importer.read(judges)) == ["plain/annotations.json", "weighted/annotations.json"]
    both = [{**row, "generator_2": name} for name in ("x", "y") for row in annotations(name, [1.0, 2.0])]
    for name in ("one", "two"):
        (tmp_path / f"{name}.json").write_text(json.dumps(both))
    labels = sorted(row.label for row in importer.read([tmp_path / "one.json", tmp_path / "two.json"]))
    assert labels == ["one: x", "one: y", "two: x", "two: y"]
    with pytest.raises(DataError, match=r"holds no annotations\.json"):
        list(importer.read([tmp_path / "nothing"] if (tmp_path / "nothing").mkdir() is None else []))


@needs_reference
def test_published_sets_that_lack_a_few_instructions_are_read_with_a_warning(tmp_path: Path) -> None:
    (source,) = (REFERENCE / "alpaca_eval" / "annotations").glob("alpaca-7b.json.gz")
    with gzip.open(source) as file:
        rows = json.load(file)
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps([row for number, row in enumerate(rows, start=1) if number not in (132, 210)][::-1]))
    (row,) = AlpacaImporter().read([path])
    assert row.warnings[0] == (
        "803 of AlpacaEval's 805 instructions, so all figures are over these: "
        "the file lacks numbers 132, 210 of the official order"
    )
    assert row.facts["alpaca_eval"]["n_total"] == len({score.example for score in row.scores}) == 803
    (whole,) = AlpacaImporter().read([source])
    lacking = {score.example for score in whole.scores} - {score.example for score in row.scores}
    assert len(lacking) == 2
    kept = [score.value for score in whole.scores if score.metric == "win_rate" and score.example not in lacking]
    assert mean(row, "win_rate") == pytest.approx(sum(kept) / 803)
    path.write_text(json.dumps([row for number, row in enumerate(rows, start=1) if number != 805]))
    (row,) = AlpacaImporter().read([path])
    assert row.warnings[0].endswith("the file lacks number 805 of the official order")
    path.write_text(json.dumps(rows[:801]))
    with pytest.raises(DataError, match="has 801 instructions and AlpacaEval 805"):
        list(AlpacaImporter().read([path]))
    path.write_text(json.dumps([{**rows[0], "instruction": "Another one"}, *rows[1:803]]))
    with pytest.raises(DataError, match=r"803 instructions, and 1 of them are not AlpacaEval's \(the first is 'Another one'\)"):
        list(AlpacaImporter().read([path]))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.jsonl:1 has no 'question_id'"):
        list(FastChatImporter().read([lines(tmp_path / "x.jsonl", [{"a": 1}])]))
    with pytest.raises(DataError, match=r"holds no results_\*\.json"):
        list(LmEvalImporter().read([tmp_path]))
    (tmp_path / "results_1.json").write_text("{}")
    with pytest.raises(DataError, match="cannot be read as lm-eval's results"):
        list(LmEvalImporter().read([tmp_path]))
