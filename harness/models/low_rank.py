"""Low-rank adapters added to weights so that every machine gets the same bits.

A sum of float products depends on the order in which a library adds, so that merging on another processor can give other last
digits. Here the two factors of an adapter are rounded to whole multiples of a unit first, with so few digits that all products
and sums are whole numbers that float64 holds exactly: their order then does not matter.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.models.fit import ADAPTER_WEIGHTS, WRAPPED

Floats = NDArray[np.float64]
EXACT = 53  # binary digits of a whole number in float64


@dataclass(frozen=True)
class Update:
    """The change of one weight: `left @ right * factor`, whose product is of whole numbers.

    Attributes:
        left: [rows, rank].
        right: [rank, columns].
    """

    left: Floats
    right: Floats
    factor: float

    @classmethod
    def of(cls, left: Floats, right: Floats, scale: float) -> Update:
        """Round two factors of an update that is multiplied with `scale`."""
        digits = (EXACT - math.ceil(math.log2(max(2, right.shape[0])))) // 2
        (left, one), (right, other) = (_whole(factor, digits) for factor in (left, right))
        return cls(left, right, one * other * scale)

    def block(self, first: int, last: int) -> Floats:
        """Return the changes from one place to another of the weight's numbers, laid out by rows."""
        columns = self.right.shape[1]
        begin = first // columns
        rows = self.left[begin : -(-last // columns)] @ self.right
        return rows.reshape(-1)[first - begin * columns : last - begin * columns] * self.factor


def _whole(factor: Floats, digits: int) -> tuple[Floats, float]:
    """Return whole numbers of at most so many binary digits, and the power of two that they are multiples of."""
    _, exponent = math.frexp(float(np.abs(factor).max(initial=0.0)))
    unit = 2.0 ** (exponent - digits)
    return np.rint(factor / unit), unit


class Adapter:
    """A folder of PEFT's, with `adapter_config.json` and `adapter_model.safetensors`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last: tuple[str, Update | None] = "", None

    def added(self, name: str, shape: tuple[int, ...], first: int, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return numbers of a weight from place `first` on with the adapter's update added, rounded to float32 once."""
        if self._last[0] != name:
            self._last = name, self._update(name, shape)
        update = self._last[1]
        if update is None:
            return weights
        return (weights.astype(np.float64) + update.block(first, first + len(weights))).astype(np.float32)

    def _update(self, name: str, shape: tuple[int, ...]) -> Update | None:
        """Return the update of a weight; None where the adapter has none, or one that is no plain product."""
        module = WRAPPED + name.removesuffix(".weight")
        layer, embedding = f"{module}.lora_{{}}.weight", f"{module}.lora_embedding_{{}}"
        for names, turned in ((layer, bool(self._config.get("fan_in_fan_out"))), (embedding, True)):
            right, left = (self._tensors.get(names.format(factor)) for factor in "AB")
            if right is None or left is None:
                continue
            if left.ndim != 2 or right.ndim != 2 or not (np.isfinite(left).all() and np.isfinite(right).all()):
                return None
            left, right = (right.T, left.T) if turned else (left, right)
            if (len(left), right.shape[1]) != shape or left.shape[1] != len(right):
                return None
            return Update.of(left, right, self._scale)
        return None

    @cached_property
    def _config(self) -> dict[str, Any]:
        try:
            config = json.loads((self.folder / "adapter_config.json").read_text(encoding="utf-8"))
            return dict(config)
        except (OSError, ValueError, TypeError) as error:
            raise self._damaged(error) from error

    @cached_property
    def _scale(self) -> float:
        rank, alpha = int(self._config["r"]), float(self._config["lora_alpha"])
        return alpha / (math.sqrt(rank) if self._config.get("use_rslora") else rank)

    @cached_property
    def _tensors(self) -> dict[str, Floats]:
        from safetensors import SafetensorError
        from safetensors.torch import load_file  # NumPy has no bfloat16, in which TRL trains adapters of 4-bit weights

        try:
            return {name: value.double().numpy() for name, value in load_file(self.folder / ADAPTER_WEIGHTS).items()}
        except (OSError, SafetensorError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> DataError:
        return DataError(f"the adapter in {self.folder} cannot be read ({error}): delete the artifact and run again")
