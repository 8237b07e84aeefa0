"""Signals that wait for a good moment: what a handler raises inside Ray's own code is lost there."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Deferred:
    """Within the block, signals are noted; `handle` calls who handled them before."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._come: list[int] = []

    def __enter__(self) -> Deferred:
        if threading.current_thread() is threading.main_thread():
            for number in NUMBERS:
                if callable(before := signal.getsignal(number)):
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def handle(self) -> None:
        """Call the handlers of the signals that came; they may raise."""
        while self._come:
            number = self._come.pop(0)
            self._before[number](number, None)

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._come.append(number)
