"""One tiny comparison, end to end: what is finished is kept, wherever a run is killed, and the board is the same."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from distributions import write_distribution
from inline import Ended, harness

from harness.board.build import Board
from harness.board.verify import VerifyOutcome
from harness.run.verify import verification

MAIN = "from harness.cli import main; main()"
KILLED_AFTER = (8, 48)  # artifacts in the store; at twenty random moments: tests/test_faults.py
EMPTY_BUILDER = """
    from harness import DataBuilder, hookimpl


    class Nothing(DataBuilder):
        name = "nothing"

        def build(self, task):
            task.count("the test wants none", len(task.examples))
            return []


    @hookimpl
    def harness_data_builders():
        return [Nothing]
"""


@dataclass(frozen=True)
class Lab:
    """Where the runs of this module happen.

    Attributes:
        inline: `run` starts no process, but for Ray's; `start` always does.
    """

    folder: Path
    config: Path
    inline: bool = False

    def command(self, out: str, *more: str, store: str = "store") -> list[str]:
        options = ["--workers", "1", "--out", str(self.folder / out), "--store", str(self.folder / store)]
        return [sys.executable, "-c", MAIN, "compare", str(self.config), *options, *more]

    def run(self, out: str, *more: str, store: str = "store", code: int = 0) -> subprocess.CompletedProcess[str] | Ended:
        command = self.command(out, *more, store=store)
        if self.inline and "--executor" not in more:
            done: subprocess.CompletedProcess[str] | Ended = harness(*command[3:])
        else:
            done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done

    def start(self, out: str, *more: str, store: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        command = self.command(out, *more, store=store)
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)

    def board(self, out: str) -> Board:
        return Board.read(self.folder / out / "board.json")

    def published(self, store: str) -> int:
        return len(list((self.folder / store / "artifacts").glob("*/*/artifact.json")))


@pytest.fixture(scope="session")
def lab(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A config, and the board of its first run in `first`."""
    return made_lab(tmp_path_factory.mktemp("lab"), tiny_config(tiny_checkpoint))


def made_lab(folder: Path, config: dict[str, Any], *more: str, inline: bool = False) -> Lab:
    """A lab in a folder, with the board of its first run in `first`; `more`: options of that run."""
    path = folder / f"{config['name']}.yaml"
    path.write_text(yaml.safe_dump(config))
    made = Lab(folder, path, inline)
    done = made.run("first", *more)
    (folder / "first.stdout").write_text(done.stdout)
    (folder / "first.stderr").write_text(done.stderr)
    return made


def tiny_config(checkpoint: Path) -> dict[str, Any]:
    """A comparison of seven rows that takes seconds."""
    return {
        "name": "tiny",
        "source": {"name": "sandbox", "sft": 40, "train": 32, "tuning": 8, "heldout": 24},
        "model": {"path": str(checkpoint)},
        "sft": {"epochs": 1, "batch_size": 16},
        "training": {"prompts_per_batch": 8},
        "generation": {"max_tokens": 12},
        "budget": {"prompts": 16},
        "methods": [
            "sft",
            "null",
            "dpo",
            {"method": "self_contrast", "data": {"samples": 4, "keep": 0.5}},
            "only_prompting",
            "sr_dpo",
            {"method": "oracle", "data": {"samples": 4}},
        ],
        "evaluators": [
            {"name": "gold_reward", "max_tokens": 12},
            "preference_accuracy",
            {"name": "response_stats", "max_tokens": 12},
        ],
        "seeds": [0],
        "baseline": "sft",
    }


def wait_until(true: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            pytest.fail("waited too long")
        time.sleep(0.01)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    psutil.wait_procs(processes, timeout=20)
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def test_every_row_is_on_the_board(lab: Lab) -> None:
    board = lab.board("first")
    labels = {"sft", "null", "dpo", "self_contrast", "only_prompting", "sr_dpo", "oracle"}
    assert {row.method for row in board.rows} == labels
    assert all(row.failed is None for row in board.rows)
    assert {row.method: row.kind for row in board.rows if row.kind != "measured"} == {"null": "null", "oracle": "control"}
    for row in board.rows:
        assert {metric.key: row.scores[metric.key].n for metric in board.primary} == dict.fromkeys(
            (metric.key for metric in board.primary), 24
        )
    dpo = board.row("dpo")
    assert dpo is not None
    assert dpo.provenance["data"]["0"][0]["pairs"] == 16
    files = {path.name for path in (lab.folder / "first").iterdir() if path.is_file()}
    assert {"board.json", "board.csv", "index.html", board.examples} <= files


def test_a_run_that_nobody_watches_prints_the_table_and_a_line_for_each_stage(lab: Lab) -> None:
    stdout = (lab.folder / "first.stdout").read_text()
    events = [json.loads(line) for line in (lab.folder / "first" / "events.jsonl").read_text().splitlines()]
    titles = [event["title"] for event in events if event["event"] == "stage_finished"]
    head, *lines = (lab.folder / "first.stderr").read_text().splitlines()
    assert head == f"tiny: {len(titles)} stages to run into {lab.folder / 'first'}; starting 1 worker process"
    ended = [line for line in lines if re.match(rf"\d+ of {len(titles)} · (?!running)", line)]
    assert [line.split(" · ", 1)[1].startswith(f"{title} · ") for line, title in zip(ended, titles, strict=True)]
    assert [line.split()[0] for line in ended] == [str(number) for number in range(1, len(titles) + 1)]
    assert any(" · loss 0." in line or " · loss 1." in line for line in ended)
    assert not {"\x1b", "\r"} & set(stdout)
    assert stdout.rstrip().endswith(f"Board: {lab.folder / 'first' / 'index.html'}")
    assert "self_contrast" in stdout


def test_a_second_run_computes_nothing_and_gives_the_same_board(lab: Lab) -> None:
    before, done = lab.published("store"), lab.run("second", "--json")
    answer = json.loads(done.stdout)
    assert done.stderr == ""
    assert lab.published("store") == before
    assert lab.board("second").without_times() == lab.board("first").without_times()
    assert answer["folder"] == str(lab.folder / "second")
    assert answer["failed"] == {}
    assert answer["board"] == json.loads((lab.folder / "second" / "board.json").read_text())
    assert answer["board"]["schema"] == 1
    assert answer["board"]["sharing"]["stages_run"] == 0
    assert not (lab.folder / "second" / "logs").exists()  # no worker was started


def test_a_board_is_rendered_again_from_its_file_alone(lab: Lab) -> None:
    folder, again = lab.folder / "first", lab.folder / "again"
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    command = [sys.executable, "-c", MAIN, "report", str(folder), "--out", str(again)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(before["board.json"])
    own = ("board.json", "examples.jsonl", "scores.parquet", "evidence.json.gz", "status.json", "events.jsonl", "run.json")
    rendered = {name: content for name, content in before.items() if name not in own}
    assert {path.name: path.read_bytes() for path in again.iterdir()} == rendered
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.replace(str(again), str(folder)) == (lab.folder / "first.stdout").read_text()


@pytest.mark.slow
def test_a_run_killed_anywhere_goes_on_to_the_same_board(lab: Lab) -> None:
    killed_at = []
    for count in KILLED_AFTER:
        process = lab.start("killed", store="killed-store")
        wait_until(lambda: lab.published("killed-store") >= count or process.poll() is not None)  # noqa: B023
        workers = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.communicate()
        assert alive(workers) == []
        killed_at.append(lab.published("killed-store"))
        assert not (lab.folder / "killed" / "board.json").exists()
    assert len(set(killed_at)) == len(KILLED_AFTER)
    lab.run("killed", store="killed-store")
    assert lab.published("killed-store") == lab.published("store") > killed_at[-1]
    assert lab.board("killed").without_times() == lab.board("first").without_times()
    assert list((lab.folder / "killed-store" / "parts").iterdir()) == []


def test_a_damaged_artifact_is_made_again(lab: Lab) -> None:
    store = lab.folder / "store"
    manifest = next(p for p in sorted(store.glob("artifacts/*/*/artifact.json")) if '"kind":"evaluate"' in p.read_text())
    (manifest.parent / "scores.jsonl").write_text("[]\n")
    lab.run("mended")
    assert len(list((store / "damaged").iterdir())) == 1
    assert lab.board("mended").without_times() == lab.board("first").without_times()


def test_samples_that_are_gone_from_the_store_are_not_missed(lab: Lab) -> None:
    store = lab.folder / "thinned-store"
    shutil.copytree(lab.folder / "store", store)
    made = [path for path in store.glob("artifacts/*/*/artifact.json") if '"kind":"samples"' in path.read_text()]
    assert len(made) >= 2
    shutil.rmtree(made[0].parent)
    (made[1].parent / "answers.jsonl").write_text("damaged\n")
    done = lab.run("thinned", "--log-json", store="thinned-store")
    assert json.loads(done.stderr.splitlines()[-1]) | {"time": ""} == {
        "time": "",
        "event": "run_ended",
        "state": "finished",
        "note": "",
    }
    assert lab.board("thinned").without_times() == lab.board("first").without_times()


def test_a_terminated_run_says_so_and_leaves_no_worker(lab: Lab) -> None:
    process = lab.start("terminated", store="terminated-store")
    wait_until(lambda: lab.published("terminated-store") >= 1 or process.poll() is not None)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 143
    assert stdout == "" and "Traceback" not in stderr
    assert "terminated; finished stages are kept, and the same command continues from them\n" in stderr
    assert alive(workers) == []
    assert list((lab.folder / "terminated-store" / "parts").iterdir()) == []


def failing(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    monkeypatch.setenv("PYTHONPATH", str(write_distribution(tmp_path, "empty-builder", EMPTY_BUILDER)))
    rows: list[Any] = ["sft", {"label": "broken", "data": "nothing", "objective": "dpo"}, "dpo"]
    return lab.run("failing", "--set", f"methods={json.dumps(rows)}", *more, code=3)


def test_a_row_that_fails_is_marked_and_the_others_finish(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer = json.loads(failing(lab, monkeypatch, tmp_path, "--json").stdout)
    reason = "data builder 'nothing' made no group from 16 prompts (the test wants none: 16)"
    assert answer["failed"] == {"broken": f"data nothing · seed 0: {reason}"}
    board = lab.board("failing")
    broken, dpo = board.row("broken"), board.row("dpo")
    assert broken is not None
    assert dpo is not None
    assert broken.failed == answer["failed"]["broken"]
    assert broken.scores == {}
    first = lab.board("first").row("dpo")
    assert first is not None
    assert {key: s.mean for key, s in dpo.scores.items()} == {key: s.mean for key, s in first.scores.items()}
    assert verification(lab.folder / "failing").outcome() is VerifyOutcome.verified


def test_a_baseline_that_fails_is_an_error_without_a_traceback(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = failing(lab, monkeypatch, tmp_path, "--set", "baseline=broken", "--replace")
    assert done.stderr.splitlines()[-1].startswith(
        "error: the baseline 'broken' failed, so there is nothing to compare with: data nothing"
    )
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_ray_gives_the_same_board(lab: Lab) -> None:
    pytest.importorskip("ray")
    lab.run("ray", "--executor", "ray", "--workers", "2", store="ray-store")
    assert lab.board("ray").without_times() == lab.board("first").without_times()


def running(status: Path) -> list[str]:
    """The stages that are under way, by a run's status file."""
    return [stage["key"] for stage in json.loads(status.read_text())["running"]] if status.exists() else []


@pytest.mark.slow  # tests/cli/test_signals.py has quick ones
def test_an_interrupted_run_finishes_what_runs_and_goes_on(lab: Lab) -> None:
    """All that runs, on every worker: with one, what ends a run after the first stage would look the same."""
    process = lab.start("interrupted", "--workers", "2", store="interrupted-store")
    status = lab.folder / "interrupted" / "status.json"
    seen: list[list[str]] = []
    wait_until(lambda: seen.append(running(status)) or len(seen[-1]) == 2 or process.poll() is not None)
    under_way = seen[-1]
    os.kill(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout) == (130, "")
    assert "finishing the running stages first; press Ctrl-C again to end at once\n" in stderr and "\nerror: " in stderr
    assert stderr.endswith("finished stages are kept, and the same command continues from them\n")
    said = json.loads(status.read_text())
    assert (said["state"], said["running"]) == ("interrupted", [])
    assert lab.published("interrupted-store") >= said["done"] >= 2
    events = [json.loads(line) for line in (lab.folder / "interrupted" / "events.jsonl").read_text().splitlines()]
    finished = {event["key"] for event in events if event["event"] == "stage_finished"}
    assert len(under_way) == 2 and set(under_way) <= finished
    begun = {event["key"] for event in events if event["event"] == "stage_started"}
    assert begun == finished and len(finished) < lab.published("store")  # none ended half-way, and none was begun after
    assert list((lab.folder / "interrupted-store" / "parts").iterdir()) == []


@pytest.mark.slow
def test_a_run_interrupted_twice_ends_at_once(lab: Lab) -> None:
    process = lab.start("twice", store="twice-store")
    status = lab.folder / "twice" / "status.json"
    wait_until(lambda: (status.exists() and '"since"' in status.read_text()) or process.poll() is not None)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert process.stderr is not None
    os.kill(process.pid, signal.SIGINT)
    line = "finishing the running stages first; press Ctrl-C again to end at once\n"
    assert line in iter(process.stderr.readline, "")
    os.kill(process.pid, signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in rest
    assert "interrupted; finished stages are kept, and the same command continues from them\n" in rest
    assert json.loads(status.read_text())["state"] == "interrupted"
    assert workers
    assert alive(workers) == []
    assert list((lab.folder / "twice-store" / "parts").iterdir()) == []


def test_the_status_of_a_run(lab: Lab) -> None:
    command = [sys.executable, "-c", MAIN, "status", str(lab.folder / "first")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.startswith(f"tiny · finished · {lab.folder / 'first'}\n")
    said = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)
    assert (said["done"], said["failed"]) == (said["stages"], [])
    events = [json.loads(line) for line in (lab.folder / "first" / "events.jsonl").read_text().splitlines()]
    assert len([event for event in events if event["event"] == "stage_finished"]) == said["stages"]


def test_the_events_hold_curves_means_and_samples_as_they_came(lab: Lab) -> None:
    events = [json.loads(line) for line in (lab.folder / "first" / "events.jsonl").read_text().splitlines()]
    (planned,) = [event for event in events if event["event"] == "rows_planned"]
    measured = [event for event in events if event["event"] == "stage_measured"]
    (row,) = [row for row in planned["rows"] if row["row"] == "dpo"]
    dpo = lab.board("first").row("dpo")
    assert dpo is not None
    points = [point for event in measured if event["key"] in row["training"] for point in event.get("points", ())]
    assert [point["step"] for point in points] == [point["step"] for point in dpo.curves["0"]] == [1, 2]
    assert [point["loss"] for point in points] == pytest.approx([point["loss"] for point in dpo.curves["0"]], rel=1e-5)
    for evaluator, keys in row["evaluations"].items():
        last = [event for event in measured if event["key"] in keys][-1]
        means = {f"{evaluator}/{metric}": mean for metric, mean in last["scores"].items()}
        assert means
        assert means == pytest.approx({key: dpo.scores[key].mean for key in means}, rel=1e-5)
    samples = [event["sample"] for event in measured if "sample" in event]
    assert samples
    assert all(sample["prompt"] for sample in samples)
