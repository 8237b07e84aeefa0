"""The base of evaluators of sampled answers.

Equal fields ask for equal answers, which the run draws once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from harness import Evaluator, Sampling


class SampledEvaluator(Evaluator):
    """An evaluator that reads `n` answers per example, at `temperature` and without top-p."""

    divisible: ClassVar[bool] = True

    n: int = Field(2, ge=1, le=64, description="answers sampled per example")
    temperature: float = Field(1.0, gt=0, le=2, description="of the sampled answers; 1 is the policy itself")
    max_tokens: int = Field(64, ge=1, description="the longest answer, in tokens")

    @property
    def sampled(self) -> Sampling:
        return Sampling(n=self.n, temperature=self.temperature, max_tokens=self.max_tokens)

    def samplings(self) -> Sequence[Sampling]:
        return (self.sampled,)
