"""FastChat's files: fetched before anything runs, once, and checked; what is not there or not as it should be."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness import DataError
from harness.api.registry import Registry
from harness.config import prepare_evaluators, resolve
from harness.errors import ConfigError
from harness.run.compare import RunOptions, compare
from harness.run.plan import plan
from harness_plugins.evaluators.fastchat import files as fastchat
from harness_plugins.evaluators.fastchat.mt_bench import MtBench, VicunaBench

DATA = os.environ.get("HARNESS_REFERENCE_DATA")
REFERENCE = Path(DATA or ".") / "mt_bench"
needs_reference = pytest.mark.skipif(DATA is None, reason="HARNESS_REFERENCE_DATA is not set")


@needs_reference
def test_the_pinned_hashes_are_those_of_the_copies_at_hand() -> None:
    for published, path in (
        (fastchat.MT_QUESTIONS, REFERENCE / "question.jsonl"),
        (fastchat.MT_REFERENCES, REFERENCE / "reference_answer_gpt-4.jsonl"),
        (fastchat.PROMPTS, REFERENCE / "judge_prompts.jsonl"),
        (fastchat.VICUNA_QUESTIONS, REFERENCE.parent / "vicuna_bench" / "question.jsonl"),
    ):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == published.sha256


def test_absent_files_are_named_with_the_fix(tmp_path: Path) -> None:
    bench = MtBench(
        questions=str(tmp_path / "none.jsonl"), prompts=str(tmp_path / "none"), mode=("single", "pair"), opponent="x.jsonl"
    )
    said = dict(bench.problems())
    assert set(said) == {"questions", "prompts", "references", "opponent"}
    assert said["questions"].endswith("give the path of FastChat's; or set `fetch: true`")
    assert "fetch" not in said["opponent"]
    fetching = MtBench(questions=str(tmp_path / "q"), prompts=str(tmp_path / "p"), references=str(tmp_path / "r"), fetch=True)
    assert fetching.problems() == []
    assert fetching.fingerprint() == MtBench(questions="a", prompts="b", references="c", fetch=True).fingerprint()


def test_what_cannot_be_fetched_is_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data" / "question.jsonl"
    monkeypatch.setattr(fastchat, "ADDRESS", (tmp_path / "nowhere").as_uri())
    with pytest.raises(DataError, match=r"is not there and file:.* cannot be fetched .*put a copy there"):
        fastchat.fetch(path, fastchat.MT_QUESTIONS)
    (tmp_path / "nowhere" / "mt_bench").mkdir(parents=True)
    (tmp_path / "nowhere" / "mt_bench" / "question.jsonl").write_text("tampered")
    with pytest.raises(DataError, match="expected 119565adba"):
        fastchat.fetch(path, fastchat.MT_QUESTIONS)
    assert not path.exists()


def test_a_row_without_its_fields_is_named(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"question_id": 1, "choices": []}\n{"question_id": 2}\n')
    with pytest.raises(DataError, match=r"answers.jsonl:2 has no 'choices'"):
        fastchat.read_answers(path)
    path.write_text("{")
    with pytest.raises(DataError, match=r"answers.jsonl:1 is not JSON"):
        fastchat.read_answers(path)


@pytest.fixture
def raw(tiny_checkpoint: Path) -> dict[str, Any]:
    return {
        "name": "a",
        "source": {"name": "sandbox", "sft": 8, "train": 8, "tuning": 4, "heldout": 4},
        "model": {"path": str(tiny_checkpoint)},
        "methods": ["sft", "dpo"],
        "budget": {"prompts": 4},
        "judge": {"model": "m", "api_key_env": None, "price": {"input": 0, "output": 0}},
        "evaluators": [{"name": "mt_bench", "fetch": True}],
        "baseline": "sft",
    }


class BegunError(Exception):
    """The executor is made: stages would run now."""


def begin(workers: int, settings: Any, folder: Path) -> Any:
    raise BegunError


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where files are fetched from; the working folder is empty."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(fastchat, "ADDRESS", (tmp_path / "site").as_uri())
    return tmp_path / "site"


def publish(site: Path) -> None:
    for published, name in (
        (fastchat.MT_QUESTIONS, "question.jsonl"),
        (fastchat.MT_REFERENCES, "reference_answer_gpt-4.jsonl"),
        (fastchat.PROMPTS, "judge_prompts.jsonl"),
    ):
        (site / published.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REFERENCE / name, site / published.path)


def run(raw: dict[str, Any], site: Path) -> None:
    compare(raw, folder=site.parent / "run", store=site.parent / "store", workers=1, options=RunOptions(executor=begin))


@needs_reference
def test_files_are_fetched_before_anything_runs(raw: dict[str, Any], site: Path) -> None:
    publish(site)
    with pytest.raises(BegunError):
        run(raw, site)
    assert Path("data/mt_bench/question.jsonl").is_file()
    assert Path("data/mt_bench/reference_answer/gpt-4.jsonl").is_file()
    assert [path.name for path in Path("data").rglob("*.part")] == []


def test_what_cannot_be_fetched_ends_the_run_before_it_begins(raw: dict[str, Any], site: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluators.0 = 'mt_bench': data/mt_bench/question.jsonl is not there and file:"):
        run(raw, site)
    assert not (site.parent / "run").exists()


def test_a_plan_fetches_nothing_and_neither_does_a_run_with_nothing_left_to_score(
    raw: dict[str, Any], site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastchat, "fetch", lambda path, published: pytest.fail(f"{path} was fetched"))
    comparison = resolve(raw, Registry.load(), offline=True)
    plan(comparison)
    assert prepare_evaluators(comparison, ()) == []


@needs_reference
def test_two_that_fetch_one_file_do_not_meet(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(site)
    path, replace, fetched = Path("data/question.jsonl"), Path.replace, []

    def late(part: Path, target: Path) -> Path:
        if not fetched:
            fetched.append(part)
            fastchat.fetch(path, fastchat.MT_QUESTIONS)  # another process, between the first's writing and its moving
        return replace(part, target)

    monkeypatch.setattr(Path, "replace", late)
    fastchat.fetch(path, fastchat.MT_QUESTIONS)
    assert [found.name for found in path.parent.iterdir()] == ["question.jsonl"]


@needs_reference
def test_a_copy_where_files_are_fetched_to_must_be_fastchats(site: Path) -> None:
    publish(site)
    bench = MtBench(fetch=True)
    bench.prepare()
    assert bench.problems() == []
    path = Path(bench.questions)
    path.write_text("half a file")
    ((field, fix),) = bench.problems()
    assert field == "questions"
    assert "expected 119565adba" in fix and fix.endswith("fetched again, or give the path of a copy of your own")
    path.rename("mine.jsonl")
    assert MtBench(fetch=True, questions="mine.jsonl").problems() == []
    Path("mine.jsonl").rename(path)
    assert MtBench().problems() == []  # without `fetch` the files are the user's


@needs_reference
def test_a_place_that_cannot_be_written_is_named(site: Path) -> None:
    publish(site)
    Path("data").write_text("no folder")
    with pytest.raises(DataError, match=r"data/question.jsonl cannot be written \(.*\): give a path that can"):
        fastchat.fetch(Path("data/question.jsonl"), fastchat.MT_QUESTIONS)


def test_a_reference_of_vicuna_bench_has_no_pinned_hash_and_is_not_fetched(site: Path) -> None:
    said = dict(VicunaBench(fetch=True, references="none.jsonl").problems())
    assert said == {"references": "there is no such file: give the path of FastChat's"}
