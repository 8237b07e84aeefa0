"""MLflow."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness_plugins.observers.tracking import Tracker

EXPERIMENT = "harness"
MOST_METRICS = 1000  # in one request, says MLflow
NOT_ALLOWED = re.compile(r"[^\w\-. /]")  # in the name of a metric


class MLflowObserver(Tracker):
    """One MLflow run per comparison, in the experiment `harness`; `MLFLOW_TRACKING_URI` says where, as for MLflow itself."""

    tracker = package = "mlflow"

    def open(self, name: str, folder: Path) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient()
        found = self.client.get_experiment_by_name(EXPERIMENT)
        experiment = found.experiment_id if found else self.client.create_experiment(EXPERIMENT)
        self.run = self.client.create_run(experiment, run_name=name).info.run_id

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.log_all([(step, values)])

    def log_all(self, points: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(NOT_ALLOWED.sub("_", name), value, now, step) for step, values in points for name, value in values.items()
        ]
        for start in range(0, len(metrics), MOST_METRICS):
            self.client.log_batch(self.run, metrics[start : start + MOST_METRICS])

    def close(self, board: Mapping[str, Any]) -> None:
        self.client.log_dict(self.run, dict(board["config"]), "config.json")
        self.client.set_terminated(self.run)

    def abandon(self) -> None:
        self.client.set_terminated(self.run, "KILLED")
