"""Intermediate states of a training: planned without other keys, gone through once, evaluated, and drawn as learning curves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from inline import inline_workers
from typer.testing import CliRunner

from harness.api.registry import Registry
from harness.board import Board
from harness.board.board import board_states
from harness.board.build import LoadedBoard
from harness.board.merge import merge
from harness.board.verify import VerifyOutcome, verify
from harness.cli import app
from harness.config import Comparison, resolve
from harness.errors import ConfigError
from harness.run.executors.schedule import Schedule
from harness.run.graph import Graph, Stage
from harness.run.plan import plan
from harness.run.records import StateFacts, StatePayload
from harness.run.stages import run_stage
from harness.run.stages.context import Context
from harness.run.verify import verification
from harness.store import Store

TWO = {"method": "dpo", "label": "two", "rounds": [{}, {"learning_rate_factor": 0.5}]}
COMMAND = {
    "label": "outside",
    "data": "preference",
    "trainer": {"name": "command", "command": "true {start} {data} {out} {seed}"},
}
DURING = {"during": [0.25, 0.5], "during_evaluators": ["gold_reward"]}


@pytest.fixture(scope="module", autouse=True)
def _no_worker_processes() -> Iterator[None]:
    with inline_workers():
        yield


def config(model: object, **changes: Any) -> dict[str, Any]:
    return {
        "name": "during",
        "source": {"name": "sandbox", "sft": 8, "train": 16, "tuning": 8, "heldout": 6},
        "model": {"path": str(model)},
        "sft": {"epochs": 1},
        "generation": {"max_tokens": 12},
        "budget": {"prompts": 16},
        "training": {"prompts_per_batch": 2},
        "methods": ["sft", "dpo", {**TWO, "rows": "each_round"}],
        "evaluators": [
            {"name": "gold_reward", "n": 1, "max_tokens": 12},
            {"name": "response_stats", "n": 1, "max_tokens": 12},
        ],
        "evaluation": DURING,
        "seeds": [0, 1],
        "baseline": "sft",
        "run": {"checkpoint_minutes": 0},
        **changes,
    }


def resolved(**changes: Any) -> Comparison:
    return resolve(config("sandbox", **changes), Registry.load())


def test_states_change_no_key_of_a_plan_and_come_before_their_training() -> None:
    without, graph = plan(resolved(evaluation={})), plan(resolved())
    assert without.stages.keys() < graph.stages.keys()
    added = [graph.stages[key] for key in graph.stages.keys() - without.stages.keys()]
    assert {stage.kind for stage in added} == {"state", "answers", "evaluate"}
    states = [stage for stage in added if stage.kind == "state"]
    assert len(states) == 2 * 3 * 2  # shares, trainings (rounds share theirs), seeds
    for stage in states:
        payload = StatePayload.of(stage)
        training = graph.stages[payload.training]
        assert training.inputs == stage.inputs and len(training.after) == 1
        last = graph.stages[training.after[0]]
        assert last.key == stage.key if payload.share == 0.5 else last.after == (stage.key,)


def test_rounds_have_their_start_their_shares_and_the_ends_between() -> None:
    rows = {row.label: row for row in plan(resolved()).rows if row.seed == 0}
    assert rows["sft"].states == ()
    assert [(s.round, s.share, s.position) for s in rows["two@2"].states] == [
        (1, 0.0, 0.0),
        (1, 0.25, 0.125),
        (1, 0.5, 0.25),
        (1, 1.0, 0.5),
        (2, 0.25, 0.625),
        (2, 0.5, 0.75),
    ]
    first, second = rows["two@1"], rows["two@2"]
    assert [s.model for s in first.states] == [s.model for s in second.states[:3]]
    assert (
        second.states[3].model == second.training[0]
        and (second.states[3].evaluations["gold_reward"],) == first.evaluations["gold_reward"]
    )
    starts = {(row.states[0].model, row.states[0].evaluations["gold_reward"]) for row in (*rows.values(),) if row.states}
    assert starts == {(rows["sft"].model, *rows["sft"].evaluations["gold_reward"])}
    assert set(second.states[1].evaluations) == {"gold_reward"}


def test_a_judge_is_asked_about_a_state_under_a_name_of_its_own() -> None:
    judged = {"name": "pairwise_judge", "opponent": "dpo", "max_tokens": 8}
    graph = plan(resolved(evaluators=[judged], evaluation={"during": [0.5]}, judge={"model": "m", "base_url": "http://j/v1"}))
    rows = {row.label: row for row in graph.rows if row.seed == 0}
    start, half = (graph.stages[state.evaluations["pairwise_judge"]] for state in rows["dpo"].states)
    assert (start.payload["label"], half.payload["label"]) == ("the start", "dpo, round 1 at 0.5")
    assert half.inputs["opponent:dpo"] == graph.stages[rows["two@1"].evaluations["pairwise_judge"][0]].inputs["opponent:dpo"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"during": [0.5, 1.0]}, r"evaluation\.during = \[0\.5, 1\.0\].*between 0 and 1"),
        ({"during": [0, 0.5]}, "between 0 and 1"),
        ({"during": [0.5, 0.5]}, "ascending order, each once"),
        ({"during": [0.5, 0.25]}, "ascending order, each once"),
        ({"during": []}, r"evaluation\.during"),
        ({"during_evaluators": ["gold_reward"]}, "give `during` too"),
        (
            {**DURING, "during_evaluators": ["gold"]},
            r"during_evaluators = 'gold': no evaluator has this label; known: gold_reward",
        ),
    ],
)
def test_what_is_wrong_with_the_section_is_one_error(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s)1 problem.*{words}"):
        resolved(evaluation=changes)


def test_rows_without_states_say_why_and_are_an_error_where_no_row_has_any() -> None:
    with pytest.raises(
        ConfigError, match=r"no row has intermediate states \(sft: it trains nothing; outside: its trainer command"
    ):
        resolved(methods=["sft", COMMAND])
    rows = plan(resolved(methods=["sft", "dpo", COMMAND])).rows
    assert [len(row.states) for row in rows] == [0, 3, 0] * 2


def test_an_evaluator_with_each_opponent_is_named_by_its_label() -> None:
    each = {"name": "pairwise_judge", "label": "against", "opponent": "each", "max_tokens": 8}
    judge = {"model": "m", "base_url": "http://j/v1"}
    comparison = resolved(
        evaluators=["gold_reward", each], evaluation={**DURING, "during_evaluators": ["against"]}, judge=judge
    )
    assert comparison.during_evaluators == tuple(f"against@{row}" for row in ("sft", "dpo", "two@1", "two@2"))


def test_a_state_that_fails_takes_no_training_along() -> None:
    graph = Graph()
    state = graph.add("state", "state", {"training": "t", "share": 0.5, "settings": {}, "seed": 0}, {})
    answers = graph.add("answers", "answers", {}, {"model": state})
    train = graph.add("train", "train", {}, {}, after=(state,))
    schedule = Schedule(graph, set())
    first = schedule.take()
    assert first is not None and first.key == state and schedule.take() is None
    schedule.finish(first, "out of memory")
    second = schedule.take()
    assert second is not None and second.key == train
    schedule.finish(second, None)
    assert schedule.done and schedule.outcome.ran == {train} and schedule.outcome.skipped == {answers: state}


# A run


def compare(folder: Path, raw: dict[str, Any], out: str, store: str) -> Path:
    file = folder / f"{out}.yaml"
    file.write_text(yaml.safe_dump(raw))
    done = CliRunner().invoke(
        app, ["compare", str(file), "--workers", "1", "--out", str(folder / out), "--store", str(folder / store)]
    )
    assert done.exit_code == 0, done.output
    return folder / out


class Lab:
    """A finished run with states, and the store and the graph of a run that asked for them later."""

    def __init__(self, folder: Path, tiny: Path) -> None:
        self.folder, self.tiny = folder, tiny
        self.run = compare(folder, config(tiny), "run", "store")
        small = config(tiny, methods=["sft", "dpo"], seeds=[0], evaluation={})
        compare(folder, small, "plain", "other")
        self.later_raw = {**small, "evaluation": {"during": [0.25, 0.5, 0.75], "during_evaluators": ["gold_reward"]}}
        self.later = compare(folder, self.later_raw, "later", "other")
        self.store, self.other = Store(folder / "store"), Store(folder / "other")

    def graph(self) -> Graph:
        return plan(resolve(self.later_raw, Registry.load()))


@pytest.fixture(scope="module")
def lab(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("during"), tiny_checkpoint)


def weights(store: Store, key: str) -> str:
    files = json.loads((store.place(key) / "artifact.json").read_text())["files"]
    return str(files["model/model.safetensors"])


def states(graph: Graph) -> list[Stage]:
    return sorted((stage for stage in graph if stage.kind == "state"), key=lambda stage: StatePayload.of(stage).share)


def test_the_board_has_a_learning_curve_of_each_row_that_trains(lab: Lab) -> None:
    board = Board.read(lab.run)
    rows = {row.method: row for row in board.rows}
    assert rows["sft"].states is None and rows["sft"].without_states == "it trains nothing"
    assert [state.position for state in rows["two@2"].states or ()] == [0.0, 0.125, 0.25, 0.5, 0.625, 0.75]
    start, end = (rows["two@2"].states or ())[0], (rows["two@2"].states or ())[3]
    for state, row in ((start, rows["sft"]), (end, rows["two@1"])):
        point, score = state.scores["gold_reward/gold"], row.scores["gold_reward/gold"]
        assert (point.mean, point.per_seed, point.n) == (score.mean, score.per_seed, 6)
        assert point.low < point.mean < point.high
    assert not any(key.startswith("response_stats") for state in rows["dpo"].states or () for key in state.scores)
    assert set(board.files or {}) == {"evidence.json.gz", "examples.jsonl", "scores.parquet", "states.parquet"}
    assert "## Learning curves" in (lab.run / "board.md").read_text()
    page = (lab.run / "index.html").read_text()
    assert 'id="learning"' in page and "sft (it trains nothing)." in page
    assert 'id="learning"' not in (lab.folder / "plain" / "index.html").read_text()


def test_its_numbers_follow_from_the_states_scores(lab: Lab, tmp_path: Path) -> None:
    assert verification(lab.run).outcome() is VerifyOutcome.verified
    point = (Board.read(lab.run).row("dpo").states or ())[1].scores["gold_reward/gold"]  # type: ignore[union-attr]
    for file in lab.run.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    text = (lab.run / "board.json").read_text()
    (tmp_path / "board.json").write_text(text.replace(f'"low": {point.low!r}', '"low": -77.0'))
    problems = verify(tmp_path)
    assert problems and all("states" in text and "-77.0" in text for text in problems)
    (tmp_path / "states.parquet").unlink()
    assert any("states.parquet is missing" in text for text in verify(tmp_path))


def test_a_training_with_states_ends_on_the_same_bits(lab: Lab) -> None:
    """The first run made states and went on to the end; the other trained, and was asked for states later."""
    (training,) = [stage for stage in lab.graph() if stage.kind == "train"]
    assert weights(lab.store, training.key) == weights(lab.other, training.key)
    shared = [stage.key for stage in states(lab.graph()) if lab.store.holds(stage.key)]
    assert len(shared) == 2
    assert [weights(lab.store, key) for key in shared] == [weights(lab.other, key) for key in shared]
    steps = [StateFacts.of(lab.other.open(stage.key)) for stage in states(lab.graph())]
    assert [(facts.step, facts.steps) for facts in steps] == [(2, 8), (4, 8), (6, 8)]
    assert len({weights(lab.other, stage.key) for stage in states(lab.graph())}) == 3
    plain, later = (Board.read(lab.folder / name).row("dpo") for name in ("plain", "later"))
    assert plain is not None and later is not None and plain.scores == later.scores
    assert not any((lab.folder / "other" / "partial").glob("*"))


def test_steps_are_trained_once(lab: Lab) -> None:
    """Of the states, each went on from the one before; the training that was there already was not made again."""
    ran = [json.loads(line) for line in (lab.later / "events.jsonl").read_text().splitlines()]
    assert [event["kind"] for event in ran if event["event"] == "stage_started"].count("train") == 0
    logged = [line for line in (lab.run / "events.jsonl").read_text().splitlines() if '"stage_started"' in line]
    titles = [json.loads(line)["title"] for line in logged if '"kind": "state"' in line or '"kind": "train"' in line]
    assert [title for title in titles if "dpo · seed 0" in title] == [
        "train dpo · seed 0 up to 0.25",
        "train dpo · seed 0 up to 0.5",
        "train dpo · seed 0",
    ]


def test_killed_anywhere_it_resumes_to_the_same_state(lab: Lab) -> None:
    graph, seen = lab.graph(), list[tuple[int, int]]()
    quarter, half, _ = states(graph)
    context = Context(
        lab.other,
        Registry.load(),
        graph.checkpoints,
        lambda done, total, note: seen.append((done, total)),
        checkpoint_minutes=0,
    )
    entries = {entry.key: entry for entry in lab.other.entries()}
    before = {stage.key: weights(lab.other, stage.key) for stage in (quarter, half)}

    def again(stage: Stage) -> list[int]:
        """Make a state once more, and return the steps that were trained for it."""
        seen.clear()
        lab.other.remove(entries[stage.key])
        run_stage(stage, context)
        assert weights(lab.other, stage.key) == before[stage.key]
        return [done for done, _ in seen if done]

    assert again(half) == [1, 2, 3, 4]  # nothing to go on from
    assert again(half) == []  # killed after its last checkpoint, before its artifact
    assert again(quarter) == [1, 2]  # a later checkpoint is of no use
    assert again(half) == [3, 4]


def test_boards_with_and_without_states_are_merged(lab: Lab) -> None:
    merged = merge([LoadedBoard.read(lab.run), LoadedBoard.read(lab.folder / "plain")], name="both", created="")
    assert merged.row("two@2").states == Board.read(lab.run).row("two@2").states  # type: ignore[union-attr]
    merged.write(lab.folder / "merged")
    assert verification(lab.folder / "merged").outcome() is VerifyOutcome.verified
    assert set(board_states(lab.folder / "merged")) == {0.0, 0.125, 0.25, 0.5, 0.625, 0.75}
