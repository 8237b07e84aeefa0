"""How far a training is, step by step: for the screen, and for the history. Imports transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

Report = Callable[[int, int, str], None]


class StepCallback(TrainerCallback):  # type: ignore[misc]
    """Reports each step's progress; passes step, learning rate and gradient norm to `note`."""

    def __init__(self, report: Report | None, note: Callable[[dict[str, float]], None]) -> None:
        self.report = report
        self.note = note

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.report is not None:
            self.report(0, state.max_steps, "")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return
        self.note(
            {
                "step": float(state.global_step),
                "learning_rate": float(logs["learning_rate"]),
                "gradient_norm": float(logs.get("grad_norm", 0.0)),
            }
        )
        if self.report is not None:
            self.report(state.global_step, state.max_steps, f"loss {float(logs['loss']):.3f}")
