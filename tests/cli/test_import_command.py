"""`harness import` as a user meets it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command in this process: (exit code, standard output, standard error)."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the test's own handlers stay

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["harness", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return int(left.value.code or 0), out, err

    return run


@pytest.fixture
def judgments(tmp_path: Path) -> Path:
    path = tmp_path / "gpt-4_single.jsonl"
    rows = [
        {"question_id": question, "model": model, "judge": ["gpt-4", "single-v1"], "turn": turn, "score": score + turn}
        for model, score in (("old", 3), ("new", 6))
        for question in range(81, 101)
        for turn in (1, 2)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_judgments_become_a_board_that_holds(judgments: Path, tmp_path: Path, harness: Any) -> None:
    out = tmp_path / "board"
    options = ("--out", str(out), "--baseline", "old", "--label", "new=New model")
    code, printed, err = harness("import", "fastchat", str(judgments), *options)
    assert (code, err) == (0, "")
    assert "New model" in printed and "baseline" in printed
    board = json.loads((out / "board.json").read_text())
    assert [(row["method"], row["kind"]) for row in board["rows"]] == [("New model", "imported"), ("old", "imported")]
    assert board["rows"][0]["scores"]["mt_bench/score"]["delta"]["mean"] == 3.0
    assert board["rows"][0]["provenance"]["imported"][0]["files"][0]["name"] == "gpt-4_single.jsonl"
    assert (out / "index.html").is_file()
    assert harness("verify", str(out))[0] == 1  # imported rows never count as verified


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fast-chat", "FILE"), "no importer is called 'fast_chat'"),
        (("fastchat", "no.jsonl"), "no.jsonl cannot be read"),
        (("fastchat", "FILE", "--label", "newer=x"), "the files have no row 'newer'"),
        (("fastchat", "FILE", "--label", "x"), "write OLD=NEW"),
        (("fastchat", "FILE", "--set", "jugde=x"), "`harness plugins show fastchat` lists the fields"),
        (("fastchat", "FILE", "--set", "judge=x"), "has no judgments by x: it has those of gpt-4"),
        (("fastchat", "FILE", "--baseline", "olt"), "the baseline 'olt' is not a row of the board"),
    ],
)
def test_mistakes_are_said(judgments: Path, tmp_path: Path, harness: Any, arguments: tuple[str, ...], message: str) -> None:
    given = [str(judgments) if text == "FILE" else text for text in arguments]
    code, out, err = harness("import", *given, "--out", str(tmp_path / "board"))
    assert code != 0 and out == ""
    assert message in err
    assert not (tmp_path / "board").exists()
