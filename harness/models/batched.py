"""Numbers that a model computes for many rows, batch by batch. Whoever computes a batch gets the same numbers, so that several
processes may share the batches.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np


class Batched(Protocol):
    """Rows that are scored or embedded."""

    def batches(self) -> Sequence[Sequence[int]]:
        """Return the places of rows that are computed in one pass: each in one batch, and equal rows in the same one."""
        ...

    def compute(self, batch: Sequence[int]) -> np.ndarray:
        """Return the numbers of a batch's rows, in its order: [n], or [n, width] with several numbers a row."""
        ...


def computed(batched: Batched, rows: int) -> np.ndarray:
    """Return the numbers of all rows, [rows] or [rows, width]."""
    return filled(rows, ((batch, batched.compute(batch)) for batch in batched.batches()))


def filled(rows: int, parts: Iterable[tuple[Sequence[int], np.ndarray]]) -> np.ndarray:
    """Return an array of parts, each with the places of its numbers."""
    import numpy as np

    whole: np.ndarray | None = None
    for places, numbers in parts:
        if whole is None:
            whole = np.zeros((rows, *numbers.shape[1:]), numbers.dtype)
        whole[list(places)] = numbers
    return np.zeros(rows) if whole is None else whole


def places_of(rows: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    """Return the places of each different row, in the order of their first ones."""
    places: dict[Hashable, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row, []).append(place)
    return places


def with_equal_rows(batches: Iterable[Sequence[int]], places: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Yield batches of different rows with the places of all rows that equal them.

    Args:
        places: of each different row.
    """
    for batch in batches:
        yield [place for index in batch for place in places[index]]
