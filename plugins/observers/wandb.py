"""Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness_plugins.observers.tracking import Tracker

PROJECT = "harness"


class WandbObserver(Tracker):
    """One W&B run per comparison, in the project `harness`; login and mode are W&B's own (`wandb login`, `WANDB_MODE`)."""

    tracker = package = "wandb"

    def open(self, name: str, folder: Path) -> None:
        import wandb

        self.run = wandb.init(project=PROJECT, name=name, dir=str(folder))
        self.defined: set[str] = set()

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name in values.keys() - self.defined:  # series have steps of their own, where W&B counts one for all
            self.run.define_metric(name, step_metric=f"{name.rpartition('/')[0]}/step")
        self.defined |= values.keys()
        steps = {f"{name.rpartition('/')[0]}/step": step for name in values}
        self.run.log({**steps, **values})

    def close(self, board: Mapping[str, Any]) -> None:
        self.run.config.update(board["config"])
        self.run.finish()

    def abandon(self) -> None:
        self.run.finish(exit_code=1)
