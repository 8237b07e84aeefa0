"""The uniform numbers that sampling draws tokens with: one stream for a whole generation, or one for each response.

`by_batch` is one stream, read in the order in which rows are decoded: a response depends on those before it and beside it.
`by_response` counts: the number of a token is a function of the seed, the prompt's place in its request, the sample and the
step (Philox4x64-10, Salmon et al., 2011). So prompts can be drawn in any order and on any number of devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from torch import Generator, Tensor, device

RandomNumbers = Literal["by_batch", "by_response"]
STEPS_AT_ONCE = 256  # of each response; Philox gives four numbers a call, so it is a multiple of 4


class Uniform(Protocol):
    """Numbers from [0, 1) for the rows of one batch."""

    def draw(self, step: int, origin: Tensor) -> Tensor:
        """Return one float64 number a row, [rows, 1].

        Args:
            step: tokens of each response before this one; never falls.
            origin: which response of the batch a row is, [rows].
        """
        ...


class ByBatch:
    """Numbers in the order in which they are asked for."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    def draw(self, step: int, origin: Tensor) -> Tensor:
        import torch

        return torch.rand((len(origin), 1), dtype=torch.float64, device=origin.device, generator=self.generator)


class ByResponse:
    """Numbers of each response's own.

    Args:
        seed: of the request, at least 0.
        places: of the batch's prompts in the request.
        n: samples of each prompt; the responses of a batch are numbered prompt by prompt.
    """

    def __init__(self, seed: int, places: Sequence[int], n: int, device: device) -> None:
        import numpy as np

        # The key is (seed, place). The counter's third word is the sample, and its first counts on by itself.
        self._streams = [
            np.random.Philox(key=_words(seed, place), counter=_words(0, 0, k, 0)) for place in places for k in range(n)
        ]
        self._device = device
        self._first = -STEPS_AT_ONCE
        self._numbers: Tensor | None = None  # of steps from `_first` on, [responses, STEPS_AT_ONCE]

    def draw(self, step: int, origin: Tensor) -> Tensor:
        import numpy as np
        import torch

        while self._numbers is None or step >= self._first + STEPS_AT_ONCE:
            raw = np.stack([stream.random_raw(STEPS_AT_ONCE) for stream in self._streams])
            # The upper 53 bits, as many as float64 has.
            self._numbers = torch.from_numpy((raw >> np.uint64(11)) * 2.0**-53).to(self._device)
            self._first += STEPS_AT_ONCE
        return self._numbers[origin, step - self._first][:, None]


def _words(*values: int) -> np.ndarray:
    import numpy as np

    return np.array(values, dtype=np.uint64)
