"""A key-value cache with room for tokens to come: transformers' own is copied whole for every token.

Imports torch and transformers; import it where a model is at hand.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

ROOM = 64  # tokens for which there is room at once; every so many the cache is copied


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values, [rows, heads, tokens, D], as views of tensors that have room for more tokens.

    The numbers are those of the layer that it takes the place of.
    """

    keys: Tensor
    values: Tensor
    _keys: Tensor
    _values: Tensor

    def __init__(self, layer: DynamicLayer) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        self._hold(_with_room(layer.keys), _with_room(layer.values), layer.keys.shape[-2])

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        begin = self.keys.shape[-2]
        end = begin + key_states.shape[-2]
        if end > self._keys.shape[-2]:
            self._keys, self._values = (_with_room(state, end - begin) for state in (self.keys, self.values))
        self._keys[:, :, begin:end] = key_states
        self._values[:, :, begin:end] = value_states
        self._hold(self._keys, self._values, end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        self._hold(self._keys[indices], self._values[indices], self.keys.shape[-2])

    def _hold(self, keys: Tensor, values: Tensor, length: int) -> None:
        self._keys, self._values = keys, values
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]


def _with_room(states: Tensor, least: int = 0) -> Tensor:
    rows, heads, tokens, size = states.shape
    wider = states.new_empty((rows, heads, tokens + max(ROOM, least), size))
    wider[:, :, :tokens] = states
    return wider


def make_room(cache: Cache) -> None:
    """Give room to those layers of a filled cache that would grow by a copy; others, as of sliding windows, stay."""
    layers: list[Any] = getattr(cache, "layers", [])
    for place, layer in enumerate(layers):
        if type(layer) is DynamicLayer and layer.is_initialized and layer.keys.dim() == 4:
            layers[place] = RoomyLayer(layer)
