"""A process that asks a judge is killed: no answer that it wrote is asked for again."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from judging.bench import Bench, always

KILLED = """
import sys
from pathlib import Path
from harness.judging.judge import Judge
from harness.judging.settings import JudgeSettings
from harness.store import Store
from harness.types import Message

settings = JudgeSettings(model="scripted", base_url=sys.argv[1], concurrency=1)
judge = Judge(settings, Store(Path(sys.argv[2])), "killed", None, lambda *progress: print(progress[0], flush=True))
judge.judge([(Message("user", f"question {number}"),) for number in range(100)], lambda answer: answer.text, {})
"""


def test_a_killed_process_loses_no_answer_that_it_reported(tmp_path: Path) -> None:
    """The judge answers 30 questions and stalls; the process that asks is killed."""
    stalled = threading.Event()

    def script(prompt: str, times: int) -> str:
        if times == 0 and prompt == "question 30" and not bench.server.stop.is_set():
            stalled.set()
            bench.server.stop.wait(60)
        return "[[1]]"

    bench = Bench(tmp_path, script)
    with bench.server.serving():
        kill_and_go_on(bench, stalled)


def kill_and_go_on(bench: Bench, stalled: threading.Event) -> None:
    command = [sys.executable, "-c", KILLED, bench.server.url, str(bench.folder / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reported = 0
        while reported < 30:
            reported = int(process.stdout.readline())
        assert stalled.wait(60)
        process.kill()
    bench.server.stop.set()
    assert len(bench.server.asked) == 31
    judgments = bench.judge(concurrency=4).judge(*always(*(f"question {number}" for number in range(100))))
    assert all(judgment.value == 1 for judgment in judgments)
    assert {text for text, count in bench.server.asked.items() if count > 1} == {"question 30"}  # never answered, so never paid
