"""A tiny comparison that adds prompts until its rows are decided, end to end: planned, run, killed, and gone on with."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from distributions import write_distribution
from inline import harness
from test_compare import Lab, alive, made_lab, tiny_config, wait_until

from harness.api.registry import Registry
from harness.board.verify import VerifyOutcome
from harness.config import resolve
from harness.errors import ConfigError
from harness.run.plan import Planner, largest_plan, plan
from harness.run.verify import verification

LOOKS = (12, 24, 48)
RATES = {"fast": 3e-3, "slow": 1e-5}
SEEDS = [0, 1, 2]
STEPS = """
    import random

    from harness import Evaluator, Metric, Response, Score, hookimpl


    class Steps(Evaluator):
        \"\"\"A number that goes by how far training moved the model: not at all, a little, or far; with noise.\"\"\"

        name = "steps"
        needs = frozenset({"target"})
        divisible = True

        def metrics(self):
            return [Metric("height", "a made-up number", primary=True)]

        def evaluate(self, task):
            asked = [[Response(example.target)] for example in task.examples]
            moved = [abs(a[0] - b[0]) for a, b in zip(task.logps(asked), task.logps(asked, reference=True))]
            for example, far in zip(task.examples, moved):
                height = 3.0 if far > 0.03 else 0.3 if far > 0 else 0.0
                noise = random.Random(f"{example.prompt.id} {task.seed} {height}").gauss(0, 0.6)
                yield Score(example.prompt.id, "height", height + noise)


    @hookimpl
    def harness_evaluators():
        return [Steps]
"""


def config(checkpoint: Path) -> dict[str, Any]:
    """Three rows beside the baseline: itself again, which is given up, and two that prompts can tell from it."""
    rows = [{"method": "dpo", "training": {"learning_rate": rate}, "label": label} for label, rate in RATES.items()]
    return tiny_config(checkpoint) | {
        "name": "until",
        "source": {"name": "sandbox", "sft": 40, "train": 32, "tuning": 8, "heldout": LOOKS[-1]},
        "methods": ["sft", "null", *rows],
        "evaluators": ["steps"],
        "evaluation": {"until": "decided", "start": LOOKS[0], "most": LOOKS[-1]},
        "seeds": SEEDS,
    }


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Install the evaluator, for this process and for those that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        folder = write_distribution(tmp_path_factory.mktemp("plugin"), "steps", STEPS)
        patch.setenv("PYTHONPATH", str(folder))
        patch.syspath_prepend(str(folder))
        yield


@pytest.fixture(scope="module")
def lab(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A config, and the board of its first run in `first`."""
    return made_lab(tmp_path_factory.mktemp("until"), config(tiny_checkpoint), inline=True)


def config_of(lab: Lab) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(lab.config.read_text())
    return read


@pytest.mark.slow
def test_rows_have_prompts_until_they_are_decided(lab: Lab) -> None:
    board = lab.board("first")
    added = board.statistics.sequential_prompts
    assert added is not None
    assert set(added.prompts) == {"sft", "null", *RATES} and set(added.prompts.values()) <= set(LOOKS)
    assert len(set(added.prompts.values())) > 1  # else this module tests nothing
    assert added.prompts["sft"] == max(added.prompts.values())
    assert [len(block) for block in added.blocks] == [12, 12, 24][: len(added.blocks)]
    scores = {row.method: row.scores["steps/height"] for row in board.rows}
    assert {label: score.n for label, score in scores.items()} == added.prompts
    assert {row.seeds for row in board.rows} == {tuple(SEEDS)}
    assert added.evaluations == 3 * sum(added.prompts.values()) < added.evaluations_fixed == 3 * 4 * 48
    assert not any("examples of" in warning for warning in board.warnings)
    assert verification(lab.folder / "first").outcome() is VerifyOutcome.verified
    assert " ".join(added.sentence.split()) in " ".join((lab.folder / "first.stdout").read_text().split())
    assert added.sentence in (lab.folder / "first" / "index.html").read_text()


@pytest.mark.slow
def test_the_journal_counts_the_stages_of_every_block(lab: Lab) -> None:
    status = json.loads((lab.folder / "first" / "status.json").read_text())
    events = [json.loads(line) for line in (lab.folder / "first" / "events.jsonl").read_text().splitlines()]
    finished = sum(event["event"] == "stage_finished" for event in events)
    assert status["state"] == "finished" and status["done"] == status["stages"] == finished
    added = lab.board("first").statistics.sequential_prompts
    assert added is not None
    assert sum(event["event"] == "run_extended" for event in events) == len(added.blocks) - 1


@pytest.mark.slow
def test_a_second_run_computes_nothing_and_gives_the_same_board(lab: Lab) -> None:
    before = lab.published("store")
    lab.run("second")
    assert lab.published("store") == before
    assert lab.board("second").without_times() == lab.board("first").without_times()


@pytest.mark.slow
def test_a_run_killed_at_any_block_goes_on_to_the_same_board(lab: Lab) -> None:
    begun = len(plan(resolve(config_of(lab), Registry.load())))
    for count in (begun - 4, begun + 2):  # within the first block, and within those that were added
        process = lab.start("killed", store="killed-store")
        wait_until(lambda: lab.published("killed-store") >= count or process.poll() is not None)  # noqa: B023
        workers = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.communicate()
        assert alive(workers) == []
    lab.run("killed", "--workers", "2", store="killed-store")
    assert lab.published("killed-store") == lab.published("store")
    assert lab.board("killed").without_times() == lab.board("first").without_times()


@pytest.mark.slow
def test_ray_gives_the_same_board(lab: Lab) -> None:
    pytest.importorskip("ray")
    lab.run("ray", "--executor", "ray", "--workers", "2", store="ray-store")
    assert lab.board("ray").without_times() == lab.board("first").without_times()


def test_the_plan_shows_the_least_and_the_most(lab: Lab) -> None:
    command = ["plan", lab.config, "--store", lab.folder / "none"]
    answer = json.loads(harness(*command, "--json").stdout)["prompts"]
    comparison = resolve(config_of(lab), Registry.load())
    assert (answer["least"]["prompts"], answer["most"]["prompts"]) == (LOOKS[0], LOOKS[-1])
    assert answer["least"]["stages"] == len(plan(comparison))
    assert answer["most"]["stages"] == len(largest_plan(comparison)) == answer["least"]["stages"] + 2 * 4 * len(SEEDS)
    shown = " ".join(harness(*command).stdout.split())
    assert "4 rows × 3 seeds" in shown and "12 to 48 prompts a row, added where they decide" in shown


JUDGE = {"model": "m", "base_url": "http://localhost:1/v1", "api_key_env": None}
SAMPLED = {"name": "pairwise_judge", "opponent": "slow", "max_tokens": 4}


def test_the_first_block_is_what_a_config_with_so_many_prompts_evaluates(tiny_checkpoint: Path) -> None:
    raw = config(tiny_checkpoint) | {"evaluators": ["steps", SAMPLED], "judge": JUDGE}
    begun = set(plan(resolve(raw, Registry.load())).stages)
    fixed = set(plan(resolve(raw | {"evaluation": {"prompts": LOOKS[0]}}, Registry.load())).stages)
    assert begun == fixed


def test_a_block_of_one_row_brings_its_opponents_answers_alone(tiny_checkpoint: Path) -> None:
    raw = config(tiny_checkpoint) | {"evaluators": ["steps", SAMPLED], "judge": JUDGE}
    planner = Planner(resolve(raw, Registry.load()))
    for seed in SEEDS:
        planner.add(seed)
    fresh = [planner.graph.stages[key] for key in planner.add_prompts({"fast"})]
    titles = {stage.title for stage in fresh if stage.title.endswith("seed 1 · prompts 13 to 24")}
    assert {title.partition(" · ")[0].partition(" (")[0] for title in titles} == {
        *("steps of fast", "pairwise_judge of fast", "answers of fast", "answers of slow")
    }
    assert {(stage.payload["first"], stage.payload["prompts"]) for stage in fresh} == {(12, 24)}
    planner.add_prompts({"fast"})
    assert planner.add_prompts({"fast"}) == set()  # it has all


def test_an_evaluator_that_takes_no_parts_scores_all_prompts(tiny_checkpoint: Path) -> None:
    raw = config(tiny_checkpoint) | {"evaluators": ["steps", "lm_eval"]}
    graph = largest_plan(resolve(raw, Registry.load()))
    for row in graph.rows:
        blocks = {label: [graph.stages[key].payload for key in keys] for label, keys in row.evaluations.items()}
        assert [payload["prompts"] for payload in blocks["lm_eval"]] == [LOOKS[-1]]
        assert [(payload.get("first", 0), payload["prompts"]) for payload in blocks["steps"]] == [
            *((0, 12), (12, 24), (24, 48))
        ]


UNTIL = {"until": "decided", "start": 12, "most": 48}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluation": UNTIL | {"start": 30, "most": 20}}, "`most` is 20 and `start` is 30: `most` should be at least"),
        ({"evaluation": {"until": "decided", "most": 48}}, "`most` is 48 and `start` is 100: `most` should be at least"),
        (
            {"evaluation": UNTIL | {"most": 49}},
            "evaluation.most = 49: the source has 48 prompts in its split heldout",
        ),
        ({"evaluation": {"until": "decided"}}, "`until: decided` needs `most`"),
        ({"evaluation": UNTIL | {"prompts": 20}}, "`until: decided` adds prompts: give `most` in its place"),
        ({"evaluation": {"start": 20}}, "`start` goes with `until: decided`"),
        ({"evaluation": UNTIL | {"start": 9}}, "evaluation.start = 9: it should be greater than or equal to 10"),
        ({"evaluation": UNTIL | {"until": "dawn"}}, "evaluation.until = 'dawn': it should be 'decided'"),
        ({"seeds": [0]}, "one seed says nothing of others, so that no row could ever be decided: give three seeds or more"),
        ({"seeds": [0, 1]}, "two seeds of a row convict it next to never, however many prompts: give three seeds or more"),
        ({"seeds": {"until": "decided"}}, "only one of the two can be: give a list of seeds, or give evaluation.prompts"),
        ({"evaluators": ["lm_eval"]}, "lm_eval, whose metrics decide, cannot take prompts in parts"),
        (
            {"methods": ["sft", "dpo", {"checkpoint": "sandbox", "label": "ready"}], "baseline": "ready"},
            "rows are told from the baseline, and 'ready' has no seeds",
        ),
    ],
)
def test_a_wrong_rule_is_one_clear_error(tiny_checkpoint: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({**config(tiny_checkpoint), **changes}, Registry.load())
    assert said in str(caught.value)
