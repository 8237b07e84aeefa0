"""How many examples a fuzz test gets: the same few every time, or many new ones.

HARNESS_FUZZ_EXAMPLES=5000 pytest tests/fuzz      new ones at random, so many per test
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, settings

from harness.errors import HarnessError

T = TypeVar("T")

MORE = os.environ.get("HARNESS_FUZZ_EXAMPLES")
HANGS_AFTER_SECONDS = 240 if MORE is None else 3600  # for a whole test, which takes seconds


def examples(count: int) -> settings:
    """Settings for a test: `count` examples, which are always the same, or as many as the environment says."""
    return settings(
        max_examples=int(MORE or count),
        derandomize=MORE is None,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def survives(act: Callable[[], T]) -> T | None:
    """What `act` returns, or None where it is refused as a user is told: by a HarnessError with a message."""
    try:
        return act()
    except HarnessError as error:
        assert str(error)
        return None
