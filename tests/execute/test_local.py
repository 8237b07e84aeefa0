"""Worker processes: failures stay where they happen, dead workers are replaced, none outlives its parent."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from distributions import write_distribution

from harness import StoreError
from harness.execute.events import Outcome
from harness.execute.local import LocalExecutor, Schedule
from harness.graph import Graph, Stage
from harness.store import Store

# A source that does what its fields say, so that a graph of `source` stages can fail in every way.
ACTING = """
    import os
    import signal
    import time

    import psutil

    from harness import DataError, Dataset, Source, hookimpl


    class Acting(Source):
        name = "acting"
        act: str = "nothing"
        number: int = 0

        def load(self):
            if self.act == "mistake":
                raise DataError("rows.jsonl:3 is not JSON")
            if self.act == "bug":
                raise RuntimeError("a bug")
            if self.act == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.act == "leave":
                os._exit(7)
            if self.act == "kill the others":
                for process in psutil.Process(os.getppid()).children():
                    if process.pid != os.getpid():
                        process.kill()
                        process.wait()
            if self.act == "hang":
                time.sleep(600)
            return Dataset({})


    @hookimpl
    def harness_sources():
        return [Acting]
"""


class Watcher:
    """Events, kept."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def started(self, stage: Stage) -> None:
        self.said.append(("started", stage.title))

    def progress(self, key: str, done: int, total: int, note: str) -> None:
        self.said.append(("progress", note))

    def finished(self, stage: Stage, seconds: float, error: str | None) -> None:
        assert seconds >= 0
        self.said.append(("finished", stage.title))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed plugin that the workers see."""
    folder = write_distribution(tmp_path / "site", "acting", ACTING)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def add(graph: Graph, title: str, act: str = "nothing", after: str | None = None, weight: float = 1) -> str:
    fields = {"act": act, "number": len(graph)}
    source = {"name": "acting", "version": 1, "fields": fields, "fingerprint": ""}
    return graph.add("source", title, {"source": source}, {"source": after} if after else {}, weight=weight)


def run(graph: Graph, folder: Path, workers: int = 1) -> tuple[dict[str, str], Watcher]:
    """How each stage ended, by title: `ran`, `skipped` or the reason of its failure."""
    settings = {"store": str(Store(folder / "store").root), "checkpoints": {}}
    watcher = Watcher()
    outcome = LocalExecutor(workers, settings, folder / "logs").run(graph, set(), watcher)
    ended = {**dict.fromkeys(outcome.ran, "ran"), **dict.fromkeys(outcome.skipped, "skipped"), **outcome.failed}
    assert len(ended) == len(graph)
    return {stage.title: ended[stage.key] for stage in graph}, watcher


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            pytest.fail("waited too long")
        time.sleep(0.02)


def test_a_failure_takes_its_descendants_and_nothing_else(site: Path, tmp_path: Path) -> None:
    graph = Graph()
    first = add(graph, "first")
    mistake = add(graph, "mistake", "mistake", first, weight=9)
    bug = add(graph, "bug", "bug", first, weight=8)
    dead = add(graph, "dead", "die", first, weight=7)
    add(graph, "after the mistake", after=add(graph, "next to the mistake", after=mistake))
    add(graph, "after the bug", after=bug)
    add(graph, "after the death", after=dead)
    add(graph, "gone", "leave", first, weight=6)
    add(graph, "last", after=first)
    ended, watcher = run(graph, tmp_path)
    log = tmp_path / "logs" / "worker-0.log"
    assert ended == {
        "first": "ran",
        "mistake": "rows.jsonl:3 is not JSON",
        "bug": "RuntimeError: a bug",
        "dead": f"its worker process was killed by SIGKILL; the machine may be out of memory (see {log})",
        "gone": f"its worker process ended with code 7 (see {log})",
        "next to the mistake": "skipped",
        "after the mistake": "skipped",
        "after the bug": "skipped",
        "after the death": "skipped",
        "last": "ran",
    }
    assert "RuntimeError: a bug" in log.read_text()
    order = ["first", "mistake", "bug", "dead", "gone", "last"]  # the longest way to go first
    assert watcher.said == [(what, title) for title in order for what in ("started", "finished")]


def test_a_worker_that_dies_while_idle_is_replaced(site: Path, tmp_path: Path) -> None:
    graph = Graph()
    first = add(graph, "first", "kill the others")
    add(graph, "left", after=first)
    add(graph, "right", after=first)
    ended, _ = run(graph, tmp_path, workers=2)
    assert ended == {"first": "ran", "left": "ran", "right": "ran"}


def test_workers_do_not_outlive_a_killed_parent(site: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from test_local import add, run
from harness.graph import Graph
graph = Graph()
add(graph, "hangs", "hang")
run(graph, Path({str(tmp_path)!r}), workers=2)
"""
    parent = subprocess.Popen([sys.executable, "-c", code])
    part = tmp_path / "store" / "parts"
    wait_until(lambda: (part.exists() and any(part.iterdir())) or parent.poll() is not None)
    workers = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    assert len(workers) == 1
    psutil.wait_procs(workers, timeout=20)
    assert [worker for worker in workers if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE] == []
    assert Store(tmp_path / "store").sweep() == 1


def test_files_where_the_command_is_typed_shadow_no_library(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise RuntimeError('shadowed')\n")
    monkeypatch.chdir(tmp_path)
    graph = Graph()
    add(graph, "only")
    assert run(graph, tmp_path)[0] == {"only": "ran"}


def test_a_folder_for_logs_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "logs").touch()
    graph = Graph()
    add(graph, "only")
    with pytest.raises(StoreError, match="choose another folder with --out"):
        run(graph, tmp_path)


def test_nothing_to_do_starts_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph()
    key = add(graph, "only")
    monkeypatch.setattr(LocalExecutor, "_worker", lambda *_: pytest.fail("a worker was started"))
    outcome = LocalExecutor(2, {}, tmp_path / "logs").run(graph, {key}, Watcher())
    assert outcome == Outcome()


def test_stages_that_share_samples_run_one_at_a_time() -> None:
    graph = Graph()
    keys = [graph.add("groups", str(number), {"n": number}, {}, shares="samples m") for number in range(2)]
    other = graph.add("groups", "other", {"n": 2}, {}, shares="samples n")
    schedule = Schedule(graph, set())
    taken = [schedule.take() for _ in range(3)]
    assert taken[2] is None
    first = next(stage for stage in taken if stage is not None and stage.key in keys)
    assert {stage.key for stage in taken if stage is not None} == {first.key, other}
    schedule.finish(first, None)
    (second,) = set(keys) - {first.key}
    assert schedule.take() == graph.stages[second]
