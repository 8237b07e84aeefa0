"""What AlpacaEval, FastChat and lm-eval leave, read for a board; real files where they are at hand."""

from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from harness import DataError, Imported
from harness_plugins.evaluators import AlpacaImporter, FastChatImporter, LmEvalImporter
from harness_plugins.evaluators.alpaca_package import package

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
    with pytest.raises(DataError, match="model has two annotations of one instruction"):
        list(AlpacaImporter(official=False).read([path]))
    path.write_text(json.dumps([{"instruction": "x"}]))
    with pytest.raises(DataError, match="annotation 1 has no 'annotator'"):
        list(AlpacaImporter().read([path]))
    path.write_text("{")
    with pytest.raises(DataError, match=r"a\.json cannot be read as annotations"):
        list(AlpacaImporter().read([path]))
    with pytest.raises(DataError, match=r"it has no df_gamed\.csv"):
        list(AlpacaImporter(difficulty=str(tmp_path)).read([path]))


@needs_reference
def test_real_judgments_give_what_fastchat_shows() -> None:
    rows = {row.label: row for row in FastChatImporter().read([REFERENCE / "mt_bench" / "gpt-4_single.jsonl"])}
    assert sorted(rows) == ["mistral-orpo", "mistral-orpo-capybara", "mistral-orpo-mix", "mistral-orpo-trl"]
    for row in rows.values():
        shown = row.facts["show_result"]
        assert row.evaluator == "mt_bench" and row.judge == "gpt-4"
        assert len(row.answers) == 0 and len({score.example for score in row.scores}) == 160
        assert mean(row, "turn_1") == pytest.approx(shown["turn_1"])
        assert mean(row, "turn_2") == pytest.approx(shown["turn_2"])
        assert mean(row, "score") == pytest.approx(shown["average"])
        assert {score.question for score in row.scores} == {f"mt_bench:{number}" for number in range(81, 161)}
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


def test_pairs_are_turned_to_the_model_and_give_fastchats_figures(tmp_path: Path) -> None:
    def pair(question: int, models: tuple[str, str], winners: tuple[str, str]) -> dict[str, Any]:
        return {
            "question_id": question, "model_1": models[0], "model_2": models[1], "g1_winner": winners[0],
            "g2_winner": winners[1], "judge": ["gpt-4", "pair-v2"], "turn": 1,
        }  # fmt: skip

    rows = [
        pair(81, ("new", "old"), ("model_1", "model_1")),
        pair(82, ("old", "new"), ("model_2", "model_2")),
        pair(83, ("old", "new"), ("model_1", "model_1")),
        pair(84, ("new", "old"), ("model_1", "model_2")),
        pair(85, ("new", "old"), ("error", "model_1")),
    ]
    (row,) = FastChatImporter(opponent="old").read([lines(tmp_path / "pair.jsonl", rows)])
    assert (row.label, row.judge, row.facts["opponents"]) == ("new", "gpt-4", {"pair": "old"})
    assert row.facts["show_result"] == {"win": 2, "loss": 1, "tie": 1, "unparsed": 1, "adjusted_win_rate": 0.625}
    assert mean(row, "win_rate") == 0.625
    assert (mean(row, "win"), mean(row, "loss"), mean(row, "unparsed")) == (0.5, 0.25, 0.1)
    with pytest.raises(DataError, match="say which model the others met"):
        list(FastChatImporter().read([tmp_path / "pair.jsonl"]))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.jsonl:1 has no 'question_id'"):
        list(FastChatImporter().read([lines(tmp_path / "x.jsonl", [{"a": 1}])]))
    with pytest.raises(DataError, match=r"holds no results_\*\.json"):
        list(LmEvalImporter().read([tmp_path]))
    (tmp_path / "results_1.json").write_text("{}")
    with pytest.raises(DataError, match="cannot be read as lm-eval's results"):
        list(LmEvalImporter().read([tmp_path]))
