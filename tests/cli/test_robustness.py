"""The command line in scripts and pipes: quiet where nobody listens, one message where something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from harness.cli import app

MAIN = "from harness.cli import main; main()"
HARNESS = [sys.executable, "-c", MAIN]


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*HARNESS, *arguments], capture_output=True, text=True, cwd=folder)


@pytest.mark.parametrize("arguments", [["plugins", "list"], ["sandbox", "show", "--count", "200"]])
def test_a_reader_that_has_gone_is_no_error(arguments: list[str], tmp_path: Path) -> None:
    """As in `harness plugins list | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*HARNESS, *arguments], stdout=writing, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode in (0, 1, 141)


def test_no_terminal_no_escape_sequences(tmp_path: Path) -> None:
    done = run("plugins", "list", folder=tmp_path)
    assert done.returncode == 0 and "\x1b" not in done.stdout + done.stderr
    done = run("plugins", "list", "--kind", "x", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --kind 'x'") and "\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "--workers", "none"], "Invalid value for '--workers'"),
        (["plan", "--set"], "Option '--set' requires an argument"),
        (["cache", "import"], "Missing argument"),
        (["merge", "a"], "Missing option '--out'"),
        (["plan", "a.yaml", "b.yaml"], "unexpected extra argument"),
    ],
)
def test_a_bad_flag_is_one_error(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = run(*arguments, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["file/x", "file"], ids=["below a file", "a file"])
def test_an_out_that_is_no_folder(out: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    rows = {"question_id": 81, "model": "m", "judge": ["gpt-4", "single-v1"], "turn": 1, "score": 3}
    (tmp_path / "judgments.jsonl").write_text(json.dumps(rows) + "\n")
    done = run("import", "fastchat", "judgments.jsonl", "--out", out, folder=tmp_path)
    assert (done.returncode, done.stdout) == (4, "")
    assert "cannot be written" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_names_with_path_parts_choose_no_place(tmp_path: Path) -> None:
    rows = [
        {"question_id": 81, "model": model, "judge": ["../../judge"], "turn": 1, "score": 3} for model in ("../../up", "/abs")
    ]
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "j.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run("import", "fastchat", "j.jsonl", "--out", "out", "--label", "/abs=../../x", folder=tmp_path / "here")
    assert done.returncode == 0, done.stderr
    done = run("publish", "out", "--to", "site", folder=tmp_path / "here")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here"]
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["j.jsonl", "out", "site"]


NO_JSON = {
    "sandbox train",
    "sandbox train-reward",
    "sandbox serve-judge",
    "sign",
    "view",
}  # a folder, a file or a server


def test_every_command_that_tells_something_tells_scripts_too() -> None:
    group = typer.main.get_command(app)
    commands = {}
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        commands |= {f"{name} {sub}": found for sub, found in inner.items()} if inner else {name: command}
    without = {
        name for name, command in commands.items() if not any("--json" in parameter.opts for parameter in command.params)
    }
    assert without == NO_JSON
    assert all("Example" in (command.epilog or "") for command in commands.values())
