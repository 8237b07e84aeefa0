"""What a stage prints, kept."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from harness.run.executors import ray as output
from harness.run.executors.ray import captured, tail


def test_everything_that_is_written_is_kept_and_nothing_after(capfd: pytest.CaptureFixture[str]) -> None:
    with capfd.disabled(), captured() as file:
        print("from Python")
        os.write(2, b"from below\n")
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
        print("to standard error", file=sys.stderr)
        said = tail(file)
    print("after")
    assert sorted(said.splitlines()) == ["from Python", "from a child", "from below", "to standard error"]
    assert capfd.readouterr().out == "after\n"


def test_of_much_the_end_is_kept(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(output, "MOST_BYTES", 4)
    with capfd.disabled(), captured() as file:
        os.write(1, "much and ü".encode())
        assert tail(file) == "d ü"
