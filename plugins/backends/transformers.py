"""Generation in this process, with the model already in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from pydantic import Field

from harness import Backend, Chunks, Policy, Prompt, Response, Sampling, generate


class TransformersBackend(Backend):
    """Transformers with a key-value cache: each prompt once for all its samples, finished rows dropped."""

    name: ClassVar[str] = "transformers"
    resumes: ClassVar[bool] = True

    rows_per_batch: int = Field(256, ge=1, le=65_536, description="sequences decoded side by side")

    def precision(self, weights: str) -> str:
        return weights

    def generate(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        report: Callable[[int, int], None] | None = None,
        chunks: Chunks | None = None,
    ) -> list[list[Response]]:
        loaded = policy.model, policy.tokenizer
        return generate(*loaded, prompts, sampling, rows_per_batch=self.rows_per_batch, report=report, chunks=chunks)
