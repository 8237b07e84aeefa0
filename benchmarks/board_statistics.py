"""How long a large board's statistics take, and how much memory: 50 methods × 20 metrics × 10,000 prompts by default.

    OMP_NUM_THREADS=2 python benchmarks/board_statistics.py --out benchmarks/results/board_statistics.json

Values are made up. The comparison, the rows' entries and the analysis are `build_board`'s own; reading scores into tables is
timed on one row and given for all of them beside it. `cpu_seconds` are those of all of it and both threads, whatever else the
machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
from pathlib import Path

import numpy as np

from harness.api.types import Score
from harness.board import RowResult
from harness.board.analysis import analyse
from harness.board.build import row_entry
from harness.board.compare import Statistics
from harness.board.entries import MetricEntry
from harness.board.statistics import Values, by_metric


class Made(Statistics):
    """A comparison whose values are at hand."""

    tables: dict[str, dict[str, Values]]

    def _read(self, row: RowResult) -> dict[str, Values]:
        return self.tables[row.label]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("rows", 50), ("metrics", 20), ("prompts", 10_000), ("seeds", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rng, names = np.random.default_rng(0), tuple(f"p{i:06d}" for i in range(given.prompts))
    metrics = [MetricEntry(key=f"e/m{k}", description="", higher_is_better=True, primary=k < 3) for k in range(given.metrics)]
    Made.tables = {
        f"row{r}": {
            metric.key: Values(names, rng.normal(0.01 * r, 1.0, (given.seeds, given.prompts)), tuple(range(given.seeds)))
            for metric in metrics
        }
        for r in range(given.rows)
    }
    rows = [RowResult(label, None, None, 1, "null" if label == "row1" else "measured", {}, {}, {}, {}) for label in Made.tables]
    took, start, used = {}, time.perf_counter(), time.process_time()
    comparison = Made(rows, metrics, "row0")
    took["comparison"] = time.perf_counter() - start
    for row in rows:
        row_entry(comparison, row)
    took["entries"] = time.perf_counter() - start - took["comparison"]
    analyse(comparison, {})
    took["all"] = time.perf_counter() - start
    used = time.process_time() - used
    took["analysis"] = took["all"] - took["comparison"] - took["entries"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    answer = {
        "rows": given.rows,
        "metrics": given.metrics,
        "prompts": given.prompts,
        "seeds": given.seeds,
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "seconds": {name: round(value, 1) for name, value in took.items()},
        "cpu_seconds": round(used, 1),
        "peak_gib": round(peak, 2),
        "seconds_to_read_the_scores_of_all_rows": round(_reading(given, names) * given.rows, 1),
    }
    text = json.dumps(answer, indent=1) + "\n"
    print(text, end="")
    if given.out:
        given.out.write_text(text)


def _reading(given: argparse.Namespace, names: tuple[str, ...]) -> float:
    """Seconds for one row: its scores of all metrics as tables."""
    scores = {s: [Score(name, f"m{k}", 0.5) for name in names for k in range(given.metrics)] for s in range(given.seeds)}
    start = time.perf_counter()
    for name, runs in by_metric(scores).items():
        Values.from_scores(runs, name)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
