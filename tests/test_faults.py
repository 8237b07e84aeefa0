"""What a run lives through: killed, terminated, damaged, on a full disk, beside another, a Ray node lost.

`make faults` does it to a comparison of seconds, `make faults CONFIG=configs/quickstart.yaml` to the quickstart.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from distributions import write_distribution
from test_compare import Lab, alive, made_lab, tiny_config, wait_until

pytestmark = pytest.mark.slow

KILLS, TERMINATIONS, DAMAGES = 20, 10, 10
PATIENCE = 3600.0  # seconds, for what would otherwise never come
COUNTING_BUILDER = """
    import pathlib
    import time

    from harness import DataBuilder, Group, Response, hookimpl


    class Counting(DataBuilder):
        name = "counting"
        place: str = ""

        def build(self, task):
            with pathlib.Path(self.place).open("a") as stream:
                stream.write("built\\n")
            for example in task.examples:
                yield Group(example.prompt, Response(example.target), (Response("no"),))


    @hookimpl
    def harness_data_builders():
        return [Counting]
"""


@pytest.fixture(scope="session")
def lab(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The comparison that things happen to, undisturbed in `first`."""
    given = os.environ.get("FAULTS_CONFIG")
    config = yaml.safe_load(Path(given).read_text()) if given else tiny_config(tiny_checkpoint)
    return made_lab(tmp_path_factory.mktemp("faults"), config)


def same(lab: Lab, out: str) -> bool:
    return lab.board(out).without_times() == lab.board("first").without_times()


def stopped_at_random(lab: Lab, store: str, number: int, times: int) -> list[int]:
    """Send a signal to a run at random moments, each time the run that goes on; the exit codes."""
    rng, codes = random.Random(number), []
    total = lab.published("store")
    for _ in range(times):
        process = lab.start(store, store=store)
        aim = min(total - 1, lab.published(store) + rng.randrange(0, 2 * total // times))
        wait_until(lambda: lab.published(store) >= aim or process.poll() is not None, PATIENCE)  # noqa: B023
        workers = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(number)
        process.communicate(timeout=120)
        codes.append(process.returncode)
        assert alive(workers) == []
    return codes


def test_killed_at_random_moments(lab: Lab) -> None:
    codes = stopped_at_random(lab, "kills", signal.SIGKILL, KILLS)
    assert set(codes) <= {-signal.SIGKILL, 0}
    assert codes.count(-signal.SIGKILL) >= KILLS // 2
    lab.run("kills", store="kills")
    assert same(lab, "kills")
    assert list((lab.folder / "kills" / "parts").iterdir()) == []


def test_terminated_at_random_moments(lab: Lab) -> None:
    codes = stopped_at_random(lab, "terms", signal.SIGTERM, TERMINATIONS)
    assert set(codes) <= {143, -signal.SIGTERM, 0}  # a signal before its handlers are there ends a process as ever
    lab.run("terms", store="terms")
    assert same(lab, "terms")


def test_damaged_at_random(lab: Lab) -> None:
    store, rng = lab.folder / "damaged", random.Random(0)
    shutil.copytree(lab.folder / "store", store)
    for manifest in rng.sample(sorted(store.glob("artifacts/*/*/artifact.json")), DAMAGES):
        path = rng.choice([path for path in sorted(manifest.parent.rglob("*")) if path.is_file()])
        content = bytearray(path.read_bytes() or b"x")
        content[rng.randrange(len(content))] ^= 0xFF
        path.write_bytes(content)
    lab.run("damaged", store="damaged")
    assert same(lab, "damaged")
    assert len(list((store / "damaged").iterdir())) >= DAMAGES // 2  # what no later stage reads is not looked at


def needs(folder: Path) -> int:
    """Bytes of all that a folder holds, in whole pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def small_disk(lab: Lab) -> Iterator[Path]:
    """A file system for a third of a store."""
    folder = lab.folder / "small"
    folder.mkdir()
    options = f"size={needs(lab.folder / 'store') // 3}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills(lab: Lab, small_disk: Path) -> None:
    done = lab.run("filled", store="small/store", code=4)
    assert done.stderr.startswith("error: ")
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((lab.folder / "filled" / "status.json").read_text())["state"] == "failed"
    kept = lab.published("small/store")
    assert kept >= 1
    assert list((small_disk / "store" / "parts").iterdir()) == []
    enough = f"remount,size={4 * needs(lab.folder / 'store')}"
    subprocess.run(["mount", "-o", enough, str(small_disk)], check=True)
    lab.run("filled", store="small/store")
    assert same(lab, "filled")
    assert lab.published("small/store") > kept


@pytest.mark.filterwarnings("ignore")
def test_a_ray_node_that_is_lost_in_the_middle_of_a_training(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # read when ray is first imported
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    pytest.importorskip("ray", reason="needs Ray: pip install 'alignment-harness[ray]'")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        other = cluster.add_node(num_cpus=1)
        (raylet,) = [entry.process.pid for entry in other.all_processes["raylet"]]
        process = lab.start("node", "--executor", "ray", "--workers", "2", "--ray-address", cluster.address, store="node")
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


def test_two_at_once_compute_nothing_twice(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mark = tmp_path / "built"
    monkeypatch.setenv("PYTHONPATH", str(write_distribution(tmp_path / "site", "counting-builder", COUNTING_BUILDER)))
    rows = ["sft", {"label": "counted", "data": {"name": "counting", "place": str(mark)}, "objective": "dpo"}, "oracle"]
    more = ["--set", f"methods={json.dumps(rows)}"]
    pipe = subprocess.PIPE
    both = [
        subprocess.Popen(lab.command(out, *more, store="both"), stdout=pipe, stderr=pipe, text=True)
        for out in ("left", "right")
    ]
    said = [process.communicate(timeout=PATIENCE)[1] for process in both]
    assert (said, [process.returncode for process in both]) == (["", ""], [0, 0])
    assert lab.board("left").without_times() == lab.board("right").without_times()
    assert mark.read_text() == "built\n"
    ran = [json.loads((lab.folder / out / "board.json").read_text())["sharing"]["stages_run"] for out in ("left", "right")]
    assert max(ran) > 0
    for name in ("parts", "claims"):
        assert os.listdir(lab.folder / "both" / name) == []  # noqa: PTH208
