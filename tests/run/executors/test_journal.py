"""The run folder's status and events, and what can be told from them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from harness import HarnessError
from harness.cli.status import _text
from harness.run.executors.journal import Journal, read_status
from harness.run.graph import Graph, RowPlan


def graph_of(count: int) -> Graph:
    graph = Graph()
    for number in range(count):
        graph.add("train", f"train {number}", {"n": number}, {}, weight=number + 1)
    return graph


def test_a_run_from_start_to_end(tmp_path: Path) -> None:
    graph, stream = graph_of(3), io.StringIO()
    first, second, third = graph
    journal = Journal(tmp_path, "tiny", (stream,))
    journal.begin(graph, {first.key})
    journal.started(second)
    journal.progress(second.key, 3, 10, "step 3")
    said = read_status(tmp_path)
    assert (said["state"], said["stages"], said["cached"], said["done"]) == ("running", 2, 1, 0)
    (running,) = said["running"]
    assert (running["title"], running["done"], running["total"], running["note"]) == ("train 1", 3, 10, "step 3")
    assert running["attempt"] == 1
    journal.again(second, "killed")
    assert read_status(tmp_path)["running"] == []
    journal.started(second)
    assert read_status(tmp_path)["running"][0]["attempt"] == 2
    assert "  train 1 · attempt 2 · since " in _text(read_status(tmp_path), tmp_path)
    journal.finished(second, 1.23456, None)
    said = read_status(tmp_path)
    assert (said["done"], said["work"], said["work_done"]) == (1, 5, 2)
    assert said["seconds_left"] >= 0
    journal.started(third)
    journal.finished(third, 1.0, "no")
    journal.end("finished")
    said = read_status(tmp_path)
    assert (said["state"], said["failed"]) == ("finished", [{"title": "train 2", "reason": "no"}])
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == [
        "run_started",
        "stage_started",
        "stage_again",
        "stage_started",
        "stage_finished",
        "stage_started",
        "stage_finished",
        "run_ended",
    ]
    assert (events[4]["seconds"], events[4]["error"], events[6]["error"]) == (1.235, None, "no")
    assert stream.getvalue() == (tmp_path / "events.jsonl").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "status.json"]


def test_what_no_file_can_hold_is_escaped(tmp_path: Path) -> None:
    graph, stream = graph_of(1), io.StringIO()
    (stage,) = graph
    journal = Journal(tmp_path, "tiny", (stream,))
    journal.begin(graph, set())
    journal.started(stage)
    journal.finished(stage, 1.0, "caf\udce9")
    assert read_status(tmp_path)["failed"] == [{"title": "train 0", "reason": "caf\udce9"}]
    assert '"error": "caf\\udce9"' in (tmp_path / "events.jsonl").read_text()
    assert stream.getvalue() == (tmp_path / "events.jsonl").read_text()
    assert "caf\\udce9" in _text(read_status(tmp_path), tmp_path)


def test_why_a_run_failed_is_kept_without_secrets(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "tiny")
    with pytest.raises(RuntimeError), journal.told():
        journal.begin(graph_of(1), set())
        raise RuntimeError("401 for sk-0123456789abcdef")
    assert read_status(tmp_path)["note"] == "401 for (hidden)"


def measured(folder: Path) -> list[dict[str, object]]:
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == "stage_measured"]


def test_intermediate_results_are_thinned_and_the_last_means_are_kept(tmp_path: Path) -> None:
    (stage,) = graph_of(1)
    journal = Journal(tmp_path, "tiny")
    journal.begin(graph_of(1), set())
    journal.measured(stage.key, {"scored": 1, "scores": {"mean": 1.0}})  # it does not run yet
    journal.started(stage)
    journal.measured(stage.key, {"points": [{"step": step, "loss": 1 / 3} for step in range(1, 601)]})
    for scored in (1, 2, 3):
        sample = {"prompt": "p", "response": f"sk-0123456789abcdef {scored}"}
        journal.measured(stage.key, {"scores": {"mean": 1 / scored}, "scored": scored, "sample": sample})  # type: ignore[typeddict-item]
    journal.finished(stage, 1.0, None)
    curve, first, last = measured(tmp_path)
    steps = [point["step"] for point in curve["points"]]  # type: ignore[attr-defined]
    assert steps == [*range(1, 201), *range(202, 601, 2)]
    assert curve["points"][0]["loss"] == 0.333333  # type: ignore[index]
    assert (first["scores"], first["sample"]) == ({"mean": 1.0}, {"prompt": "p", "response": "(hidden) 1"})
    assert (last["scores"], last["scored"], last.get("sample")) == ({"mean": 0.333333}, 3, None)


def test_the_rows_of_a_run_and_of_its_extension_are_told(tmp_path: Path) -> None:
    graph = graph_of(2)
    first, second = graph
    graph.rows = [RowPlan("dpo", 0, first.key, (), (first.key,), {"gold": (second.key,)})]
    journal = Journal(tmp_path, "tiny")
    journal.begin(graph, {first.key})
    journal.extend(graph, [second], set())
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    planned = [event for event in events if event["event"] == "rows_planned"]
    row = {"row": "dpo", "seed": 0, "training": [first.key], "evaluations": {"gold": [second.key]}}
    assert [(event["rows"], event["present"]) for event in planned] == [([row], [first.key]), ([row], [])]


def changed(folder: Path, **fields: object) -> None:
    place = folder / "status.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), **fields}))


def test_a_run_whose_process_is_gone(tmp_path: Path) -> None:
    Journal(tmp_path, "tiny").begin(graph_of(1), set())
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    changed(tmp_path, process=dead.pid)
    assert read_status(tmp_path)["state"] == "killed"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and its parent did not ask how
    changed(tmp_path, process=ended.pid, born=psutil.Process(ended.pid).create_time())
    assert read_status(tmp_path)["state"] == "killed"
    ended.wait()
    changed(tmp_path, process=os.getpid(), born=0)  # the number belongs to another process now
    assert read_status(tmp_path)["state"] == "killed"
    changed(tmp_path, machine="another-machine")
    assert read_status(tmp_path)["state"] == "running"
    changed(tmp_path, updated="2020-01-01T00:00:00+00:00")
    assert read_status(tmp_path)["state"] == "silent"


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    graph = graph_of(1)
    journal = Journal(tmp_path / "gone", "tiny")
    journal.begin(graph, set())
    journal.started(next(iter(graph)))
    journal.finished(next(iter(graph)), 1.0, None)
    journal.end("finished")
    assert not (tmp_path / "gone").exists()


def test_what_is_no_status(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"no run at .*: give the folder of a run"):
        read_status(tmp_path)
    for text in ("", "[]", "{}", '{"state": "running"}', '{"updated": 3}'):
        (tmp_path / "status.json").write_text(text)
        with pytest.raises(HarnessError, match="is no status of a run"):
            read_status(tmp_path)
