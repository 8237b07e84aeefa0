"""A rough time on CPU cores, for `harness plan` on a machine without GPUs.

Seconds of one core, for N parameters that multiply: a share for each stage's loading and bookkeeping, 6 N FLOPs for a trained
token, 2 N for a scored one, and 2 N for a generated one, at the slower rate of decoding. The rates are fitted to two committed
boards: `quickstart` (0.9 M parameters) took 634 s of one core and is estimated at 778 s, `smollm2` (135 M) took 4,578 s and is
estimated at 4,369 s. `sandbox-full`, which is not in the fit, took 10,049 s and is estimated at 3,203 s: hence a factor of 3.
`harness plan --measure` puts this machine's rates in their place.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.models.size import model_size
from harness.run.estimates.gpu import GPUS, GpuEstimate, comparison_size, measured_lengths

if TYPE_CHECKING:
    from harness.api.types import Dataset
    from harness.config import Comparison
    from harness.run.estimates.measured import Rates
    from harness.run.graph import Graph

COMPUTE = 65e9  # FLOP/s of one core in training and scoring
DECODING = 12e9  # FLOP/s of one core in generation
PER_WEIGHT = 0.08  # seconds for each unit of a stage's weight, whatever the model


@dataclass(frozen=True)
class CpuEstimate:
    """Seconds that the stages which the store does not hold take on one core, and on `workers` cores.

    Attributes:
        measured: the day on which this machine's rates were measured; empty where they are those of the committed boards.
    """

    core_seconds: float
    workers: int
    measured: str = ""

    @property
    def seconds(self) -> float:
        return self.core_seconds / self.workers

    def line(self) -> str:
        """Return the estimate in words."""
        cores = "1 CPU core" if self.workers == 1 else f"{self.workers} CPU cores"
        basis = f"by rates measured on this machine on {self.measured}" if self.measured else "within a factor of 3"
        return f"about {_rough(self.seconds)} on {cores}, {basis}"


def cpu_estimate(
    comparison: Comparison,
    graph: Graph,
    present: Collection[str],
    dataset: Dataset | None,
    workers: int,
    rates: Rates | None = None,
) -> CpuEstimate | None:
    """Estimate what remains to run, by this machine's rates where they were measured.

    Returns:
        None where the model's size is not known, as of one on a hub that cannot be reached.
    """
    scratch = comparison.config.model.scratch
    try:
        size = comparison_size(comparison) if scratch is None else model_size({"model_type": "llama", **scratch.numbers()})
    except HarnessError:
        return None
    weight = sum(stage.weight for stage in graph if stage.key not in present)
    examples = {str(name): count for name, count in comparison.source.sizes().items()}
    if dataset is not None:
        examples = {str(name): len(rows) for name, rows in dataset.splits.items()}
    # Any GPU will do: only tokens are read of the walk.
    walk = GpuEstimate(comparison, size, next(iter(GPUS.values())), measured_lengths(comparison, dataset), examples)
    computing, decoding = (rates.training, rates.decoding) if rates else (COMPUTE, DECODING)
    seconds = PER_WEIGHT * weight
    for work in walk.works(graph, present):
        left = work.hours_left / work.hours if work.hours else 0.0
        seconds += left * size.multiplied * (6 * work.trained + 2 * work.scored) / computing
        seconds += left * size.multiplied * 2 * work.generated / decoding
    return CpuEstimate(seconds, workers, rates.day if rates else "")


def _rough(seconds: float) -> str:
    """Return a duration with as many digits as a rough estimate has."""
    if seconds < 90:
        return f"{max(10, round(seconds, -1)):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
