"""MLflow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness_plugins.observers.tracking import Tracker

EXPERIMENT = "harness"
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
        for name, value in values.items():
            self.client.log_metric(self.run, NOT_ALLOWED.sub("_", name), value, step=step)

    def close(self, board: Mapping[str, Any]) -> None:
        self.client.log_dict(self.run, dict(board["config"]), "config.json")
        self.client.set_terminated(self.run)

    def abandon(self) -> None:
        self.client.set_terminated(self.run, "KILLED")
