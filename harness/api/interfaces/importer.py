"""What reads other tools' results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.api.interfaces.component import Component
from harness.api.types import Imported


class Importer(Component):
    """Reads what another tool measured, for rows of kind `imported`.

    Its evaluator names, metrics and example names are those of the evaluator that measures the same here, so that both are
    compared example by example.
    """

    def read(self, paths: Sequence[Path]) -> Iterable[Imported]:
        """The results in these files and folders; raises `DataError` naming file and place."""
        raise NotImplementedError
