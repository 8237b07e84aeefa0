"""When a failed request is sent again: one policy for judges and for backends."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class RetryPolicy:
    """How often a request is sent, and how long it backs off in between.

    Attributes:
        attempts: at least 1, the first included.
        timeout_seconds: for one answer, from the connection to the last byte.
        first_wait_seconds: doubles with each attempt, up to `longest_wait_seconds`.
        longest_asked_seconds: a server that asks to wait for longer has a quota for the day, and a person decides.
    """

    attempts: int
    timeout_seconds: float
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 60.0
    longest_asked_seconds: float = 3600.0

    def wait(self, attempt: int, asked_seconds: float | None) -> float:
        """Return seconds after the failed `attempt` (from 0): a doubling time less a random part, or what was asked if longer.

        The random part keeps requests that failed together from returning together.
        """
        doubled: float = min(self.longest_wait_seconds, self.first_wait_seconds * 2**attempt)
        return max(asked_seconds or 0.0, doubled * random.uniform(0.5, 1.0))
