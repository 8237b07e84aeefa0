"""When memory runs out in a micro-batch: smaller micro-batches of the same batch, which give the same loss and gradient."""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import StageError
from harness.training.batch import TokenGroup
from harness.training.layouts.layout import Layout

WORDS = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: torch says so in words where it has no type for it."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in WORDS)
    )


def halved(failed: Sequence[TokenGroup], tokens: int, layout: Layout) -> int:
    """Tokens for the next try, after a micro-batch of at most `tokens` did not fit.

    Raises:
        StageError: it held a single prompt, and cannot be cut.
    """
    size = min(tokens, layout.tokens([group.bundle() for group in failed]))
    if len(failed) == 1 or size < 2:
        raise StageError(
            f"one prompt with its {len(failed[0].responses)} responses ({size} tokens) does not fit in memory: set "
            "training.gradient_checkpointing, fewer negatives, shorter samples, or fewer --workers"
        )
    return size // 2
