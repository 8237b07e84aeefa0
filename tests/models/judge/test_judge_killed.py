"""A process that asks a judge is killed: no answer that it wrote is asked for again."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from models.judge.bench import Bench, always, answers_in

KILLED = """
import sys
from pathlib import Path
from harness.models.judge.judge import Judge
from harness.models.judge.settings import JudgeSettings
from harness.store import Store
from harness.api.types import Message

settings = JudgeSettings(model="scripted", base_url=sys.argv[1], concurrency=int(sys.argv[3]))
judge = Judge(settings, Store(Path(sys.argv[2])), "killed", None, lambda *progress: print(progress[0], flush=True))
judge.judge([(Message("user", f"question {number}"),) for number in range(int(sys.argv[4]))], lambda answer: answer.text, {})
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


def asking(bench: Bench, concurrency: int, questions: int) -> list[str]:
    store = str(bench.folder / "store")
    return [sys.executable, "-c", KILLED, bench.server.url, store, str(concurrency), str(questions)]


def kill_and_go_on(bench: Bench, stalled: threading.Event) -> None:
    with subprocess.Popen(asking(bench, concurrency=1, questions=100), stdout=subprocess.PIPE, text=True) as process:
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


class Answering:
    """A judge that takes a while, and says when it has given so many answers."""

    def __init__(self) -> None:
        self.answered, self.awaited = 0, 0
        self.reached = threading.Event()
        self._lock = threading.Lock()

    def await_more(self, count: int) -> None:
        self.reached.clear()
        self.awaited = self.answered + count
        assert self.reached.wait(60)

    def __call__(self, prompt: str, times: int) -> str:
        time.sleep(0.005)
        with self._lock:
            self.answered += 1
            if self.answered == self.awaited:
                self.reached.set()
        return f"[[{sum(prompt.encode()) % 97}]]"


@pytest.mark.slow
def test_kills_at_any_moment_repeat_no_answer_that_was_written(tmp_path: Path) -> None:
    """Three kills at moments drawn by chance, with eight questions under way."""
    chance, questions = random.Random(7), always(*(f"question {number}" for number in range(240)))
    undisturbed, bench = Bench(tmp_path / "undisturbed", Answering()), Bench(tmp_path / "killed", judge := Answering())
    at_kills: list[dict[str, int]] = [{}]  # how often what was written by then had been asked
    lost = 0
    with undisturbed.server.serving(), bench.server.serving():
        expected = undisturbed.judge(concurrency=8).judge(*questions)
        for _ in range(3):
            before = sum(bench.server.asked.values())
            kill_after(chance.randint(10, 60), bench, judge, chance.uniform(0, 0.02))
            at_kills.append({prompt: bench.server.asked[prompt] for prompt in written_in(bench)})
            assert at_kills[-2].keys() <= at_kills[-1].keys()
            assert bench.spent("killed").calls == len(at_kills[-1])
            lost += sum(bench.server.asked.values()) - before - (len(at_kills[-1]) - len(at_kills[-2]))
        judgments = bench.judge(run="killed", concurrency=8).judge(*questions)
    assert [judgment.value for judgment in judgments] == [judgment.value for judgment in expected]
    for written in at_kills:
        assert written.items() <= bench.server.asked.items()  # not once more
    assert sum(bench.server.asked.values()) - 240 <= lost  # what was under way, or answered and not yet written
    assert len(written_in(bench)) == 240 == bench.spent("killed").calls
    assert 0 < len(at_kills[-1]) < 240


def kill_after(answers: int, bench: Bench, judge: Answering, seconds: float) -> None:
    """Kill a process when it has got more answers, and wait until the server has dealt with all that it had sent."""
    idle = threading.active_count()
    with subprocess.Popen(asking(bench, concurrency=8, questions=240), stdout=subprocess.DEVNULL) as process:
        judge.await_more(answers)
        time.sleep(seconds)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    while threading.active_count() > idle:
        time.sleep(0.01)


def written_in(bench: Bench) -> set[str]:
    """The questions whose answers are written, each once."""
    prompts = [row["question"]["messages"][0]["content"] for row in answers_in(bench)]
    assert len(prompts) == len(set(prompts))
    return set(prompts)
