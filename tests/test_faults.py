"""What a run lives through: killed, terminated, damaged, on a full disk, beside another, a Ray node lost.

`make faults` does it to the quickstart at one seed, `make faults CONFIG=` to a comparison of seconds. Of a long one only the
kills meet the whole, from an empty store; the other faults meet the part that is left to do.
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
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from distributions import write_distribution
from disturbed import PATIENCE, Disturbed, TimedLab, artifacts, events, left_to_do, same
from test_compare import Lab, made_lab, tiny_config, wait_until

pytestmark = pytest.mark.slow

KILLS, TERMINATIONS, ENDINGS, DAMAGES = 30, 10, 10, 40
LEFT = 30.0  # seconds that a run has left to do, of all but the one that is killed, where the undisturbed one took longer
# Seconds within which a moment is drawn, at most: so that the last finds the run still under way, and not at its beginning.
SPAN_OF_ALL, SPAN_OF_LEFT = 35.0, 12.0
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


@pytest.fixture(scope="session")
def lab(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> TimedLab:
    """The comparison that things happen to, undisturbed in `first`. All runs but that keep how far they are after every step
    and batch.
    """
    given = os.environ.get("FAULTS_CONFIG")
    config = yaml.safe_load(Path(given).read_text()) if given else tiny_config(tiny_checkpoint)
    if given:
        config["seeds"] = [int(seed) for seed in os.environ.get("FAULTS_SEEDS", "0").split(",")]
    config["run"] = {**config.get("run", {}), "checkpoint_minutes": 0}
    began = time.monotonic()
    made = made_lab(tmp_path_factory.mktemp("faults"), config, "--workers", "2", "--set", "run.checkpoint_minutes=10")
    return TimedLab(made.folder, made.config, time.monotonic() - began, left_to_do(made, LEFT))


def test_killed_at_random_moments(lab: TimedLab) -> None:
    rng = random.Random(9)

    def group(process: subprocess.Popen[bytes], workers: list[psutil.Process]) -> bool:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait() == -signal.SIGKILL

    def worker(process: subprocess.Popen[bytes], workers: list[psutil.Process]) -> bool:
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
    def terminated(process: subprocess.Popen[bytes], workers: list[psutil.Process]) -> bool:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)
        return process.returncode in (143, -signal.SIGTERM)  # before its handlers are there it ends as ever

    disturbed = Disturbed(lab, "terms", random.Random(15), SPAN_OF_LEFT, lab.begin)
    for _ in range(TERMINATIONS):
        disturbed.disturb(terminated)
    lab.run("terms", "--workers", "2", store="terms/store")
    assert same(lab, "terms")


# A plugin that says when a run is between its last stage and the first byte of its board.
ENDING = """
    import sys

    from harness.run import compare

    assemble = compare.assemble


    def held(*arguments, **options):
        board = assemble(*arguments, **options)
        print("assembled", file=sys.stderr, flush=True)
        return board


    compare.assemble = held
"""


def test_signals_while_the_board_is_written(lab: TimedLab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SIGTERM, and Ctrl-C once and twice, at moments between the last stage and the end of the process."""
    monkeypatch.setenv("PYTHONPATH", str(write_distribution(tmp_path / "site", "ending", ENDING)))
    rng, seen = random.Random(3), Counter[str]()
    for number in range(ENDINGS):
        signals = [[signal.SIGTERM], [signal.SIGINT], [signal.SIGINT, signal.SIGINT], [signal.SIGTERM, signal.SIGINT]][
            number % 4
        ]
        process = lab.start(f"ending-{number}", "--workers", "1", store="store")
        assert process.stderr is not None
        said = []
        while (line := process.stderr.readline()) and line != "assembled\n":
            said.append(line)
        time.sleep(rng.uniform(0, 1.0))
        for each in signals:
            process.send_signal(each)
            time.sleep(rng.uniform(0, 0.05))
        rest = process.communicate(timeout=PATIENCE)[1]
        folder = lab.folder / f"ending-{number}"
        state = json.loads((folder / "status.json").read_text())["state"]
        seen[state] += 1
        assert "Traceback" not in rest, rest
        assert process.returncode in (128 + signals[0], 0, -signals[0]), rest
        if process.returncode == 128 + signals[0] and state != "finished":
            assert state == ("interrupted" if signals[0] == signal.SIGINT else "terminated")
            assert rest.splitlines()[-1].startswith(state)
        if (folder / "board.json").exists():
            assert same(lab, folder.name)
        lab.run(folder.name, "--workers", "1")
        assert same(lab, folder.name)
        assert [path for path in folder.rglob(".*") if path.name.endswith(".part")] == []
    assert seen["interrupted"] + seen["terminated"] > 0


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes() or b"x")
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def cut(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: rng.randrange(max(1, path.stat().st_size))])


def lose(path: Path, rng: random.Random) -> None:
    path.unlink()


def become_fifo(path: Path, rng: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def become_link(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def lengthen(path: Path, rng: random.Random) -> None:
    with path.open("ab") as stream:
        stream.write(b"\0")


KINDS = (flip, cut, lose, become_fifo, become_link, lengthen)


def test_damaged_at_random(lab: Lab) -> None:
    """Damage of every kind to any file of an artifact: all is found, and the run gives the same board."""
    store, rng = lab.folder / "damaged", random.Random(0)
    shutil.copytree(lab.folder / "store", store)
    manifests = sorted(store.glob("artifacts/*/*/artifact.json"))
    damaged = rng.sample(manifests, min(DAMAGES, len(manifests)))
    for number, manifest in enumerate(damaged):
        path = rng.choice([path for path in sorted(manifest.parent.rglob("*")) if path.is_file()])
        KINDS[number % len(KINDS)](path, rng)
    verify = [*lab.command("x")[:3], "cache", "verify", "--json", "--store", str(store)]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 4, done.stderr
    assert set(json.loads(done.stdout)["damaged"]) == {manifest.parent.name for manifest in damaged}
    lab.run("damaged", "--workers", "2", store="damaged")
    assert same(lab, "damaged")
    assert len(list((store / "damaged").iterdir())) >= len(damaged) // 2  # what no later stage reads is not looked at
    done = subprocess.run([*verify, "--repair"], capture_output=True, text=True, timeout=PATIENCE)
    assert subprocess.run(verify, capture_output=True, timeout=PATIENCE).returncode == 0


def needs(folder: Path) -> int:
    """Bytes of all that a folder holds, in whole pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def disk(lab: TimedLab) -> Iterator[Path]:
    """A file system of its own, with room for any store, that can be made smaller."""
    folder = lab.folder / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16g", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def leave(disk: Path, free: int) -> None:
    """Give a file system the size that leaves so many bytes free."""
    now = os.statvfs(disk)
    size = (now.f_blocks - now.f_bfree) * now.f_frsize + free
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def test_a_disk_that_fills(lab: TimedLab, disk: Path) -> None:
    """A run that would not fit is refused before it begins; here others fill the disk while it runs."""
    there = lab.published(lab.begin("disk/store").relative_to(lab.folder).as_posix())
    process = lab.start("filled", "--workers", "2", store="disk/store")
    wait_until(lambda: lab.published("disk/store") > there or process.poll() is not None, PATIENCE)
    leave(disk, (needs(lab.folder / "store") - needs(disk / "store")) // 3)
    _, stderr = process.communicate()
    assert process.returncode == 4, stderr
    assert stderr.splitlines()[-1].startswith("error: ")
    assert "No space left on device" in stderr
    assert "Traceback" not in stderr
    assert json.loads((lab.folder / "filled" / "status.json").read_text())["state"] == "failed"
    kept = lab.published("disk/store")
    assert kept > there
    assert list((disk / "store" / "parts").iterdir()) == []
    refused = lab.run("filled", "--workers", "2", store="disk/store", code=4)
    assert "has no room for this run" in refused.stderr and lab.published("disk/store") == kept
    leave(disk, 2**34)
    lab.run("filled", "--workers", "2", store="disk/store")
    assert same(lab, "filled")
    assert lab.published("disk/store") > kept


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
        titles = ["".join(child.cmdline()[:1]) for child in psutil.Process(raylet).children()]  # none while one is renamed
        return any(title.startswith("ray::train ") for title in titles)
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
    errors = [process.communicate(timeout=PATIENCE)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
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
