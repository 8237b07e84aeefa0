"""Stages as Ray tasks. Quick tests stand a scripted Ray in; slow ones start a real one, and take a node away."""

from __future__ import annotations

import os
import platform
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from distributions import write_distribution

from harness import HarnessError
from harness.errors import StoreWriteError
from harness.run.executors.events import LiveValues, Stop
from harness.run.executors.ray import RayExecutor, resources, run_task
from harness.run.graph import Graph, Stage
from harness.store import Store

HANGING = """
    import pathlib
    import time

    from harness import Dataset, Source, hookimpl


    class Hanging(Source):
        name = "hanging"
        place: str = ""

        def load(self):
            import ray

            mark = pathlib.Path(self.place)
            if self.place and not mark.exists():
                mark.with_suffix(".part").write_text(ray.get_runtime_context().get_node_id())
                mark.with_suffix(".part").rename(mark)
                time.sleep(600)
            return Dataset({})


    @hookimpl
    def harness_sources():
        return [Hanging]
"""


class Watcher:
    """Events, kept."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def started(self, stage: Stage) -> None:
        self.said.append(("started", stage.title))

    def progress(self, key: str, done: int, total: int, note: str) -> None:
        self.said.append(("progress", done, total, note))

    def measured(self, key: str, values: LiveValues) -> None:
        self.values = values

    def again(self, stage: Stage, reason: str) -> None:
        self.said.append((reason, stage.title))

    def finished(self, stage: Stage, seconds: float, error: str | None) -> None:
        self.said.append(("finished", stage.title, error))


class RayError(Exception):
    """As Ray's own."""


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store `there` is in a folder of the test's."""
    monkeypatch.chdir(tmp_path)


def node(name: str = "one", **resources: float) -> dict[str, Any]:
    return {"Alive": True, "NodeManagerHostname": name, "Resources": resources}


class Scripted(ModuleType):
    """A Ray whose tasks end as a script says: by title, a message or an exception, or a list of them, one a start."""

    def __init__(self, script: Mapping[str, Any], cluster: Mapping[str, float]) -> None:
        super().__init__("ray")
        self.script, self.cluster = script, cluster
        self.asked: list[dict[str, Any]] = []
        self.most = 0
        self.up = False
        self.exceptions = SimpleNamespace(RayError=RayError)

    def init(self, **options: Any) -> None:
        if options["address"] == "ray://nowhere:1":
            raise ConnectionError("refused")
        self.up = True
        signal.signal(signal.SIGTERM, lambda *_: None)

    def shutdown(self) -> None:
        self.up = False

    def cluster_resources(self) -> Mapping[str, float]:
        return self.cluster

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": False}, node(**self.cluster)]

    def get_runtime_context(self) -> SimpleNamespace:
        return SimpleNamespace(get_node_id=lambda: "here")

    def remote(self, function: Any) -> Scripted:
        assert function is run_task
        return self

    def options(self, **options: Any) -> SimpleNamespace:
        self.asked.append(options)

        def start(stage: dict[str, Any], settings: dict[str, Any], said: list[Any]) -> str:
            assert settings.keys() == {"store", "mark"}
            assert Path(settings["mark"]).parent == Path("there/parts").absolute()
            assert Path(settings["mark"]).is_dir()
            progress = {"event": "progress", "done": 1, "total": 2, "note": f"half of {stage['title']}"}
            said.append((stage["key"], progress))
            said.append((stage["key"], {"event": "measured", "values": {"scores": {"mean": 0.5}, "scored": 1}}))
            return str(stage["title"])

        return SimpleNamespace(remote=start)

    def wait(self, references: list[str], **_: Any) -> tuple[list[str], list[str]]:
        self.most = max(self.most, len(references))
        return references[:1], references[1:]

    def get(self, reference: str) -> Any:
        end = self.script.get(reference, {"event": "finished", "error": None})
        if isinstance(end, list):
            end = end.pop(0)
        if isinstance(end, Exception):
            raise end
        return end


class Said(list[Any]):
    """A queue that is not to be reached as long as `lost` says."""

    lost = 0

    def __init__(self, actor_options: dict[str, Any]) -> None:
        super().__init__()
        assert actor_options["scheduling_strategy"] == ("here", True)

    def qsize(self) -> int:
        if Said.lost:
            Said.lost -= 1
            raise RayError("the actor is unavailable")
        return len(self)

    def get_nowait_batch(self, count: int) -> list[Any]:
        found, self[:count] = self[:count], []
        return found


def scripted(monkeypatch: pytest.MonkeyPatch, script: Mapping[str, Any], **cluster: float) -> Scripted:
    module = Scripted(script, {"CPU": 4.0, **cluster})
    queue = ModuleType("ray.util.queue")
    queue.Queue = Said  # type: ignore[attr-defined]
    strategies = ModuleType("ray.util.scheduling_strategies")
    strategies.NodeAffinitySchedulingStrategy = lambda node, soft: (node, soft)  # type: ignore[attr-defined]
    modules = {"ray": module, "ray.util": ModuleType("ray.util"), "ray.util.queue": queue, strategies.__name__: strategies}
    for name, value in modules.items():
        monkeypatch.setitem(sys.modules, name, value)
    return module


def executor(workers: int = 0, **options: Any) -> RayExecutor:
    return RayExecutor(workers, {"store": "there"}, Path("unused"), **options)


def small_graph() -> Graph:
    graph = Graph()
    source = graph.add("source", "data", {}, {})
    for number in range(6):
        train = graph.add("train", f"train {number}", {"n": number}, {"source": source})
        graph.add("evaluate", f"evaluate {number}", {}, {"model": train})
    return graph


def test_a_graph_is_run_as_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = RayError("the node died\nand so on")
    ray = scripted(monkeypatch, {"train 1": {"event": "finished", "error": "a bug"}, "train 2": dead})
    graph, watcher = small_graph(), Watcher()
    outcome = executor().run(graph, set(), watcher)
    titles = {stage.title: stage.key for stage in graph}
    assert outcome.failed == {
        titles["train 1"]: "a bug",
        titles["train 2"]: "its task was lost, and 3 times again: RayError: the node died",
    }
    assert outcome.skipped == {titles[f"evaluate {n}"]: titles[f"train {n}"] for n in (1, 2)}
    assert len(outcome.ran) == len(graph) - 4
    assert not outcome.stopped
    assert watcher.said[:3] == [("started", "data"), ("progress", 1, 2, "half of data"), ("finished", "data", None)]
    assert watcher.values == {"scores": {"mean": 0.5}, "scored": 1}
    assert not ray.up
    assert ray.most == 4  # the CPUs of the cluster
    assert list(Path("there/parts").iterdir()) == []


def test_a_task_that_is_lost_is_started_again_and_everyone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = RayError("Task was killed due to the node running low on memory.\nand so on")
    made = {"event": "finished", "error": None}
    ray = scripted(monkeypatch, {"train 0": [memory, memory, memory, made]})
    watcher, graph = Watcher(), small_graph()
    outcome = executor().run(graph, set(), watcher)
    assert outcome.ran == set(graph.stages)
    again = "its task was lost (RayError: Task was killed due to the node running low on memory.)"
    said = [event[0] for event in watcher.said if event[0] != "progress" and event[1] == "train 0"]
    assert said == ["started", again, "started", again, "started", again, "started", "finished"]
    assert {options["max_retries"] for options in ray.asked} == {0}  # Ray's own are not counted where it kills for memory


def test_why_a_node_left_the_mirror_out_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {title: {"event": "finished", "error": None, "mirror": f"of {title}"} for title in ("train 1", "evaluate 1")}
    scripted(monkeypatch, said)
    assert executor().run(small_graph(), set(), Watcher()).mirror == "of train 1"


def test_a_run_goes_on_while_nothing_is_heard_of_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, {})
    monkeypatch.setattr(Said, "lost", 2)
    watcher = Watcher()
    assert len(executor(1).run(small_graph(), set(), watcher).ran) == 13
    assert [event[0] for event in watcher.said[:6]] == ["started", "finished", "started", "finished", "started", "progress"]


def test_what_stages_print_comes_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = {title: {"event": "finished", "error": None, "log": f"--- {title}\n"} for title in ("data", "train 0")}
    scripted(monkeypatch, said)
    RayExecutor(1, {"store": "there"}, tmp_path / "logs").run(small_graph(), set(), Watcher())
    assert (tmp_path / "logs" / "ray.log").read_text() == "--- data\n--- train 0\n"


def test_a_task_that_cannot_begin_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = RayError("a page of traceback")
    absent.cause = ModuleNotFoundError("No module named 'harness'")  # type: ignore[attr-defined]
    scripted(monkeypatch, {"data": absent})
    (reason,) = executor().run(small_graph(), set(), Watcher()).failed.values()
    assert reason == (
        "Ray could not run it (ModuleNotFoundError: No module named 'harness'): the harness must be the same on all nodes"
    )


def test_as_many_at_a_time_as_asked_and_what_is_present_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ray, graph = scripted(monkeypatch, {}), small_graph()
    assert len(executor(2).run(graph, {next(iter(graph)).key}, Watcher()).ran) == 12
    assert ray.most == 2
    assert executor(2).run(graph, set(graph.stages), Watcher()).ran == set()
    assert len(ray.asked) == 12


def test_signals_stay_the_command_line_s(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, {})
    before = signal.signal(signal.SIGTERM, mine := lambda *_: None)
    try:
        executor().run(small_graph(), set(), Watcher())
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_that_comes_inside_ray_ends_the_run_as_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    ray, before = scripted(monkeypatch, {}), signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))

    def wait(references: list[str], **_: Any) -> tuple[list[str], list[str]]:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except SystemExit:
            raise KeyboardInterrupt from None  # as Ray does
        return references[:1], references[1:]

    monkeypatch.setattr(ray, "wait", wait)
    try:
        with pytest.raises(SystemExit) as left:
            executor().run(small_graph(), set(), Watcher())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert left.value.code == 143
    assert not ray.up


def test_stages_with_a_model_have_a_gpu_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = scripted(monkeypatch, {}, GPU=2, memory=9)
    graph = small_graph()
    source, train, *_ = graph
    executor(1, memory_bytes=5).run(graph, graph.stages.keys() - {source.key, train.key}, Watcher())
    assert [(options["num_cpus"], options["num_gpus"], options["memory"]) for options in ray.asked] == [(1, 0, 5), (1, 1, 5)]
    assert resources(train, [node(CPU=2)], None, 0) == {"num_cpus": 1, "num_gpus": 0}
    assert resources(train, [node(CPU=2, GPU=2)], 0, 0) == {"num_cpus": 1, "num_gpus": 0}


def test_a_stage_must_fit_on_one_node() -> None:
    stage = Stage("k", "train", "train dpo", {}, {}, devices=4)
    small, large = node("small", CPU=8, GPU=1, memory=8e9), node("large", CPU=2, GPU=4, memory=2e9)
    assert resources(stage, [small, large], None, 0) == {"num_cpus": 2, "num_gpus": 4}
    assert resources(stage, [small, large], 0, 0) == {"num_cpus": 4, "num_gpus": 0}
    for nodes, memory, said in (
        ([small] * 4, 0, "4 GPU and 0.0 GB of memory, and the largest of 4, small, has 8 CPU, 1 GPU and 8.0 GB of memory"),
        ([small, large], 10**10, "4 GPU and 10.0 GB of memory, and the largest of 2, large, has 2 CPU, 4 GPU and 2.0 GB"),
    ):
        with pytest.raises(HarnessError, match=f"train dpo needs a Ray node with 1 CPU, {said}.*smaller --ray-memory-gb, or"):
            resources(stage, nodes, None, memory)


def test_a_stage_for_which_no_node_is_large_enough_ends_the_run_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = scripted(monkeypatch, {}, memory=5)
    with pytest.raises(HarnessError, match=r"needs a Ray node with 1 CPU, 0 GPU and 6\.0 GB of memory"):
        executor(memory_bytes=6 * 10**9).run(small_graph(), set(), Watcher())
    assert ray.asked == []
    assert not ray.up


@pytest.fixture
def _loud(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that are run in the test's process leave its libraries as they are."""
    monkeypatch.setattr("harness.run.stages.context.quiet_libraries", lambda: None)


def test_a_node_that_does_not_see_the_store_computes_nothing(tmp_path: Path) -> None:
    settings = {"store": str(tmp_path / "local"), "mark": str(tmp_path / "local" / "parts" / "mark"), "checkpoints": {}}
    ended = run_task(asdict(next(iter(small_graph()))), settings, [])
    assert ended == {
        "event": "unwritable",
        "error": f"the node {platform.node()} does not see the store {tmp_path / 'local'} of this run; all nodes must see one "
        "folder under that path: mount it there, or give another with --store",
    }
    assert not (tmp_path / "local").exists()


@pytest.mark.usefixtures("_loud")
def test_a_store_that_is_gone_when_the_stage_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mark").mkdir()
    settings = {"store": str(tmp_path / "store"), "mark": str(tmp_path / "mark"), "checkpoints": {}}
    monkeypatch.setattr("harness.run.executors.worker.run_stage", lambda *_: (tmp_path / "mark").rmdir())
    ended = run_task(asdict(next(iter(small_graph()))), settings, [])
    assert ended["event"] == "unwritable"
    assert "does not see the store" in ended["error"]


@pytest.mark.usefixtures("_loud")
def test_a_store_that_a_node_cannot_write_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = {"store": str(tmp_path / "file" / "store"), "mark": str(tmp_path), "checkpoints": {}}
    ended = run_task(asdict(next(iter(small_graph()))), settings, [])
    assert ended["event"] == "unwritable"
    assert (
        ended["error"]
        == f"the store {tmp_path / 'file' / 'store'} cannot be written (Not a directory): choose another with --store"
    )


def test_a_full_disk_ends_the_run_and_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = scripted(monkeypatch, {"data": {"event": "unwritable", "error": "disk full"}})
    with pytest.raises(StoreWriteError, match="disk full"):
        executor().run(small_graph(), set(), Watcher())
    assert not ray.up


def test_who_is_asked_to_stop_begins_nothing_new(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, {})
    stop, watcher = Stop(), Watcher()
    watcher.started = lambda stage: stop.ask()  # type: ignore[method-assign]
    outcome = executor(stop=stop).run(small_graph(), set(), watcher)
    assert (len(outcome.ran), outcome.stopped) == (1, True)


def test_no_cluster_and_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, {})
    with pytest.raises(HarnessError, match=r"no Ray cluster ray://nowhere:1 .*every process needs RAY_AUTH_MODE=token"):
        executor(address="ray://nowhere:1").run(small_graph(), set(), Watcher())
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody_listens.getsockname()[1]}"
        with pytest.raises(HarnessError, match=rf"no Ray cluster {address} \(ConnectionRefusedError: "):
            executor(address=address).run(small_graph(), set(), Watcher())
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(HarnessError, match=r"pip install 'alignment-harness\[ray\]'"):
        executor()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_lost_node_s_stage_runs_on_the_one_that_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # read when ray is first imported
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(write_distribution(tmp_path / "site", "hanging", HANGING)))
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    mark, graph = tmp_path / "mark", Graph()
    for number in range(2):
        fields = {"place": str(mark) if number else ""}
        source = {"name": "hanging", "version": 1, "fields": fields, "fingerprint": ""}
        graph.add("source", str(number), {"source": source}, {})
    hanging = list(graph)[1]

    def take_away() -> None:
        done = threading.Event()
        while not mark.exists():
            done.wait(0.1)
        (lost,) = [node for node in nodes if node.node_id == mark.read_text()]
        cluster.remove_node(lost, allow_graceful=False)

    taker = threading.Thread(target=take_away, daemon=True)
    taker.start()
    try:
        settings = {"store": str(Store(tmp_path / "store").root), "checkpoints": {}}
        outcome = RayExecutor(0, settings, tmp_path, address=cluster.address).run(graph, set(), watcher := Watcher())
    finally:
        taker.join(60)
        cluster.shutdown()
    assert outcome.failed == {}
    assert outcome.ran == set(graph.stages)
    assert Store(tmp_path / "store").holds(hanging.key)
    (again,) = [event[0] for event in watcher.said if event[1] == "1" and event[0] not in ("started", "finished")]
    assert again.startswith("its task was lost (")
