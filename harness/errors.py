"""All errors that the project raises, as a tree.

HarnessError                 prints as one message without a traceback
├── ConfigError              a config cannot be run: every problem at once (exit code 2)
├── PluginError              a plugin cannot be used: names the distribution and the fix (exit code 2)
├── DataError                a data file or a source is not what it should be: names file and line (exit code 2)
│   └── UnreachableError     the hub cannot be reached, and the local cache does not hold what is asked for (exit code 2)
├── StoreError               an artifact is missing, damaged or cannot be written (exit code 4)
│   └── StoreWriteError      nothing can be written any more: disk full, folder read-only; ends the run (exit code 4)
├── StageError               a stage failed while running: names the stage and the cause (exit code 3)
│   └── UnavailableError     a row's model cannot give what is asked of it, such as a server's weights (exit code 3)
└── InterruptedRunError      the run was asked to end before all was done (exit code 130)
    └── TimeOverError        its `run.max_hours` are over; the same command continues (exit code 75)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any


class HarnessError(Exception):
    """A mistake that a user can mend; printed without a traceback."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a config.

    Attributes:
        field: dotted path of the field, as in `training.learning_rate`.
        value: what the user wrote there.
        fix: what to write instead, as a sentence without a full stop.
    """

    field: str
    value: Any
    fix: str

    def __str__(self) -> str:
        return f"{self.field} = {_short(self.value)}: {self.fix}"


class ConfigError(HarnessError):
    """A config with one or more problems, all of them named.

    Args:
        origins: for each problem the line or the option that it comes from; "" where that is not known.
    """

    def __init__(
        self, problems: Sequence[Problem], where: str = "the configuration", origins: Sequence[str] | None = None
    ) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        places = [f"{origin}: " if origin else "" for origin in origins or [""] * len(problems)]
        listed = (f"  - {place}{problem}" for place, problem in zip(places, problems, strict=True))
        super().__init__("\n".join([f"{count} in {where}:", *listed]))


class PluginError(HarnessError):
    """A plugin that cannot be imported, registered or called."""


class DataError(HarnessError):
    """Data that cannot be read, or is not what its format says."""


class UnreachableError(DataError):
    """Something of the hub's that only the network can tell or give now."""


class StoreError(HarnessError):
    """An artifact that is missing, damaged or cannot be written."""

    exit_code = 4


class StoreWriteError(StoreError):
    """The store takes nothing any more: no other stage would fare better."""


class StageError(HarnessError):
    """A stage that failed while running."""

    exit_code = 3


class UnavailableError(StageError):
    """A row's model cannot give what is asked of it: weights of a server, log-probabilities that compare with the start's.

    An evaluator may let it pass: the metrics that it has yielded no score of are then absent from the row, with this reason.
    """


class InterruptedRunError(HarnessError):
    """A run that was asked to end, and did after what was running."""

    exit_code = 130


class TimeOverError(InterruptedRunError):
    """A run, or a stage of it, that ended because `run.max_hours` are over; what it has done is kept."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, try again


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A hint for a mistyped name: the closest known ones, or all of them when none is close."""
    names = sorted(known)
    close = get_close_matches(given, names, n=2, cutoff=0.65)
    if close:
        return "did you mean " + " or ".join(repr(name) for name in close) + "?"
    return "known: " + (", ".join(names) if names else "none")


def _short(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
