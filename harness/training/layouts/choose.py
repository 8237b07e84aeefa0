"""`training.layout` and a model -> the layout to train with, or to score with."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from harness.errors import StageError
from harness.models.logps import unwrapped
from harness.training.layouts.layout import Layout
from harness.training.layouts.padded import ExpandedPairs, UniqueRows

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Attention = Literal["sdpa", "flex", "varlen"]
LayoutName = Literal["auto", "shared_prefix", "unique", "expanded"]


class LayoutWarning(UserWarning):
    """A model does not honour the shared-prefix layout, and computes with padded rows, more slowly."""


def wrong_attention(attention: Attention) -> str | None:
    """Return why a way to attend cannot be used on this machine, and the fix; None if it can."""
    if attention == "sdpa":
        return None
    import torch

    if not torch.cuda.is_available():
        return "it needs a CUDA device, and this machine has none: choose 'sdpa'"
    if attention == "varlen" and find_spec("torch.nn.attention.varlen") is None:
        return f"PyTorch has it from 2.10 on, and {torch.__version__} is installed: choose 'sdpa' or 'flex'"
    return None


def choose_layout(
    model: PreTrainedModel, name: LayoutName = "auto", attention: Attention = "sdpa", work: str = "training"
) -> Layout:
    """The layout by name; `auto` is `shared_prefix` where the probe passes, else `unique` with one warning that says why.

    A model with low-rank adapters is taken by the model inside PEFT's wrapper. The shared-prefix layout sets the model's
    attention implementation, for as long as the model lives.

    Args:
        attention: how the shared-prefix layout attends.
        work: for the warning.

    Raises:
        StageError: `shared_prefix` was asked for by name, and the model does not honour it; or `attention` does not give the
            numbers of sdpa on this device.
    """
    from harness.training.layouts.attention import install
    from harness.training.layouts.probe import check_attention, choose_head, choose_shared_prefix

    model = unwrapped(model)
    if name == "expanded":
        return ExpandedPairs(choose_head(model))
    if name == "unique":
        return UniqueRows(head=choose_head(model))
    try:
        layout = choose_shared_prefix(model)
    except NotImplementedError as error:
        kind = type(model).__name__
        if name == "shared_prefix":
            raise StageError(f"training.layout = 'shared_prefix': {kind} does not honour it: {error}; use 'auto'") from error
        message = f"{kind} does not honour the shared-prefix layout ({error}); {work} with padded rows, which is slower"
        warnings.warn(message, LayoutWarning, stacklevel=2)
        return UniqueRows(message, choose_head(model))
    try:
        check_attention(_device(model), attention)
    except Exception as error:  # a kernel may fail in any way
        raise StageError(f"training.attention = {attention!r} does not work here: {error}; use 'sdpa'") from error
    layout.attention = attention
    install(model)
    return layout


def _device(model: PreTrainedModel) -> torch.device:
    """Return the device that computes. A model to be sharded lies in the first process's memory, and nowhere in the others."""
    import torch

    return torch.device("cuda") if torch.cuda.is_available() else model.device
