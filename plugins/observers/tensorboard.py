"""TensorBoard: event files in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness_plugins.observers.tracking import Tracker


class TensorBoardObserver(Tracker):
    """Writes to `<run folder>/tensorboard`; look with `tensorboard --logdir runs`."""

    tracker = package = "tensorboard"

    def open(self, name: str, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()  # else nothing is seen for two minutes

    def close(self, board: Mapping[str, Any]) -> None:
        self.writer.add_text("config", "    " + json.dumps(board["config"], indent=2).replace("\n", "\n    "))
        self.abandon()

    def abandon(self) -> None:
        self.writer.close()
