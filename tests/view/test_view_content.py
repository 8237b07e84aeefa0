"""A page's content: what events and status say, also where lines are half-written, damaged or hostile, and where files lack."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from made_boards import HOSTILE
from made_runs import graph_of_rows, run_stage, write_running
from viewer_client import Connect

from harness.board import Board
from harness.board.views.page import to_html
from harness.board.views.text import visible
from harness.errors import HarnessError
from harness.run.executors.journal import Journal
from harness.view.app import OpenPages, _run_stream
from harness.view.boards import ProvisionalBuilder
from harness.view.events import MOST_POINTS, Curve
from harness.view.folders import Runs
from harness.view.provisional import Provisional
from harness.view.run import LiveRun, Snapshot
from harness.view.summary import summarise
from harness.view.tail import Tail


def snapshot(folder: Path) -> Snapshot:
    return LiveRun(folder, "half").refresh()


def test_a_run_that_is_half_way(root: Path) -> None:
    run = LiveRun(root / "half", "half")
    shown = run.refresh()
    assert shown.status is not None
    assert (shown.status.state, shown.status.done, shown.status.stages) == ("running", 10, 24)
    assert [stage.title for stage in shown.status.running] == ["train dpo · seed 1", "train simpo · seed 1"]
    assert shown.provisional and not shown.board
    rows = {row.label: row for row in shown.rows}
    assert [*rows] == ["sft", "dpo", "simpo", "self_contrast"]
    assert (rows["dpo"].state, rows["dpo"].done, rows["dpo"].of, rows["dpo"].seeds, rows["dpo"].planned) == (
        "running",
        3,
        6,
        1,
        2,
    )
    assert [metric.key for metric in shown.metrics] == ["gold/reward", "stats/length", "stats/repeated"]
    (reward, *_) = rows["dpo"].cells
    assert reward is not None and reward.scored == 64 and reward.low is None
    assert [figure.title for figure in shown.figures] == ["dpo", "simpo", "self_contrast", "SFT"]
    assert [line.seed for line in shown.figures[0].lines] == [0, 1]
    assert shown.samples[0].prompt == "How do I stay awake in the afternoon?"
    assert shown.seconds.keys() == {"sft", "train", "evaluate"}
    version, curves = run.curves(-1)
    assert [point["step"] for point in curves[0].points] == [*range(1, 41)]
    assert run.curves(version) == (version, [])


def test_rows_that_failed_say_why_and_are_tried_again_by_the_next_run(tmp_path: Path) -> None:
    write_running(tmp_path / "half", error="no GPU")
    row = snapshot(tmp_path / "half").rows[-1]
    assert (row.label, row.state, row.failed) == ("self_contrast", "failed", "no GPU")
    Journal(tmp_path / "half", "again").begin(graph_of_rows(), set())
    row = snapshot(tmp_path / "half").rows[-1]
    assert (row.state, row.failed) == ("waiting", None)


def test_a_run_that_was_killed_and_goes_on_in_the_same_folder(root: Path) -> None:
    run = LiveRun(root / "half", "half")
    before = run.refresh()
    status = root / "half" / "status.json"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    status.write_text(json.dumps({**json.loads(status.read_text()), "process": dead.pid}))
    killed = run.refresh().status
    assert killed is not None and killed.state == "killed"
    journal = Journal(root / "half", "a run")
    graph = graph_of_rows()
    journal.begin(graph, {stage.key for stage in graph if stage.key in run.events.ended})
    waiting = next(stage for stage in graph if stage.title == "train dpo · seed 1")
    run_stage(journal, waiting)
    after = run.refresh()
    assert after.status is not None and after.status.state == "running" and after.epoch == before.epoch
    dpo = next(row for row in after.rows if row.label == "dpo")
    assert (dpo.done, dpo.of) == (4, 6)  # three from before, and one of this run
    (curve,) = [curve for curve in run.curves(-1)[1] if curve.key == waiting.key]
    assert [point["step"] for point in curve.points] == [*range(1, 41)]  # it began again: no step is there twice


@pytest.mark.parametrize("missing", ["status.json", "events.jsonl"])
def test_a_missing_file_leaves_the_rest(root: Path, missing: str) -> None:
    (root / "half" / missing).unlink()
    shown = snapshot(root / "half")
    assert (shown.status is None) == (missing == "status.json")
    assert bool(shown.rows) == (missing == "status.json")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"state": 1}', "\x00", '{"name": 3, "state": "running"}'])
def test_a_damaged_status_is_named(root: Path, connect: Connect, content: str) -> None:
    (root / "half" / "status.json").write_text(content)
    shown = snapshot(root / "half")
    assert shown.status is None and shown.rows
    assert "status.json" in shown.problem
    assert connect(root).get("/run/half").status_code == 200


def test_a_line_is_read_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tail = Tail(path)
    assert tail.read() == (False, [])
    path.write_bytes(b"one\ntw")
    assert tail.read() == (False, [b"one"])
    assert tail.read() == (False, [])
    with path.open("ab") as file:
        file.write(b"o\nthree\n")
    assert tail.read() == (False, [b"two", b"three"])
    path.write_bytes(b"anew\n")  # shorter: another run's
    assert tail.read() == (True, [b"anew"])
    path.unlink()
    assert tail.read() == (True, [])


def test_lines_that_are_no_events_are_counted_and_passed_over(root: Path) -> None:
    lines = [
        "",
        "[]",
        "{",
        '{"event": 3}',
        '{"event": "stage_measured", "key": "k", "points": [{"step": NaN}]}',
        "\ud800",
        "x" * 10_000,
    ]
    with (root / "half" / "events.jsonl").open("a", encoding="utf-8", errors="surrogatepass") as file:
        file.write("\n".join(lines) + '\n{"event": "of_another_version"}\n{"event": "run_sta')
    run = LiveRun(root / "half", "half")
    assert run.refresh().unreadable == len(lines)
    assert run.refresh().rows


def test_hostile_texts_are_written_out_and_reach_no_markup(tmp_path: Path, connect: Connect) -> None:
    folder = tmp_path / "runs" / "<img src=x onerror=alert(1)>"
    write_running(folder, HOSTILE, sample=HOSTILE, error=HOSTILE)
    shown = LiveRun(folder, "half").refresh()
    text = shown.model_dump_json()
    assert not any(character in text for character in "\u202e\u202c\u200f")
    assert "\\u001b" not in text
    assert shown.samples[0].response == visible(HOSTILE)
    answer = connect(tmp_path / "runs").get("/run/" + "%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E")
    assert answer.status_code == 200
    assert "<img" not in answer.text


def test_long_curves_are_thinned_and_repeated_steps_replaced() -> None:
    curve = Curve("train")
    for step in range(1, 3 * MOST_POINTS):
        curve.extend([{"step": step, "loss": 1.0}])
    assert MOST_POINTS <= len(curve.points) < 2 * MOST_POINTS
    curve.extend([{"step": 5, "loss": 2.0}, {"loss": 3.0}])
    assert curve.points[-1] == {"step": 5, "loss": 2.0}
    assert all(point["step"] < 5 for point in curve.points[:-1])


@pytest.fixture(scope="session")
def board() -> Board:
    """A committed board of seven rows at three seeds, with a few of its examples."""
    board = Board.read(Path(__file__).resolve().parents[2] / "leaderboards" / "hh-rlhf-small")
    return board.with_examples(board.example_rows[:5])


def test_a_finished_board_is_the_same_page_as_its_index(root: Path, connect: Connect, board: Board) -> None:
    board.write(root / "done")
    shown = snapshot(root / "done")
    assert shown.board and not shown.provisional and shown.status is None
    assert {row.state for row in shown.rows} <= {"complete", "failed"}
    client = connect(root)
    answer = client.get("/board/done/index.html")
    assert answer.text == to_html(board, board.example_rows)
    assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts;")
    assert client.get("/board/done/../secret.html").status_code == 404
    assert client.get("/board/done/models/no.html").status_code == 404
    assert client.get("/board/half/index.html").status_code == 404  # nothing is complete there


def test_the_index_lists_runs_that_run_first_and_boards_without_a_journal(root: Path, board: Board) -> None:
    board.write(root / "done")
    (root / "broken").mkdir()
    (root / "broken" / "board.json").write_text("{")
    viewer = OpenPages(Runs.of(root))
    first, *others = viewer.index()
    assert (first["id"], first["state"], first["done"], first["stages"]) == ("half", "running", 10, 24)
    by_name = {str(card["id"]): card for card in others}
    assert by_name["done"]["rows"] == len(board.rows)
    assert "cannot be read" in str(by_name["broken"]["problem"])


def test_a_provisional_board_ranks_complete_rows_and_the_others_follow(root: Path, board: Board) -> None:
    run = LiveRun(root / "half", "half", Provisional(summary=summarise(board), page="<p>provisional</p>"))
    shown = run.refresh()
    assert shown.provisional and shown.board
    labels = [row.method for row in board.rows]
    assert [row.label for row in shown.rows] == [
        *labels,
        *(label for label in ("sft", "dpo", "simpo", "self_contrast") if label not in labels),
    ]
    first = shown.rows[0].cells[0]
    assert first is not None and first.low is not None and first.low < first.mean < (first.high or 0)


def test_a_provisional_board_is_built_when_another_row_is_complete(
    root: Path, monkeypatch: pytest.MonkeyPatch, board: Board
) -> None:
    built: list[Path] = []

    async def build(folder: Path) -> Provisional:
        built.append(folder)
        return Provisional(summary=summarise(board)) if len(built) == 1 else Provisional(problem="no store")

    monkeypatch.setattr("harness.view.boards._provisional", build)
    run = LiveRun(root / "half", "half")
    builder = ProvisionalBuilder(run)

    async def look() -> None:
        builder.consider(run.refresh())
        builder.consider(run.refresh())
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(look())
    assert len(built) == 1
    journal = Journal(root / "half", "a run")
    graph = graph_of_rows()
    journal.begin(
        graph, {stage.key for stage in graph if stage.title.endswith(("dpo · seed 1", "SFT · seed 1"))} | set(run.events.ended)
    )
    builder._next = 0.0
    asyncio.run(look())
    assert len(built) == 2
    assert run.provisional is not None and run.provisional.summary is not None  # the last one stands where another fails
    assert run.refresh().board_problem == "no store"


def test_a_stream_begins_with_everything_and_goes_on_with_what_changes(root: Path) -> None:
    run = LiveRun(root / "half", "half")

    def kind(event: str) -> tuple[str, Any]:
        head, data, *_ = event.split("\n")
        return head.removeprefix("event: "), json.loads(data.removeprefix("data: "))

    async def read() -> None:
        builder = ProvisionalBuilder(run)
        builder._next = float("inf")
        stream = _run_stream(run, builder)
        first = [kind(await anext(stream)) for _ in range(1 + len(run_keys))]
        assert first[0][0] == "run" and {what for what, _ in first[1:]} == {"curve"}
        with (root / "half" / "events.jsonl").open("a") as file:
            file.write(
                json.dumps({"event": "stage_measured", "key": "new", "title": "train x", "points": [{"step": 1, "loss": 1}]})
                + "\n"
            )
        assert kind(await anext(stream))[0] == "run"
        assert kind(await anext(stream)) == ("curve", {"key": "new", "points": [{"step": 1.0, "loss": 1.0}]})
        await stream.aclose()  # type: ignore[attr-defined]

    run.refresh()
    run_keys = run.events.curves
    asyncio.run(read())


def test_no_folder_is_an_error_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"no folder .*: run `harness compare` first, or give the folder of a run"):
        Runs.of(tmp_path / "runs")


def test_the_viewer_loads_no_library_of_models() -> None:
    heavy = ("torch", "transformers", "trl", "datasets")
    code = f"import sys, harness.view.server; print([name for name in {heavy} if name in sys.modules])"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert said.stdout == "[]\n"
