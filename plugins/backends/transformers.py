"""Generation in this process, with the model already in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from harness import Backend, ChatTemplate, Chunks, Policy, Prompt, Response, Sampling, generate, prompt_batches


class TransformersBackend(Backend):
    """Transformers with a key-value cache: each prompt once for all its samples, finished rows dropped."""

    name: ClassVar[str] = "transformers"
    resumes: ClassVar[bool] = True

    rows_per_batch: int = Field(256, ge=1, le=65_536, description="sequences decoded side by side")
    random: Literal["by_batch", "by_response"] = Field(
        "by_batch",
        exclude_if=lambda random: random == "by_batch",  # it is in no key that was made without it
        description="random numbers: one stream over all batches; by_response: each response's own, as `run.shards` needs them",
    )

    def precision(self, weights: str) -> str:
        return weights

    def draws_apart(self) -> bool:
        return self.random == "by_response"

    def batches(self, policy: Policy, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[int]]:
        template = ChatTemplate(policy.tokenizer)
        return prompt_batches([template.prompt_ids(prompt) for prompt in prompts], sampling.n, self.rows_per_batch)

    def generate(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        report: Callable[[int, int], None] | None = None,
        chunks: Chunks | None = None,
    ) -> list[list[Response]]:
        return generate(
            policy.model,
            policy.tokenizer,
            prompts,
            sampling,
            rows_per_batch=self.rows_per_batch,
            random=self.random,
            report=report,
            chunks=chunks,
        )
