"""The disk that a comparison needs at its peak: for `harness plan`, and for `harness compare`, which refuses what does not fit.

By the size of the starting model: what is made from the source's text (`model.scratch`) is small, and not counted.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from harness.errors import HarnessError, StoreWriteError
from harness.run.estimates.gpu import ASSUMED, GPUS, GpuEstimate, Lengths, comparison_size
from harness.run.graph import DROPPABLE
from harness.run.records import SftPayload, TrainPayload
from harness.training.optimizers import moments
from harness.training.settings import SftSettings, TrainingSettings

if TYPE_CHECKING:
    from harness.config import Comparison
    from harness.models.size import ModelSize
    from harness.run.graph import Graph, Stage

TOKEN_BYTES = 12  # of a sampled token on disk: its text, and its id in JSON
DELTA_SHARE = 0.65  # of the weights' bytes, assumed for `model.storage: delta`; docs/performance.md has what was measured
DIGITS_SHARE = 0.02  # the same where adapters alone were trained, which lie beside: last digits of merged weights
LONGEST = 4096  # tokens of a response, where its sampling allows more


@dataclass(frozen=True)
class DiskEstimate:
    """Bytes that the stages which the store does not hold add to it.

    Attributes:
        kept: models that stay when the run has ended.
        passing: models that are there at once and are dropped then, as `run.keep_models` says; and whole weights, while their
            difference from the start is made or a server reads them.
        state: one training's checkpoint: weights and the optimiser's moments. It goes when the training ends.
        texts: samples and answers, each as long as its sampling allows.
    """

    kept: float = 0.0
    passing: float = 0.0
    state: float = 0.0
    texts: float = 0.0

    @property
    def peak(self) -> float:
        """With two states: the next one is whole before the last one goes."""
        return self.kept + self.passing + 2 * self.state + self.texts

    def __add__(self, other: DiskEstimate) -> DiskEstimate:
        """Return the need of two comparisons in one run, of which one training at a time is being checkpointed."""
        return DiskEstimate(
            self.kept + other.kept,
            self.passing + other.passing,
            max(self.state, other.state),
            self.texts + other.texts,
        )

    def line(self, free: int) -> str:
        """Return the estimate in words.

        Args:
            free: bytes that the disk of the store has.
        """
        parts = [f"models {size_text(self.kept)}"]
        parts += [f"models that are dropped again {size_text(self.passing)}"] if self.passing else []
        parts += [f"a training's state {size_text(self.state)}, twice while one is written"] if self.state else []
        parts += [f"samples and answers {size_text(self.texts)}"] if self.texts else []
        return f"disk: {size_text(self.peak)} at the peak ({'; '.join(parts)}); {size_text(free)} are free"

    def as_dict(self, free: int) -> dict[str, JsonValue]:
        return {**{name: round(value) for name, value in asdict(self).items()}, "peak": round(self.peak), "free": free}


def disk_estimate(comparison: Comparison, graph: Graph, present: Collection[str], workers: int) -> DiskEstimate | None:
    """Return what remains to be written; None where the model's size is not known.

    Args:
        graph: of its rows, or of its trials.
        present: stages that need not run, or are counted elsewhere.
        workers: stages at a time; 0 if unknown.
    """
    missing = [stage for stage in graph if stage.key not in present]
    trained = [stage for stage in missing if stage.kind in ("sft", *DROPPABLE)]
    if not missing:
        return DiskEstimate()
    try:
        size = comparison_size(comparison)
    except HarnessError:  # made from the source's text, or the hub's and out of reach
        return None
    config = comparison.config
    rows = [stage for stage in trained if stage.kind in DROPPABLE]
    kept = len(trained) - len(rows)
    if config.run.keep_models == "all":
        kept, passing = len(trained), 0
    else:
        if config.run.keep_models == "best":
            kept += min(len(rows), len({(row.seed, row.start) for row in graph.rows}))
        # Each worker trains one model while another one is answered with; all are there where nothing is dropped on the way.
        late = config.evaluation.until is not None or config.tuning is not None
        passing = len(rows) if late else min(len(rows), 2 * max(1, workers))
    stored = max((_stored_bytes(size, _settings(stage), config.model.storage) for stage in trained), default=0.0)
    # Each worker has the weights of one model whole, while it is stored or read by a program that cannot read a difference.
    rebuilt = 4 * size.parameters * min(len(trained), max(1, workers)) if config.model.storage == "delta" else 0
    return DiskEstimate(
        kept=kept * stored,
        passing=passing * stored + rebuilt,
        state=max((_state_bytes(size, _settings(stage)) for stage in trained), default=0.0),
        texts=_generated(comparison, size, graph, present) * TOKEN_BYTES,
    )


def check_disk(estimate: DiskEstimate, store: Path) -> None:
    """Check that a run's artifacts have room in the store.

    Raises:
        StoreWriteError: they have not; it names the path, the need, what is free, and the fix.
    """
    free = shutil.disk_usage(store).free
    if estimate.peak > free:
        raise StoreWriteError(
            f"the store {store} has no room for this run: {estimate.line(free)}. Make room (`harness cache gc`), choose "
            "another disk (--store), or keep less (--set run.keep_models=none, --set model.storage=delta)"
        )


def size_text(count: float) -> str:
    """Return bytes for people, with a fitting unit."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:,.0f} kB"


def _settings(stage: Stage) -> SftSettings | TrainingSettings:
    if stage.kind == "sft":
        return SftSettings.model_validate(SftPayload.of(stage).settings)
    return TrainingSettings.model_validate(TrainPayload.of(stage).settings)


def _trained_numbers(size: ModelSize, settings: SftSettings | TrainingSettings) -> int:
    return settings.lora.rank * size.linear if settings.lora else size.parameters


def _stored_bytes(size: ModelSize, settings: SftSettings | TrainingSettings, storage: str) -> float:
    """Return the bytes of the model that a training leaves, and of the adapters beside it."""
    difference = DIGITS_SHARE if settings.lora else DELTA_SHARE
    number_bytes = {"float32": 4.0, "delta": 4 * difference}.get(storage, 2.0)
    return number_bytes * size.parameters + (4 * _trained_numbers(size, settings) if settings.lora else 0.0)


def _state_bytes(size: ModelSize, settings: SftSettings | TrainingSettings) -> float:
    """Return the bytes of a checkpoint: weights and moments in float32, of adapters alone where these are trained."""
    kept = moments(settings.optimizer) if isinstance(settings, TrainingSettings) else 2
    return 4 * (1 + kept) * _trained_numbers(size, settings)


def _generated(comparison: Comparison, size: ModelSize, graph: Graph, present: Collection[str]) -> float:
    """Return the tokens that remain to be sampled, if every response is as long as it may be."""
    examples = {str(name): count for name, count in comparison.source.sizes().items()}
    # Any GPU will do: only tokens are read of the walk.
    walk = GpuEstimate(comparison, size, next(iter(GPUS.values())), Lengths(ASSUMED, LONGEST, ""), examples)
    return sum(work.generated * work.hours_left / work.hours for work in walk.works(graph, present) if work.hours)
