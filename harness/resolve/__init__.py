"""Config × registry -> a comparison with every name resolved, every field checked and every need met, before any compute."""

from harness.resolve.comparison import Comparison
from harness.resolve.description import describe
from harness.resolve.machine import prepare_evaluators
from harness.resolve.resolution import resolve
from harness.variants import RoundPlan, Variant

__all__ = ["Comparison", "RoundPlan", "Variant", "describe", "prepare_evaluators", "resolve"]
