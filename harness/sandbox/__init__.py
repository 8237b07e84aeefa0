"""The embedded default: a small world with a gold reward, so that a comparison runs on any machine within minutes."""

from harness.sandbox.benchmarks import write_benchmarks
from harness.sandbox.world import build_dataset, marks

__all__ = ["build_dataset", "marks", "write_benchmarks"]
