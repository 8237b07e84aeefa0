"""The interface of sources, which provide a comparison's data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, Self

from harness.api.interfaces.component import Component
from harness.api.types import Dataset, Example, Response, SplitName


class Source(Component):
    """A source of prompts, targets and preferences."""

    provides: ClassVar[frozenset[Literal["target", "ranked", "gold", "benchmarks"]]] = frozenset()

    def offers(self) -> frozenset[str]:
        """Return what it provides with these fields: `provides`, and `reference` where it fills that entry of the metadata."""
        return self.provides

    def load(self) -> Dataset:
        """All splits. Deterministic in the fields; raises `DataError` naming file and line."""
        raise NotImplementedError

    def pinned(self) -> Self:
        """The same source with what may change meanwhile (a branch of a repository) fixed. Called once, while planning.

        Raises `DataError` where there is no such thing; `hub_commit` says so, and also that the hub cannot be reached.
        """
        return self

    def sizes(self) -> Mapping[SplitName, int]:
        """How many examples each split has at most, as far as the fields tell. Called while planning."""
        return {}

    def gold(self, example: Example, response: Response) -> Mapping[str, float]:
        """Marks of one response, `total` among them; only where `provides` has `gold`."""
        raise NotImplementedError

    def write_benchmarks(self, folder: Path) -> None:
        """Write lm-eval task files; only where `provides` has `benchmarks`."""
        raise NotImplementedError
