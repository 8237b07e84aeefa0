"""Trackers: what they are told, and that they stay out of the way."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from harness.api.registry import Registry
from harness.errors import HarnessError
from harness.run.graph import Graph, RowPlan
from harness.run.observers import Observers, check_trackers
from harness_plugins.observers.tracking import Tracker

BOARD: dict[str, Any] = {
    "config": {"name": "tiny"},
    "rows": [
        {"method": "sft", "scores": {"gold/mean": {"mean": 7.0}}},
        {
            "method": "dpo(β)",
            "scores": {"gold/mean": {"mean": 8.0, "delta": {"mean": 1.0, "low": 0.5, "high": 1.5, "p": 0.01}}},
            "curves": {"0": [{"step": 1, "round": 0, "loss": 0.7}, {"step": 2, "round": 0, "loss": 0.6}]},
        },
    ],
}


class Kept(Tracker):
    tracker, package = "kept", "json"

    def open(self, name: str, folder: Path) -> None:
        self.said: list[Any] = [(name, folder)]

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.said.append((step, dict(values)))

    def close(self, board: Mapping[str, Any]) -> None:
        self.said.append(board["config"])

    def abandon(self) -> None:
        self.said.append("abandoned")


def tell(observers: Observers, *tracking: str, folder: Path = Path("run"), board: dict[str, Any] | None = BOARD) -> None:
    """A whole run of two stages, or one that ends without a board."""
    shown: dict[str, Any] = {"interactive": False, "display": "none", "workers": 1}
    observers.call("harness_run_started", name="tiny", weights={}, cached=0, folder=folder, tracking=tracking, **shown)
    observers.call("harness_stage_finished", key="a", title="a", seconds=1.5, error=None)
    observers.call("harness_stage_finished", key="b", title="b", seconds=0.5, error="no")
    if board is not None:
        observers.call("harness_board_ready", board=board, folder=folder)
    observers.call("harness_run_finished")


def test_a_tracker_is_told_stages_curves_and_scores() -> None:
    kept = Kept()
    tell(Observers(Registry.load(extra=[kept])), "kept")
    assert kept.said == [
        ("tiny", Path("run")),
        (1, {"stages/ended": 1, "stages/failed": 0, "stages/seconds": 1.5}),
        (2, {"stages/ended": 2, "stages/failed": 1, "stages/seconds": 2.0}),
        (1, {"train/dpo(β)/seed 0/loss": 0.7}),
        (2, {"train/dpo(β)/seed 0/loss": 0.6}),
        (0, {"score/gold/mean/sft": 7.0}),
        (
            0,
            {
                "score/gold/mean/dpo(β)": 8.0,
                "delta/gold/mean/dpo(β)/mean": 1.0,
                "delta/gold/mean/dpo(β)/low": 0.5,
                "delta/gold/mean/dpo(β)/high": 1.5,
            },
        ),
        {"name": "tiny"},
    ]


def two_rounds() -> Graph:
    """One row of two rounds, which another row shares at the first, and its evaluation."""
    graph = Graph()
    keys = [graph.add("train", f"train {number}", {"n": number}, {}) for number in (1, 2)]
    scored = graph.add("evaluate", "evaluate", {}, {})
    graph.rows = [
        RowPlan("dpo", 0, keys[1], (), tuple(keys), {"gold": (scored,)}),
        RowPlan("twin", 0, keys[0], (), (keys[0],), {}),
    ]
    return graph


def test_a_tracker_is_told_curves_and_scores_as_they_happen_and_no_point_twice(tmp_path: Path) -> None:
    kept, graph = Kept(), two_rounds()
    first, second, scored = graph.stages
    observers = Observers(Registry.load(extra=[kept]))
    with observers.watching("tiny", graph, set(), display="none", workers=1, folder=tmp_path, tracking=["kept"]):
        kept.said.clear()
        observers.measured(first, {"points": [{"step": 1, "loss": 0.7}]})
        assert kept.said == [(1, {f"train/{row}/seed 0/loss": 0.7}) for row in ("dpo", "twin")]
        kept.said.clear()
        observers.measured(first, {"points": [{"step": 1, "loss": 0.7}, {"step": 2, "loss": 0.6}]})  # it resumed
        observers.measured(second, {"points": [{"step": 1, "loss": 0.5}]})
        observers.measured(scored, {"scores": {"mean": 7.5}, "scored": 4})
        assert kept.said == [
            (2, {"train/dpo/seed 0/loss": 0.6}),
            (2, {"train/twin/seed 0/loss": 0.6}),
            (3, {"train/dpo/seed 0/loss": 0.5}),
            (4, {"score/gold/mean/dpo/seed 0": 7.5}),
        ]
        kept.said.clear()
        points = [{"step": step, "round": 0, "loss": 1 - step / 10} for step in (1, 2, 3, 4)]
        rows = [{"method": "dpo", "scores": {}, "curves": {"0": points}}]
        observers.call("harness_board_ready", board={"config": {}, "rows": rows}, folder=tmp_path)
        assert kept.said == [(4, {"train/dpo/seed 0/loss": 0.6}), (0, {}), {}]
    assert observers.failures == {}


def test_the_curve_of_a_round_after_one_from_the_store_comes_with_the_board(tmp_path: Path) -> None:
    kept, graph = Kept(), two_rounds()
    first, second, _ = graph.stages
    observers = Observers(Registry.load(extra=[kept]))
    with observers.watching("tiny", graph, {first}, display="none", workers=1, folder=tmp_path, tracking=["kept"]):
        kept.said.clear()
        observers.measured(second, {"points": [{"step": 1, "loss": 0.5}]})
        assert kept.said == []


def test_a_tracker_s_run_ends_also_where_there_is_no_board() -> None:
    kept = Kept()
    tell(Observers(Registry.load(extra=[kept])), "kept", board=None)
    assert kept.said[2:] == [(2, {"stages/ended": 2, "stages/failed": 1, "stages/seconds": 2.0}), "abandoned"]


def test_a_tracker_that_nobody_asked_for_does_nothing() -> None:
    kept = Kept()
    tell(Observers(Registry.load(extra=[kept])), board=None)
    assert not hasattr(kept, "said")


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_left_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torch.utils.tensorboard", "wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, module, None)
    observers = Observers(Registry.load())
    tell(observers, name)
    (reason,) = observers.failures.values()
    assert reason.startswith("harness_run_started: ModuleNotFoundError")


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_an_error_before_compute(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        HarnessError, match=rf"--track {name}: {name} is not installed: pip install 'alignment-harness\[{name}\]'"
    ):
        check_trackers([name], Registry.load())
    check_trackers(["kept"], Registry.load(extra=[Kept()]))


def test_a_tracker_that_cannot_start_is_an_error_before_compute(tmp_path: Path) -> None:
    class Offline(Kept):
        tracker = "offline"

        def open(self, name: str, folder: Path) -> None:
            raise ConnectionError("not logged in")

    observers = Observers(Registry.load(extra=[Offline()]))
    options: dict[str, Any] = {"display": "none", "workers": 1, "folder": tmp_path}
    with observers.watching("run", Graph(), set(), **options):  # it was not asked for, and is not opened
        pass
    with (
        pytest.raises(
            HarnessError, match=r"--track offline: it cannot start \(harness_run_started: ConnectionError: not logged"
        ),
        observers.watching("run", Graph(), set(), tracking=["offline"], **options),
    ):
        pytest.fail("the run began")


def test_tensorboard_files_hold_the_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    observers = Observers(Registry.load())
    tell(observers, "tensorboard", folder=tmp_path)
    assert observers.failures == {}
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, round(event.value, 6)) for event in events.Scalars("train/dpo(β)/seed 0/loss")] == [(1, 0.7), (2, 0.6)]
    assert events.Scalars("score/gold/mean/dpo(β)")[0].value == 8.0


def test_wandb_is_given_series_with_steps_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    run = SimpleNamespace(
        define_metric=lambda name, step_metric: said.append((name, step_metric)),
        log=said.append,
        config=SimpleNamespace(update=said.append),
        finish=lambda exit_code=0: said.append(f"finished with {exit_code}"),
    )
    module = ModuleType("wandb")
    module.init = lambda **options: said.append(options) or run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    tell(Observers(Registry.load()), "wandb")
    assert said[0] == {"project": "harness", "name": "tiny", "dir": "run"}
    assert ("train/dpo(β)/seed 0/loss", "train/dpo(β)/seed 0/step") in said
    assert {"train/dpo(β)/seed 0/loss": 0.6, "train/dpo(β)/seed 0/step": 2} in said
    assert said[-2:] == [{"name": "tiny"}, "finished with 0"]
    tell(Observers(Registry.load()), "wandb", board=None)
    assert said[-1] == "finished with 1"


def test_mlflow_is_given_names_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []

    class Client:
        def get_experiment_by_name(self, name: str) -> None:
            return None

        def create_experiment(self, name: str) -> str:
            return f"experiment {name}"

        def create_run(self, experiment: str, run_name: str) -> Any:
            said.append((experiment, run_name))
            return SimpleNamespace(info=SimpleNamespace(run_id="r"))

        def log_batch(self, run: str, metrics: list[tuple[str, float, int, int]]) -> None:
            said.extend((run, name, value, step) for name, value, _, step in metrics)

        def log_dict(self, run: str, config: dict[str, Any], name: str) -> None:
            said.append((run, config, name))

        def set_terminated(self, run: str, status: str = "FINISHED") -> None:
            said.append((run, status))

    module = ModuleType("mlflow")
    module.MlflowClient = Client  # type: ignore[attr-defined]
    entities = ModuleType("mlflow.entities")
    entities.Metric = lambda *fields: fields  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    tell(Observers(Registry.load()), "mlflow")
    assert said[0] == ("experiment harness", "tiny")
    assert ("r", "train/dpo_β_/seed 0/loss", 0.6, 2) in said
    assert said[-2:] == [("r", {"name": "tiny"}, "config.json"), ("r", "FINISHED")]
    tell(Observers(Registry.load()), "mlflow", board=None)
    assert said[-1] == ("r", "KILLED")
