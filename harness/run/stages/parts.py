"""Numbers of a stage that its shards compute in parts.

A shard runs what the stage runs, a data builder or an evaluator, and computes its batches of each request alone: the builder
gets numbers that it cannot look at (`Unknown`), and ends where it tries. So it asks for all that hangs on no number, which is
what parts can be computed of. A part is an artifact under the request's key: a request that several stages have is computed
once. The stage puts the parts together, and computes the batches that none of them has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from harness.errors import StageError
from harness.models.batched import Batched, filled
from harness.run.records import ShardFacts
from harness.run.stages.context import Context
from harness.store import ArtifactDraft

if TYPE_CHECKING:
    import numpy as np

PART = "part.npz"


class ShardEndsError(StageError):
    """A shard has come to something that only the whole stage computes."""


@dataclass(frozen=True)
class BatchShare:
    """Every `count`-th batch of a request, from `number` on."""

    number: int
    count: int


class Unknown:
    """A number that a shard does not know.

    Raises:
        ShardEndsError: whatever is done with it.
    """

    def _look(self, *_: object) -> NoReturn:
        raise ShardEndsError("a shard knows a part of the numbers alone")

    __float__ = __int__ = __index__ = __bool__ = __hash__ = __round__ = __abs__ = __neg__ = __format__ = _look
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _look
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = __rpow__ = _look


def unknown(like: Sequence[Sequence[object]]) -> list[list[float]]:
    """Return a number that is not known for each item."""
    nothing: float = Unknown()  # type: ignore[assignment]
    return [[nothing for _ in row] for row in like]


def compute_part(batched: Batched, share: BatchShare, context: Context, draft: ArtifactDraft) -> None:
    """Compute a share of a request's batches into a draft."""
    import numpy as np

    batches = batched.batches()[share.number :: share.count]
    numbers = []
    for done, batch in enumerate(batches):
        context.report(done, len(batches), f"batch {done + 1:,} of {len(batches):,}")
        numbers.append(batched.compute(batch))
    places = np.array([place for batch in batches for place in batch], dtype=np.int64)
    np.savez(draft.folder / PART, places=places, numbers=np.concatenate(numbers) if numbers else np.zeros(0))


def put_together(key: str, rows: int, batched: Callable[[], Batched], context: Context, draft: ArtifactDraft) -> np.ndarray:
    """Return a request's numbers, [rows] or [rows, width]: of the stage's shards, and computed where these have none.

    Args:
        key: of the request.
        batched: called where something is left to compute, since it loads a model.
        draft: what the numbers are for; the shards' seconds are added to its own.
    """
    import numpy as np

    held = np.zeros(rows, dtype=bool)

    def parts() -> Iterator[tuple[Sequence[int], np.ndarray]]:
        for places, numbers in _parts(key, context, draft):
            held[list(places)] = True
            yield places, numbers
        if not held.all():
            request = batched()
            for batch in request.batches():
                if not held[list(batch)].all():
                    yield batch, request.compute(batch)

    return filled(rows, parts())


def _parts(key: str, context: Context, draft: ArtifactDraft) -> Iterator[tuple[Sequence[int], np.ndarray]]:
    """Yield the parts of a request that the stage's shards computed; one that failed left none."""
    import numpy as np

    for shard in context.shards:
        part = ShardFacts.of(context.store.open(shard)).parts.get(key) if context.store.holds(shard) else None
        if part is None or not context.store.holds(part):
            continue
        artifact = context.store.open(part)
        draft.earlier_seconds += artifact.seconds
        with np.load(artifact / PART, allow_pickle=False) as arrays:
            places: list[int] = arrays["places"].tolist()
            if places:
                yield places, arrays["numbers"]
