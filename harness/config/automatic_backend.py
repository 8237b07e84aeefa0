"""`generation.backend: auto`: vLLM where it is installed and the model is large enough to gain by it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from harness.models.size import checkpoint_config, model_size
from harness.store.environment import device_kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.models.checkpoint import Checkpoint

AUTO = "auto"
LARGE = 500_000_000  # parameters; below, an engine's start and its graphs take longer than it saves


def automatic_backend(checkpoint: Checkpoint | None) -> str:
    """Return the name of the backend for a starting model on this machine.

    Args:
        checkpoint: None where the model is made from the source's text, and is small.
    """
    if checkpoint is None or device_kind() != "cuda" or find_spec("vllm") is None:
        return "transformers"
    config = checkpoint_config(checkpoint)
    return "vllm" if config is not None and _parameters(config) >= LARGE else "transformers"


def _parameters(config: Mapping[str, object]) -> int:
    try:
        return model_size(config).parameters
    except Exception:  # code of its own, or no plain language model
        return 0
