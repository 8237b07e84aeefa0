"""Two processes that write answers to one store at the same time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from models.judge.bench import files_of_answers

WRITER = """
import sys
from pathlib import Path
from harness.models.judge.answers import JudgeAnswers, Kept, JudgeCost
from harness.api.types import JudgeAnswer

folder, own, other = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
answers = JudgeAnswers(folder, "run")
keys = [f"{name} {number}" for name in (own, other, "both") for number in range(300)]
print("ready", flush=True)
sys.stdin.readline()
for start in range(0, 300, 7):
    batch = [f"{name} {number}" for number in range(start, min(start + 7, 300)) for name in (own, "both")]
    kept = [Kept(key, {"of": "x" * 3000}, JudgeAnswer(f"{own} on {key}", own), JudgeCost(1, 1, 0.0)) for key in batch]
    answers.keep(kept, JudgeCost())
    answers.find(keys)
print("written", flush=True)
sys.stdin.readline()
for key, answer in sorted(answers.find(keys).items()):
    print(answer.text)
print(answers.spent().calls)
"""


def test_two_processes_that_write_at_once_both_find_all(tmp_path: Path) -> None:
    def start(own: str, other: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WRITER, str(tmp_path), own, other]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def said(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    with start("left", "right") as left, start("right", "left") as right:
        assert [said(left), said(right)] == ["ready", "ready"]
        for process in (left, right):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        assert [said(left), said(right)] == ["written", "written"]
        (one, _), (two, _) = left.communicate("\n"), right.communicate("\n")
    assert one == two
    *texts, calls = one.splitlines()
    assert len(texts) == 900 and calls == "1200"
    assert {f"{name} on {name} {number}" for name in ("left", "right") for number in range(300)} <= {*texts}
    assert len(files_of_answers(tmp_path)) == 2
