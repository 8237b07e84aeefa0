"""The length-controlled win rate as a function of its verdicts: the package's GLM with each instruction left out once.

Dubois, Galambosi, Liang & Hashimoto 2024, 'Length-Controlled AlpacaEval' (arXiv:2404.04475).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness import logistic, pseudo_values

Floats = NDArray[np.float64]
STEP = 1e-3  # of the lengths' standard deviation, relative: for the derivative of the win rate by it


@dataclass(frozen=True)
class Glm:
    """The regression that the package fitted to one model's verdicts and, with little weight, to those of two gamed models.

    Attributes:
        features: [gamed verdicts + instructions, 3], the model's own last: tanh of the length difference in standard deviations
            of the model's, the instruction's difficulty, and 1 (0 for gamed verdicts).
        targets: [gamed verdicts + instructions], preferences for the model, 0 to 1.
        weights: [gamed verdicts + instructions].
        lengths: [instructions], characters of the reference's output minus those of the model's.
        penalty: [3], derivative of the L1 penalty at the package's coefficients, 0 where a coefficient is 0. Such a coefficient
            moves here: another sample would free it, and held at 0 two equal models on 60 instructions differed 'significantly'
            on 10 % of simulated boards (2 % so).
    """

    features: Floats
    targets: Floats
    weights: Floats
    lengths: Floats
    penalty: Floats

    def pseudo_values(self, win_rate: float) -> Floats:
        """Return [instructions] of pseudo-values, whose mean is `win_rate`, the package's own number from 0 to 1.

        The penalty's strength, which the package chooses by cross-validation, is taken as given.

        Raises:
            ValueError: there are too few instructions, or a regression has no finite solution.
        """
        count, once = len(self.lengths), np.ones((1, len(self.lengths)))
        by_scale = (self.win_rates(once, np.exp(STEP)) - self.win_rates(once, np.exp(-STEP))) / (2 * STEP)

        def fit(weights: Floats) -> Floats:
            # An instruction that is left out changes the lengths' standard deviation, by which all lengths are divided.
            return self.win_rates(weights) + by_scale * self._log_deviation(weights)

        with np.errstate(divide="ignore", invalid="ignore"):
            values = pseudo_values(fit, count, win_rate)
        if not np.isfinite(values).all():
            raise ValueError("without one of the instructions, the outputs of all others differ by the same length")
        return values

    def win_rates(self, weights: Floats, scale: float = 1.0) -> Floats:
        """Return [draws] of win rates at equal length; the lengths' standard deviation is `scale` times what it is."""
        count = len(self.lengths)
        features, at_equal_length = self.features.copy(), self.features[-count:].copy()
        if scale != 1.0:
            features[-count:, 0] = np.tanh(self.lengths / (self.lengths.std(ddof=1) * scale))
        at_equal_length[:, 0] = 0.0
        gamed = np.broadcast_to(self.weights[:-count], (len(weights), len(self.weights) - count))
        coefficients = logistic(
            features, self.targets, np.hstack([gamed, weights * self.weights[-count:]]), penalty=self.penalty
        )
        predicted = 1.0 / (1.0 + np.exp(-(coefficients @ at_equal_length.T)))
        return np.asarray((predicted * weights).sum(axis=1) / weights.sum(axis=1))

    def _log_deviation(self, weights: Floats) -> Floats:
        """Return [draws] of logarithms of the lengths' standard deviation, as pandas computes it."""
        total = weights.sum(axis=1)
        squares = weights @ self.lengths**2 - (weights @ self.lengths) ** 2 / total
        return np.asarray(np.log(squares / (total - 1)) / 2)
