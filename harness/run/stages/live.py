"""Intermediate results of a running stage, for those who watch: points of its training curve, means so far, some samples.

They decide nothing: a stage whose intermediate results reach nobody makes the same artifact.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping

from harness.run.executors.events import LiveSample, LiveValues

SECONDS = 1.0  # at least so long between two messages
SAMPLE_SECONDS = 3.0  # and between two samples in them
LONGEST = 1000  # characters of a sample's prompt and response


def to_nobody(values: LiveValues) -> None:
    """Send nothing."""


class Live:
    """Collects a stage's intermediate results and sends them about once a second.

    Every point of a curve is sent, several in one message where steps are quick; of samples only a few.

    Args:
        send: takes one message.
    """

    def __init__(self, send: Callable[[LiveValues], None] = to_nobody) -> None:
        self.send = send
        self.begin()

    def begin(self) -> None:
        """Forget the stage before: another one begins."""
        self._points: list[dict[str, float]] = []
        self._steps = 0
        self._sums: dict[str, tuple[float, int]] = {}
        self._scored = False  # whether means have changed since the last message
        self._sample: LiveSample | None = None
        self._sent = self._sampled = -math.inf

    def points(self, rows: Iterable[Mapping[str, float]]) -> None:
        """Add the next points of the stage's training curve; those of a resumed training begin with its first."""
        for row in rows:
            self._steps += 1
            finite = {name: value for name, value in row.items() if math.isfinite(value)}
            self._points.append({**finite, "step": self._steps})
        self._send_if_due()

    def score(self, metric: str, value: float) -> None:
        """Add an example's score to the mean of its metric."""
        if not math.isfinite(value):
            return  # JSON has no such number, and the stage fails of it in a moment
        total, count = self._sums.get(metric, (0.0, 0))
        self._sums[metric] = (total + value, count + 1)
        self._scored = True
        self._send_if_due()

    def sample(self, prompt: str, response: str) -> None:
        """Show a response that was just drawn; most are passed over."""
        now = time.monotonic()
        if now - self._sampled >= SAMPLE_SECONDS:
            self._sampled = now
            self._sample = {"prompt": prompt[-LONGEST:], "response": response[:LONGEST]}
            self._send_if_due()

    def flush(self) -> None:
        """Send what was not sent yet."""
        values: LiveValues = {}
        if self._points:
            values["points"], self._points = self._points, []
        if self._scored:
            values["scores"] = {metric: total / count for metric, (total, count) in self._sums.items()}
            values["scored"] = max(count for _, count in self._sums.values())
            self._scored = False
        if self._sample is not None:
            values["sample"], self._sample = self._sample, None
        if values:
            self._sent = time.monotonic()
            self.send(values)

    def _send_if_due(self) -> None:
        if time.monotonic() - self._sent >= SECONDS:
            self.flush()
