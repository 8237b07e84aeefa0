"""The judges' answers on disk: what a torn or damaged file holds, what a full disk leaves."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import closing
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
from models.judge.bench import Bench, FullDisk, always, files_of_answers

from harness.api.types import JudgeAnswer
from harness.errors import StoreError, StoreWriteError
from harness.models.judge import answer_files
from harness.models.judge.answers import JudgeAnswers, JudgeCost, Kept

COST = JudgeCost(1, 10, 0.5)


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[JudgeAnswers]:
    with closing(JudgeAnswers(tmp_path, "run")) as opened:
        yield opened


def kept(*texts: str, of: str = "") -> list[Kept]:
    """Answers to the questions `texts`, which say the same."""
    return [Kept(of + text, {"asked": text}, JudgeAnswer(text, "judge"), COST) for text in texts]


def found(folder: Path, *keys: str) -> dict[str, str]:
    with closing(JudgeAnswers(folder, "run")) as answers:
        return {key: answer.text for key, answer in answers.find(keys).items()}


def spent(folder: Path, run: str = "run") -> JudgeCost:
    with closing(JudgeAnswers(folder, run)) as answers:
        return answers.spent()


def test_an_answer_comes_back_as_it_was_with_its_cost(answers: JudgeAnswers, tmp_path: Path) -> None:
    said = JudgeAnswer('[[A]]\n"," é\u2028', "judge", "length", 7, 3, (("A", -0.25), ("\n", -9999.0)))
    answers.keep([Kept("key", {"asked": '","'}, said, COST)], JudgeCost(2, 30, 1.0))
    assert answers.find(["key", "other"]) == {"key": said}
    assert answers.spent() == spent(tmp_path) == JudgeCost(3, 40, 1.5)
    assert spent(tmp_path, "another run") == JudgeCost()
    for line in files_of_answers(tmp_path)[0].read_text().split("\n")[:-1]:
        assert json.loads(line).keys() >= {"checksum", "run", "cost", "at"}


def test_a_process_has_one_file_and_reading_makes_none(tmp_path: Path) -> None:
    assert found(tmp_path, "a") == {}
    assert list(tmp_path.iterdir()) == []
    for text in "ab":
        with closing(JudgeAnswers(tmp_path, "run")) as answers:
            answers.keep(kept(text), JudgeCost())
    assert len(files_of_answers(tmp_path)) == 1
    assert f"-{os.getpid()}-" in files_of_answers(tmp_path)[0].name


def test_two_that_write_at_once_in_one_process_have_a_file_each(answers: JudgeAnswers, tmp_path: Path) -> None:
    with closing(JudgeAnswers(tmp_path, "run")) as other:
        answers.keep(kept("a"), JudgeCost())
        other.keep(kept("b"), JudgeCost())
        assert len(files_of_answers(tmp_path)) == 2
        assert answers.find("ab") == other.find("ab")
        assert answers.spent() == other.spent() == COST + COST


@pytest.mark.parametrize("torn", [lambda line: line[:-1], lambda line: line[:20], lambda line: bytes(30) + line[30:]])
def test_a_line_that_is_being_written_is_found_when_it_is_whole(answers: JudgeAnswers, tmp_path: Path, torn: Any) -> None:
    answers.keep(kept("a", "b"), JudgeCost())
    (path,) = files_of_answers(tmp_path)
    whole = path.read_bytes()
    first, last = whole.splitlines(keepends=True)
    path.write_bytes(first + torn(last))
    assert answers.find("ab").keys() == {"a"}
    assert answers.spent() == COST
    path.write_bytes(whole)
    assert answers.find("ab").keys() == {"a", "b"}
    assert answers.spent() == COST + COST


def test_a_torn_line_of_a_dead_process_is_in_nobodys_way(answers: JudgeAnswers, tmp_path: Path) -> None:
    answers.keep(kept("a"), JudgeCost())
    (path,) = files_of_answers(tmp_path)
    dead = path.with_name("elsewhere-1-0.jsonl")
    dead.write_bytes(path.read_bytes().replace(b'"a"', b'"c"')[:-9])
    answers.keep(kept("b"), JudgeCost())
    assert found(tmp_path, *"abc") == {"a": "a", "b": "b"}


def test_damage_is_an_error_that_names_the_file_and_moving_it_away_mends_it(bench: Bench) -> None:
    bench.judge().judge(*always("a", "b", "c"))
    (path,) = files_of_answers(bench.folder / "store")
    path.write_bytes(path.read_bytes().replace(b"Rating", b"rating", 1))
    with pytest.raises(StoreError, match=rf"{path} is damaged at byte 0: move it away, and judges are asked again"):
        bench.judge().judge(*always("a"))
    path.rename(bench.folder / path.name)
    bench.judge().judge(*always("a"))
    assert bench.server.asked == {"a": 2, "b": 1, "c": 1}


def test_a_file_that_is_damaged_after_it_was_looked_at_gives_no_answer(answers: JudgeAnswers, tmp_path: Path) -> None:
    answers.keep(kept("a", "b"), JudgeCost())
    assert answers.spent() == COST + COST
    (path,) = files_of_answers(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"judge", b"fudge"))
    with pytest.raises(StoreError, match=rf"{path} is damaged at byte"):
        answers.find("b")


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
@pytest.mark.parametrize(("ats", "first"), [((2.0, 1.0), 1), ((1.0, 2.0), 0), ((1.0, 1.0), None)])
def test_of_two_answers_the_earliest_counts_for_every_reader(
    answers: JudgeAnswers, tmp_path: Path, names: tuple[str, str], ats: tuple[float, float], first: int | None
) -> None:
    for text, name, at in zip(("one", "two"), names, ats, strict=True):
        (tmp_path / text).mkdir()
        with closing(JudgeAnswers(tmp_path / text, "run")) as writer:
            writer.keep([Kept("key", {}, JudgeAnswer(text, "judge"), COST)], JudgeCost())
        (path,) = files_of_answers(tmp_path / text)
        row = json.loads(path.read_text())
        del row["checksum"]
        (tmp_path / "judgments").mkdir(exist_ok=True)
        (tmp_path / "judgments" / f"{name}.jsonl").write_bytes(answer_files.line_of({**row, "at": at}))
        answers.find(["key"])  # a reader that has seen one of them
    expected = ("one", "two")[names.index("a") if first is None else first]
    assert answers.find(["key"])["key"].text == expected
    assert found(tmp_path, "key") == {"key": expected}
    assert answers.spent() == COST + COST  # both were paid for


@pytest.mark.parametrize("room", [0, 1, 300, 500, 1000])
def test_a_disk_that_is_full_in_the_middle_of_a_batch_spoils_no_later_answer(
    answers: JudgeAnswers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    texts = [f"before {number}" for number in range(20)]
    with monkeypatch.context() as full:
        full.setattr(answer_files, "FileIO", FullDisk)
        full.setattr(FullDisk, "room", room)
        with pytest.raises(StoreWriteError, match=r"judgments/.* \(No space left on device\): make room .* --store"):
            answers.keep(kept(*texts), JudgeCost())
    (path,) = files_of_answers(tmp_path)
    assert path.stat().st_size == room
    whole = path.read_bytes().count(b"\n")
    assert answers.spent().calls == whole == len(answers.find(texts))  # what was written whole is paid for and there
    answers.keep(kept("after"), JudgeCost())
    assert answers.find(["after"]).keys() == found(tmp_path, "after").keys() == {"after"}
    assert path.stat().st_size == room
    assert spent(tmp_path).calls == whole + 1


def failing(number: int) -> type[FileIO]:
    class Failing(FileIO):
        def write(self, data: Any) -> int:
            raise OSError(number, os.strerror(number))

    return Failing


@pytest.mark.parametrize(
    ("number", "error"), [(errno.EROFS, StoreWriteError), (errno.EDQUOT, StoreWriteError), (errno.EIO, StoreError)]
)
def test_a_folder_that_cannot_be_written_can_still_be_read(
    answers: JudgeAnswers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[StoreError]
) -> None:
    answers.keep(kept("a"), JudgeCost())
    with closing(JudgeAnswers(tmp_path, "run")) as other:
        monkeypatch.setattr(answer_files, "FileIO", failing(number))
        assert other.find("ab").keys() == {"a"}
        with pytest.raises(StoreError, match=rf"written to {tmp_path}/judgments/.*{os.strerror(number)}") as raised:
            other.keep(kept("b"), JudgeCost())
        assert type(raised.value) is error


def test_an_answer_that_was_not_flushed_is_not_kept(
    answers: JudgeAnswers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system may say only then that it is full."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as unflushed:
        unflushed.setattr(os, "fsync", full)
        with pytest.raises(StoreWriteError, match="make room"):
            answers.keep(kept("a"), JudgeCost())
    answers.keep(kept("b"), JudgeCost())
    assert len(files_of_answers(tmp_path)) == 2


def test_what_is_no_folder_is_an_error_that_names_it(answers: JudgeAnswers, tmp_path: Path) -> None:
    (tmp_path / "judgments").write_text("")
    with pytest.raises(StoreError, match=rf"{tmp_path}/judgments cannot be read \(Not a directory\): .*move it away"):
        answers.find("a")
    with pytest.raises(StoreError, match=rf"cannot be written to {tmp_path}/judgments \(File exists\)"):
        answers.keep(kept("a"), JudgeCost())


def test_what_interrupts_writing_goes_through(answers: JudgeAnswers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is not the system's is no error of the store, and is not swallowed; later answers are kept."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(answer_files, "_write", interrupted)
        answers.keep(kept("a"), JudgeCost())
    answers.keep(kept("b"), JudgeCost())
    assert found(tmp_path, "a", "b") == {"b": "b"}
