"""Config × registry -> a comparison with every name resolved, every field checked and every need met, before any compute."""

from harness.config.by_model import resolve_each, resolved_configs
from harness.config.checks import prepare_evaluators
from harness.config.comparison import Comparison, describe, resolved_config
from harness.config.resolve import resolve
from harness.config.rows import RoundPlan, RowConfig

__all__ = [
    "Comparison",
    "RoundPlan",
    "RowConfig",
    "describe",
    "prepare_evaluators",
    "resolve",
    "resolve_each",
    "resolved_config",
    "resolved_configs",
]
