"""`training.kernels`: Liger's fused Triton kernels (arXiv 2410.10989) for norms, rotary positions and gated layers.

The loss stays ours, as its head is fused already.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from harness.errors import StageError
from harness.extras import install, is_installed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Kernels = Literal["default", "liger"]


def wrong_kernels(kernels: Kernels) -> str | None:
    """Return why kernels cannot be used on this machine, and the fix; None if they can."""
    if kernels == "default":
        return None
    if not is_installed("liger_kernel"):
        return f"liger_kernel is not installed: {install('liger_kernel')}, or choose 'default'"
    import torch

    return None if torch.cuda.is_available() else "they need a CUDA device, and this machine has none: choose 'default'"


@contextmanager
def layer_kernels(model: PreTrainedModel, kernels: Kernels) -> Iterator[None]:
    """Give a model's layers other kernels, which this model keeps.

    Liger also replaces functions and classes in transformers' module of the architecture, for the whole process. They are put
    back when the block ends, since the worker's next stage may load a model of it.

    Raises:
        StageError: Liger has none for this architecture.
    """
    if kernels == "default":
        yield
        return
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    from harness.models.logps import unwrapped

    bare = unwrapped(model)
    module = sys.modules[type(bare).__module__]
    before = dict(vars(module))
    try:
        _apply_liger_kernel_to_instance(model=bare, cross_entropy=False, fused_linear_cross_entropy=False)
        if all(vars(module).get(name) is value for name, value in before.items()):  # it only logs that it has none
            raise StageError(f"training.kernels = 'liger': it has none for {type(bare).__name__}: choose 'default'")
        yield
    finally:
        vars(module).update(before)
