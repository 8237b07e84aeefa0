"""What a run lives through: killed, terminated, damaged, on a full disk, beside another, a Ray node lost.

`make faults` does it to a comparison of seconds, `make faults CONFIG=configs/quickstart.yaml` to the quickstart. Of one so long
only the kills meet the whole, from an empty store; the other faults meet the part that is left to do.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from distributions import write_distribution
from test_compare import Lab, alive, made_lab, tiny_config, wait_until

from harness.plan import plan
from harness.registry import Registry
from harness.resolve import resolve

pytestmark = pytest.mark.slow

KILLS, TERMINATIONS, DAMAGES = 20, 10, 10
PATIENCE = 3600.0  # seconds, for what would otherwise never come
LEFT = 40.0  # seconds that a run has left to do, of all but the one that is killed, where the undisturbed one took longer
# Seconds within which a moment is drawn, at most: so that the last finds the run still under way, and not at its beginning.
SPAN_OF_ALL, SPAN_OF_LEFT = 40.0, 15.0
# A plugin that notes the key of each artifact that any process begins to write.
COUNTING = """
    import os
    from pathlib import Path

    from harness.store import Store

    draft = Store.draft


    def counted(store, kind, key):
        with Path(os.environ["BEGUN"]).open("a") as stream:
            stream.write(f"{key}\\n")
        return draft(store, kind, key)


    Store.draft = counted
"""
# A plugin that holds every training still after its first step, so that there is a middle to meet it in.
SLOW = """
    import time

    from transformers.trainer_callback import CallbackHandler

    on_step_end = CallbackHandler.on_step_end


    def held(handler, args, state, control):
        if state.global_step == 1:
            time.sleep(2)
        return on_step_end(handler, args, state, control)


    CallbackHandler.on_step_end = held
"""


@dataclass(frozen=True)
class TimedLab(Lab):
    """A lab that knows how long its first run took, and which stages are left to do in a store that it began."""

    seconds: float = 0.0
    left: frozenset[str] = frozenset()

    def begin(self, store: str) -> Path:
        """A store for a run to go on with: an empty one, or after a long first run its store but for `left`."""
        folder = self.folder / store
        if len(self.left) < len(spent(self)):
            shutil.copytree(self.folder / "store", folder, ignore=lambda _, names: self.left.intersection(names))
        return folder


def spent(lab: Lab) -> dict[str, float]:
    """Seconds of every stage of the first run."""
    return {event["key"]: event["seconds"] for event in events(lab, "first") if event["event"] == "stage_finished"}


def left_to_do(lab: Lab, seconds: float) -> frozenset[str]:
    """Stages of the first run that take two workers so long: trainings at random, and all that comes of them."""
    took, graph = spent(lab), plan(resolve(yaml.safe_load(lab.config.read_text()), Registry.load()))
    trainings = [stage.key for stage in graph if stage.kind == "train"]
    random.Random(4).shuffle(trainings)
    left: set[str] = set()
    for training in trainings:
        left.add(training)
        left.update(stage.key for stage in graph if stage.parents & left)  # parents come first
        if sum(took[key] for key in left) > 2 * seconds:
            return frozenset(left)
    return frozenset(took)


@pytest.fixture(scope="session")
def lab(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> TimedLab:
    """The comparison that things happen to, undisturbed in `first`. All runs but that keep how far they are after every step
    and batch.
    """
    given = os.environ.get("FAULTS_CONFIG")
    config = yaml.safe_load(Path(given).read_text()) if given else tiny_config(tiny_checkpoint)
    config["run"] = {**config.get("run", {}), "checkpoint_minutes": 0}
    began = time.monotonic()
    made = made_lab(tmp_path_factory.mktemp("faults"), config, "--workers", "2", "--set", "run.checkpoint_minutes=10")
    return TimedLab(made.folder, made.config, time.monotonic() - began, left_to_do(made, LEFT))


def same(lab: Lab, out: str) -> bool:
    """Whether a run's board is that of the first, but for how often it kept how far it was."""
    board, first = (lab.board(name).without_times() for name in (out, "first"))
    return board | {"config": board["config"] | {"run": first["config"]["run"]}} == first


Victim = Callable[[subprocess.Popen[str], list[psutil.Process]], bool]  # whether it was running, and is ended


@dataclass
class Disturbed:
    """Runs in one folder with one store, each the one that goes on, to which something happens at moments that are uniform
    over the time of an undisturbed run, or over the first seconds of a long one. One that ends before its moment must have
    ended well; the next begins anew.

    Args:
        span: seconds within which a moment is drawn, at most.
        anew: prepares the store of a run that begins anew; it is empty if absent.
    """

    lab: TimedLab
    name: str
    rng: random.Random
    span: float
    anew: Callable[[str], object] = lambda store: None
    process: subprocess.Popen[str] | None = None
    began: float = 0.0
    begun: int = 0
    halfway: int = 0  # times at which a stage was interrupted that had kept how far it was

    def disturb(self, victim: Victim, *, inside: bool = False) -> None:
        """Wait for a moment at which the victim runs, and end it.

        Args:
            inside: from that moment on wait until a stage has kept how far it is.
        """
        while not self._disturbed(victim, inside):
            pass

    def _disturbed(self, victim: Victim, inside: bool) -> bool:
        process = self._running()
        passed = time.monotonic() - self.began
        moment = self.began + self.rng.uniform(passed, max(passed, min(self.span, self.lab.seconds)))
        wait_until(lambda: time.monotonic() >= moment or process.poll() is not None, PATIENCE)
        if inside:
            wait_until(lambda: self._kept() or process.poll() is not None, PATIENCE)
        if process.poll() is not None:
            assert (process.communicate()[1], process.returncode) == ("", 0)
            assert same(self.lab, self.name)
            shutil.rmtree(self.lab.folder / self.name)
            return False
        workers = psutil.Process(process.pid).children()
        kept = self._kept()
        ended = victim(process, workers)
        self.halfway += ended and kept
        if process.poll() is not None:
            process.communicate()
            assert alive(workers) == []
        return ended

    def _kept(self) -> bool:
        """Whether a stage under way has kept how far it is."""
        return any((self.lab.folder / self.name / "store" / "partial").glob("*"))

    def _running(self) -> subprocess.Popen[str]:
        """The run that goes on: with two workers, and every third time with one."""
        if self.process is None or self.process.poll() is not None:
            workers, store = str(2 - (self.begun % 3 == 2)), f"{self.name}/store"
            if not (self.lab.folder / store).exists():
                self.anew(store)
            self.process = self.lab.start(self.name, "--workers", workers, store=store)
            self.began, self.begun = time.monotonic(), self.begun + 1
        return self.process


def test_killed_at_random_moments(lab: TimedLab) -> None:
    rng = random.Random(9)

    def group(process: subprocess.Popen[str], workers: list[psutil.Process]) -> bool:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait() == -signal.SIGKILL

    def worker(process: subprocess.Popen[str], workers: list[psutil.Process]) -> bool:
        lives = [worker for worker in workers if worker.status() != psutil.STATUS_ZOMBIE]
        if lives:
            rng.choice(lives).kill()
        return lives != []

    disturbed = Disturbed(lab, "kills", rng, SPAN_OF_ALL)
    for number in range(KILLS):
        disturbed.disturb(group if number % 2 else worker, inside=number % 5 == 4)
    assert disturbed.halfway > 0
    lab.run("kills", "--workers", "2", store="kills/store")
    assert same(lab, "kills")
    assert list((lab.folder / "kills" / "store" / "parts").iterdir()) == []


def test_terminated_at_random_moments(lab: TimedLab) -> None:
    def terminated(process: subprocess.Popen[str], workers: list[psutil.Process]) -> bool:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
        return process.returncode in (143, -signal.SIGTERM)  # before its handlers are there it ends as ever

    disturbed = Disturbed(lab, "terms", random.Random(15), SPAN_OF_LEFT, lab.begin)
    for _ in range(TERMINATIONS):
        disturbed.disturb(terminated)
    lab.run("terms", "--workers", "2", store="terms/store")
    assert same(lab, "terms")


def test_damaged_at_random(lab: Lab) -> None:
    store, rng = lab.folder / "damaged", random.Random(0)
    shutil.copytree(lab.folder / "store", store)
    for manifest in rng.sample(sorted(store.glob("artifacts/*/*/artifact.json")), DAMAGES):
        path = rng.choice([path for path in sorted(manifest.parent.rglob("*")) if path.is_file()])
        content = bytearray(path.read_bytes() or b"x")
        content[rng.randrange(len(content))] ^= 0xFF
        path.write_bytes(content)
    lab.run("damaged", "--workers", "2", store="damaged")
    assert same(lab, "damaged")
    assert len(list((store / "damaged").iterdir())) >= DAMAGES // 2  # what no later stage reads is not looked at


def needs(folder: Path) -> int:
    """Bytes of all that a folder holds, in whole pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def small_disk(lab: TimedLab) -> Iterator[Path]:
    """A file system for a store, and for a third of what is left to do there."""
    folder = lab.folder / "small"
    folder.mkdir()
    there, whole = needs(lab.begin("begun")), needs(lab.folder / "store")
    options = f"size={there + (whole - there) // 3}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills(lab: TimedLab, small_disk: Path) -> None:
    there = lab.published(lab.begin("small/store").relative_to(lab.folder).as_posix())
    done = lab.run("filled", "--workers", "2", store="small/store", code=4)
    assert done.stderr.startswith("error: ")
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((lab.folder / "filled" / "status.json").read_text())["state"] == "failed"
    kept = lab.published("small/store")
    assert kept >= max(there, 1)
    assert list((small_disk / "store" / "parts").iterdir()) == []
    enough = f"remount,size={4 * needs(lab.folder / 'store')}"
    subprocess.run(["mount", "-o", enough, str(small_disk)], check=True)
    lab.run("filled", "--workers", "2", store="small/store")
    assert same(lab, "filled")
    assert lab.published("small/store") > kept


@pytest.mark.filterwarnings("ignore")
def test_a_ray_node_that_is_lost_in_the_middle_of_a_training(
    lab: TimedLab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # read when ray is first imported
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    monkeypatch.setenv("PYTHONPATH", str(write_distribution(tmp_path / "site", "slow", SLOW)))
    pytest.importorskip("ray", reason="needs Ray: pip install 'alignment-harness[ray]'")
    from ray.cluster_utils import Cluster

    lab.begin("node")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        other = cluster.add_node(num_cpus=1)
        (raylet,) = [entry.process.pid for entry in other.all_processes["raylet"]]
        command = ("--executor", "ray", "--workers", "2", "--ray-address", cluster.address)
        with lab.start("node", *command, store="node") as process:
            wait_until(lambda: trains(raylet) or process.poll() is not None, PATIENCE)
            cluster.remove_node(other, allow_graceful=False)
            assert json.loads((lab.folder / "node" / "status.json").read_text())["state"] == "running"
            said = process.communicate(timeout=PATIENCE)[1]
    finally:
        cluster.shutdown()
    assert (process.returncode, said) == (0, "")
    assert same(lab, "node")
    assert list((lab.folder / "node" / "claims").glob("*")) == []


def trains(raylet: int) -> bool:
    """Whether a worker of a Ray node is at a training: Ray names a process as the task that it runs."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return any(
            child.cmdline()[0].startswith("ray::train ") for child in psutil.Process(raylet).children() if child.cmdline()
        )
    return False


def test_two_at_once_compute_nothing_twice(lab: TimedLab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there = artifacts(lab.begin("both"))
    monkeypatch.setenv("BEGUN", str(tmp_path / "begun"))
    monkeypatch.setenv("PYTHONPATH", str(write_distribution(tmp_path / "site", "counting", COUNTING)))
    pipe = subprocess.PIPE
    both = [
        subprocess.Popen(lab.command(out, "--workers", "2", store="both"), stdout=pipe, stderr=pipe, text=True)
        for out in ("left", "right")
    ]
    said = [process.communicate(timeout=PATIENCE)[1] for process in both]
    assert (said, [process.returncode for process in both]) == (["", ""], [0, 0])
    assert same(lab, "left")
    assert same(lab, "right")
    begun = Counter((tmp_path / "begun").read_text().split())
    stages = {event["key"] for out in ("left", "right") for event in events(lab, out) if event["event"] == "stage_finished"}
    assert begun.keys() == artifacts(lab.folder / "both") - there
    assert begun.keys() >= stages
    assert stages == lab.left
    assert set(begun.values()) == {1}
    for name in ("parts", "claims"):
        assert os.listdir(lab.folder / "both" / name) == []  # noqa: PTH208


def artifacts(store: Path) -> set[str]:
    """Keys of what a store holds."""
    return {path.parent.name for path in store.glob("artifacts/*/*/artifact.json")}


def events(lab: Lab, out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (lab.folder / out / "events.jsonl").read_text().splitlines()]
