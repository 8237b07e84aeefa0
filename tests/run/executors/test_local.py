"""Worker processes: failures stay where they happen, dead workers are replaced, none outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from distributions import write_distribution

from harness import HarnessError, StoreError
from harness.errors import StoreWriteError
from harness.run.executors.events import LiveValues, Outcome, Stop
from harness.run.executors.local import WORKER_STARTS, LocalExecutor
from harness.run.graph import Graph, Stage
from harness.store import Store

# A source that does what its fields say, so that a graph of `source` stages can fail in every way.
ACTING = """
    import os
    import pathlib
    import signal
    import time

    import psutil

    from harness import DataError, Dataset, Source, hookimpl
    from harness.errors import TimeOverError


    class Acting(Source):
        name = "acting"
        act: str = "nothing"
        number: int = 0
        place: str = ""

        def load(self):
            if self.act == "mistake":
                raise DataError("rows.jsonl:3 is not JSON")
            if self.act == "keep":
                raise TimeOverError("kept")
            if self.act == "bug":
                raise RuntimeError("a bug")
            if self.act == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.act == "die once" and not pathlib.Path(self.place).exists():
                pathlib.Path(self.place).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if self.act == "full":
                raise OSError(28, os.strerror(28))
            if self.act == "device":
                pathlib.Path(self.place).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
            if self.act == "leave":
                os._exit(7)
            if self.act == "kill the others":
                for process in psutil.Process(os.getppid()).children():
                    if process.pid != os.getpid():
                        process.kill()
                        process.wait()
            if self.act == "hang":
                time.sleep(600)
            if self.act == "wait":
                time.sleep(120)
            if self.act == "secret":
                raise RuntimeError("401 for sk-0123456789abcdef of caf\\udce9")
            if self.act in ("leave a child", "leave a daemon") and not pathlib.Path(self.place).exists():
                child = os.fork()
                if not child:
                    if self.act == "leave a daemon":
                        os.setsid()
                    time.sleep(120)
                    pathlib.Path(self.place).with_suffix(".late").touch()
                    os._exit(0)
                pathlib.Path(self.place).write_text(str(child))
                os.kill(os.getpid(), signal.SIGKILL)
            return Dataset({})


    @hookimpl
    def harness_sources():
        return [Acting]
"""


# A plugin that ends the second worker as it starts: workers are told apart by the logs that they write to.
ENDING = """
    import os

    if os.readlink("/proc/self/fd/2").endswith("worker-1.log"):
        os._exit(9)
"""


class Watcher:
    """Events, kept."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.starts: list[str] = []  # progress about the start of a worker, and "" at its end

    def started(self, stage: Stage) -> None:
        self.said.append(("started", stage.title))

    def progress(self, key: str, done: int, total: int, note: str) -> None:
        if total:
            self.said.append(("progress", note))
        else:
            self.starts.append(note)

    def measured(self, key: str, values: LiveValues) -> None:
        self.said.append(("measured", str(dict(values))))

    def again(self, stage: Stage, reason: str) -> None:
        self.said.append((reason, stage.title))

    def finished(self, stage: Stage, seconds: float, error: str | None) -> None:
        assert seconds >= 0
        self.said.append(("finished", stage.title))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed plugin that the workers see."""
    folder = write_distribution(tmp_path / "site", "acting", ACTING)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def add(
    graph: Graph, title: str, act: str = "nothing", after: str | None = None, weight: float = 1, place: Path | None = None
) -> str:
    fields = {"act": act, "number": len(graph), "place": str(place or "")}
    source = {"name": "acting", "version": 1, "fields": fields, "fingerprint": ""}
    return graph.add("source", title, {"source": source}, {"source": after} if after else {}, weight=weight)


def run(graph: Graph, folder: Path, workers: int = 1, watcher: Watcher | None = None) -> tuple[dict[str, str], Watcher]:
    """How each stage ended, by title: `ran`, `skipped` or the reason of its failure."""
    settings = {"store": str(Store(folder / "store").root), "checkpoints": {}}
    watcher = watcher or Watcher()
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
        "bug": "RuntimeError: a bug (acting.py, line 25; the traceback is in the run's logs)",
        "dead": "its worker process was killed by SIGKILL twice; the machine may be out of memory: "
        f"try fewer --workers (see {log})",
        "gone": f"its worker process ended with code 7 (see {log})",
        "next to the mistake": "skipped",
        "after the mistake": "skipped",
        "after the bug": "skipped",
        "after the death": "skipped",
        "last": "ran",
    }
    assert "--- bug\nTraceback " in log.read_text()
    assert "RuntimeError: a bug\n" in log.read_text()
    # The first worker's start, and one after each death. A worker that dies later may be ready before it has a stage.
    assert watcher.starts[:2] == [WORKER_STARTS, ""] and watcher.starts.count(WORKER_STARTS) == watcher.starts.count("")
    order = ["first", "mistake", "bug", "dead", "gone", "last"]  # the longest way to go first
    killed = "its worker process was killed"
    assert watcher.said == [
        (what, title)
        for title in order
        for what in (("started", killed, "started", "finished") if title == "dead" else ("started", "finished"))
    ]


def test_a_worker_that_dies_while_idle_is_replaced(site: Path, tmp_path: Path) -> None:
    graph = Graph()
    first = add(graph, "first", "kill the others")
    add(graph, "left", after=first)
    add(graph, "right", after=first)
    ended, _ = run(graph, tmp_path, workers=2)
    assert ended == {"first": "ran", "left": "ran", "right": "ran"}


@pytest.mark.parametrize("act", ["leave a child", "leave a daemon"])
def test_a_killed_worker_is_noticed_although_a_child_holds_its_pipe(act: str, site: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    def lives() -> bool:
        left = [process for process in psutil.process_iter() if process.pid == int(mark.read_text())]
        return any(process.status() != psutil.STATUS_ZOMBIE for process in left)

    class Ending(Watcher):
        def again(self, stage: Stage, reason: str) -> None:
            super().again(stage, reason)
            if act == "leave a child":
                wait_until(lambda: not lives())  # the worker's own group is ended with it
            else:
                assert lives()
                os.kill(int(mark.read_text()), signal.SIGKILL)  # it holds the lock of the stage, too

    graph, watcher = Graph(), Ending()
    add(graph, "first", act, place=mark)
    assert run(graph, tmp_path, watcher=watcher)[0] == {"first": "ran"}
    assert [what for what, _ in watcher.said] == ["started", "its worker process was killed", "started", "finished"]
    assert not mark.with_suffix(".late").exists()


def test_workers_that_end_as_they_start_end_the_run(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = write_distribution(tmp_path / "other", "ending", ENDING)
    monkeypatch.setenv("PYTHONPATH", f"{site}:{other}")
    graph = Graph()
    add(graph, "second", after=add(graph, "first", "wait"))
    log = tmp_path / "logs" / "worker-1.log"
    said = rf"3 worker processes in a row ended before they were given a stage, the last one with code 9: see {log}, and try"
    with pytest.raises(HarnessError, match=said):
        run(graph, tmp_path, workers=2)


def test_workers_do_not_outlive_a_killed_parent(site: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from test_local import add, run
from harness.run.graph import Graph
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
    assert Store(tmp_path / "store").sweep() > 0


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


def test_a_stage_whose_worker_was_killed_once_is_tried_once_more(site: Path, tmp_path: Path) -> None:
    graph = Graph()
    first = add(graph, "first", "die once", place=tmp_path / "mark")
    add(graph, "second", after=first)
    ended, watcher = run(graph, tmp_path)
    assert ended == {"first": "ran", "second": "ran"}
    assert [what for what, title in watcher.said if title == "first"] == [
        "started",
        "its worker process was killed",
        "started",
        "finished",
    ]
    assert Store(tmp_path / "store").sweep() == 1  # what the dead worker left


def test_a_full_disk_ends_the_run_with_one_error(site: Path, tmp_path: Path) -> None:
    graph = Graph()
    add(graph, "full", "full", weight=9)
    add(graph, "other")
    with pytest.raises(StoreWriteError, match=r"an artifact of kind source cannot be written to .*No space left"):
        run(graph, tmp_path)
    assert list((tmp_path / "store" / "parts").iterdir()) == []


def test_a_store_that_workers_cannot_write_ends_the_run(site: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    graph, watcher = Graph(), Watcher()
    add(graph, "only")
    settings = {"store": str(tmp_path / "file" / "store"), "checkpoints": {}}
    with pytest.raises(StoreWriteError, match=r"the store .* cannot be written \(Not a directory\): choose another"):
        LocalExecutor(1, settings, tmp_path / "logs").run(graph, set(), watcher)
    assert watcher.said == [("started", "only")]


def test_what_foreign_code_says_is_kept_without_secrets_and_as_a_file_can_hold_it(site: Path, tmp_path: Path) -> None:
    graph = Graph()
    add(graph, "only", "secret")
    (reason,) = run(graph, tmp_path)[0].values()
    assert reason.startswith("RuntimeError: 401 for (hidden) of caf\\udce9 (acting.py, line ")
    log = (tmp_path / "logs" / "worker-0.log").read_text()
    assert "RuntimeError: 401 for (hidden) of caf" in log


def test_why_a_worker_left_the_mirror_out_is_kept(site: Path, tmp_path: Path) -> None:
    graph = Graph()
    add(graph, "only")
    settings = {"store": str(tmp_path / "store"), "checkpoints": {}, "mirror": "file:///dev/null/mirror"}
    outcome = LocalExecutor(1, settings, tmp_path / "logs").run(graph, set(), Watcher())
    assert outcome.failed == {}
    assert str(outcome.mirror).startswith("the mirror file:///dev/null/mirror failed and was left out: ")


def test_who_is_asked_to_stop_finishes_what_runs(site: Path, tmp_path: Path) -> None:
    graph, stop, watcher = Graph(), Stop(), Watcher()
    first = add(graph, "first", weight=9)
    add(graph, "second", after=first)
    executor = LocalExecutor(1, {"store": str(tmp_path / "store"), "checkpoints": {}}, tmp_path / "logs", stop=stop)
    watcher.started = lambda stage: stop.ask()  # type: ignore[method-assign]
    outcome = executor.run(graph, set(), watcher)
    assert (outcome.ran, outcome.failed, outcome.stopped) == ({first}, {}, True)
    assert not LocalExecutor(1, {}, tmp_path / "logs").run(graph, set(graph.stages), watcher).stopped


@pytest.mark.parametrize(("act", "patience"), [("keep", 300.0), ("hang", 0.0)])
def test_a_run_whose_time_is_over_ends_and_fails_nothing(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str, patience: float
) -> None:
    """A stage that keeps its state is put back; one that goes on is ended with its worker after a while."""
    monkeypatch.setattr("harness.run.executors.events.WRAP_UP_SECONDS", patience)
    graph, watcher = Graph(), Watcher()
    add(graph, "second", after=add(graph, "first", act, weight=9))
    executor = LocalExecutor(1, {"store": str(tmp_path / "store"), "checkpoints": {}}, tmp_path / "logs")
    watcher.started = lambda stage: setattr(executor.stop, "ends_at", time.time())  # type: ignore[method-assign]
    outcome = executor.run(graph, set(), watcher)
    assert (outcome.ran, outcome.failed, outcome.skipped, outcome.stopped) == (set(), {}, {}, True)
    assert watcher.said == ([("the run's time is over", "first")] if act == "keep" else [])


def test_each_worker_has_a_gpu_of_its_own_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str | None] = []
    monkeypatch.setattr("harness.run.executors.local.Worker", lambda *arguments: started.append(arguments[-1]))
    for gpus in ((), ("0", "GPU-5f"), ("3",)):
        executor = LocalExecutor(2, {}, tmp_path / "logs", gpus=gpus)
        for number in range(2):
            executor._worker(number)
    assert started == [None, None, "0", "GPU-5f", "3", ""]


def test_a_worker_sees_its_gpu_alone(site: Path, tmp_path: Path) -> None:
    graph = Graph()
    add(graph, "only", "device", place=tmp_path / "seen")
    settings = {"store": str(tmp_path / "store"), "checkpoints": {}}
    LocalExecutor(1, settings, tmp_path / "logs", gpus=("7",)).run(graph, set(), Watcher())
    assert (tmp_path / "seen").read_text() == "7"
