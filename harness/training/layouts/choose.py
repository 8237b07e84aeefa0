"""`training.layout` and a model -> the layout to train with."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Literal

from harness.errors import StageError
from harness.models.logps import unwrapped
from harness.training.layouts.layout import Layout
from harness.training.layouts.padded import ExpandedPairs, UniqueRows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LayoutName = Literal["auto", "shared_prefix", "unique", "expanded"]


class LayoutWarning(UserWarning):
    """A model does not honour the shared-prefix layout, and is trained with padded rows, more slowly."""


def choose_layout(model: PreTrainedModel, name: LayoutName = "auto") -> Layout:
    """The layout by name; `auto` is `shared_prefix` where the probe passes, else `unique` with one warning that says why.

    A model with low-rank adapters is taken by the model inside PEFT's wrapper. The shared-prefix layout sets the model's
    attention implementation, for as long as the model lives.

    Raises:
        StageError: `shared_prefix` was asked for by name, and the model does not honour it.
    """
    from harness.training.layouts.attention import install
    from harness.training.layouts.probe import choose_head, choose_shared_prefix

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
        message = f"{kind} does not honour the shared-prefix layout ({error}); training with padded rows, which is slower"
        warnings.warn(message, LayoutWarning, stacklevel=2)
        return UniqueRows(message, choose_head(model))
    install(model)
    return layout
