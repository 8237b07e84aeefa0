"""A tiny comparison that adds seeds until its rows are decided, end to end: planned, run, killed, and gone on with."""

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

LEAST, MOST = 2, 4
LIKELIHOOD = """
    from harness import Evaluator, Metric, Response, Score, hookimpl


    class TargetLikelihood(Evaluator):
        \"\"\"Log-likelihood of the targets, which training moves by more than a change of seeds.\"\"\"

        name = "target_likelihood"
        needs = frozenset({"target"})

        def metrics(self):
            return [Metric("nats", "log-likelihood of the target", primary=True)]

        def evaluate(self, task):
            found = task.logps([[Response(example.target)] for example in task.examples])
            return [Score(example.prompt.id, "nats", line[0]) for example, line in zip(task.examples, found)]


    @hookimpl
    def harness_evaluators():
        return [TargetLikelihood]
"""


def config(checkpoint: Path) -> dict[str, Any]:
    """Three rows beside the baseline: itself again, which is given up at once, and two that seeds can tell from it."""
    rows = [{"method": "dpo", "training": {"learning_rate": rate}, "label": label} for label, rate in RATES.items()]
    return tiny_config(checkpoint) | {
        "name": "until",
        "methods": ["sft", "null", *rows],
        "evaluators": ["target_likelihood"],
        "seeds": {"until": "decided", "start": LEAST, "most": MOST},
    }


TRAINED = 4  # at each seed: SFT, SFT of the null row, and both methods
RATES = {"fast": 3e-3, "slow": 2e-4}


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Install the evaluator, for this process and for those that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        folder = write_distribution(tmp_path_factory.mktemp("plugin"), "target-likelihood", LIKELIHOOD)
        patch.setenv("PYTHONPATH", str(folder))
        patch.syspath_prepend(str(folder))
        yield


@pytest.fixture(scope="module")
def lab(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A config, and the board of its first run in `first`."""
    return made_lab(tmp_path_factory.mktemp("until"), config(tiny_checkpoint), inline=True)


def seeds_of(lab: Lab, out: str) -> dict[str, tuple[int, ...]]:
    return {row.method: row.seeds for row in lab.board(out).rows}


def test_rows_have_seeds_until_they_are_decided(lab: Lab) -> None:
    board, seeds = lab.board("first"), seeds_of(lab, "first")
    added = board.statistics.sequential
    assert added is not None
    assert all(listed == tuple(range(len(listed))) for listed in seeds.values())
    assert added.seeds == {label: len(listed) for label, listed in seeds.items()}
    assert LEAST <= min(added.seeds.values()) <= max(added.seeds.values()) <= MOST
    assert added.seeds["null"] < max(added.seeds.values())  # else this module tests nothing
    assert added.trainings_fixed == TRAINED * MOST
    assert added.trainings == max(added.seeds.values()) + sum(added.seeds[label] for label in ("null", "fast", "slow"))
    assert verification(lab.folder / "first").outcome() is VerifyOutcome.verified
    assert added.sentence in (lab.folder / "first" / "board.md").read_text().replace("\\", "")


def test_the_journal_counts_the_stages_of_every_seed(lab: Lab) -> None:
    status = json.loads((lab.folder / "first" / "status.json").read_text())
    assert status["state"] == "finished"
    events = [json.loads(line) for line in (lab.folder / "first" / "events.jsonl").read_text().splitlines()]
    finished = sum(event["event"] == "stage_finished" for event in events)
    assert status["done"] == status["stages"] == finished > 0
    assert status["work_done"] == pytest.approx(status["work"])
    longest = max(len(seeds) for seeds in seeds_of(lab, "first").values())
    assert sum(event["event"] == "run_extended" for event in events) == longest - LEAST


def test_a_second_run_computes_nothing_and_gives_the_same_board(lab: Lab) -> None:
    before = lab.published("store")
    lab.run("second")
    assert lab.published("store") == before
    assert lab.board("second").without_times() == lab.board("first").without_times()
    assert lab.board("second").sharing["stages_run"] == 0


@pytest.mark.slow
def test_a_run_killed_at_any_seed_goes_on_to_the_same_board(lab: Lab) -> None:
    comparison = resolve(config_of(lab), Registry.load())
    begun = len(plan(comparison))
    for count in (begun - 4, begun + 2):  # within the first seeds, and within those that were added
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


def config_of(lab: Lab) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(lab.config.read_text())
    return read


@pytest.mark.slow
def test_ray_gives_the_same_board(lab: Lab) -> None:
    pytest.importorskip("ray")
    lab.run("ray", "--executor", "ray", "--workers", "2", store="ray-store")
    assert lab.board("ray").without_times() == lab.board("first").without_times()


def test_the_option_for_seeds_takes_the_place_of_the_rule(lab: Lab) -> None:
    lab.run("listed", "--seeds", "0,1")
    assert set(seeds_of(lab, "listed").values()) == {(0, 1)}
    assert lab.board("listed").statistics.sequential is None


def planned(lab: Lab, *more: str) -> str:
    return harness("plan", lab.config, "--store", lab.folder / "none", *more).stdout


def test_the_plan_shows_the_least_and_the_most(lab: Lab) -> None:
    answer = json.loads(planned(lab, "--json"))["seeds"]
    assert (answer["least"]["seeds"], answer["most"]["seeds"]) == (LEAST, MOST)
    assert (answer["least"]["trainings"], answer["most"]["trainings"]) == (TRAINED * LEAST, TRAINED * MOST)
    comparison = resolve(config_of(lab), Registry.load())
    assert answer["least"]["stages"] == len(plan(comparison)) < answer["most"]["stages"]
    assert answer["most"]["stages"] == len(largest_plan(comparison))
    shown = " ".join(planned(lab).split())
    assert "4 rows × 2 to 4 seeds" in shown
    assert "2 to 4 seeds a row, added where they decide: 8 to 16 trainings" in shown


def test_a_plan_with_a_list_of_seeds_has_no_range(lab: Lab) -> None:
    assert "added where they decide" not in planned(lab, "--seeds", "0,1")


def test_a_seed_of_one_row_brings_its_opponents_alone(tiny_checkpoint: Path) -> None:
    raw = config(tiny_checkpoint) | {
        "evaluators": ["target_likelihood", {"name": "pairwise_judge", "opponent": "slow"}],
        "judge": {"model": "m", "base_url": "http://localhost:1/v1", "api_key_env": None},
    }
    planner = Planner(resolve(raw, Registry.load()))
    planner.add(0)
    before = set(planner.graph.stages)
    fresh = planner.add(1, {"fast"})
    assert [(row.label, row.seed) for row in planner.graph.rows if row.seed == 1] == [("fast", 1), ("slow", 1)]
    assert fresh and fresh.isdisjoint(before)
    assert planner.add(1, {"fast"}) == set()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"evaluators": [{"name": "pairwise_judge", "opponent": "all"}]},
            "pairwise_judge compares each row with all others, which would be other rows at each seed: give a list of seeds",
        ),
        ({"seeds": {"until": "decided", "start": 4, "most": 3}}, "`most` is 3 and `start` is 4: `most` should be at least"),
        ({"seeds": {"until": "decided", "start": 1}}, "seeds.start = 1: it should be greater than or equal to 2"),
        ({"seeds": {"until": "sunset"}}, "seeds.until = 'sunset': it should be 'decided'"),
        ({"seeds": {"start": 2}}, "seeds.until = (absent): this field is required"),
        ({"seeds": {"until": "decided", "most": 65}}, "seeds.most = 65: it should be less than or equal to 64"),
        ({"seeds": {"until": "decided", "list": [0, 1]}}, "seeds.list = [0, 1]: no such field; known: most, start, until"),
        ({"seeds": [0, {"until": "decided"}]}, "seeds.1 = {'until': 'decided'}: it should be a valid integer"),
    ],
)
def test_a_wrong_rule_is_one_clear_error(tiny_checkpoint: Path, changes: dict[str, Any], said: str) -> None:
    judge = {"model": "m", "base_url": "http://localhost:1/v1", "api_key_env": None}
    with pytest.raises(ConfigError) as caught:
        resolve({**config(tiny_checkpoint), "judge": judge, **changes}, Registry.load())
    assert said in str(caught.value)
