"""Generation by vLLM in this process. Its own environment and a server (`vllm_server`) are the safer choice."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

from pydantic import Field

from harness import Backend, ChatTemplate, Chunks, Generate, Policy, Prompt, Response, Sampling, StageError
from harness_plugins.backends.asking import request_seed

SEQUENCES_PER_CALL = 8192  # each call's end leaves the engine half idle; what is drawn between two can be kept
MISSING = "vllm is not installed here: pip install 'alignment-harness[vllm]', or use the backend vllm_server"


class VllmBackend(Backend):
    """vLLM in the worker's process, with prompts as tokens of the policy's own chat template."""

    name: ClassVar[str] = "vllm"
    resumes: ClassVar[bool] = True

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field("auto", description="of weights and activations")
    memory_share: float = Field(0.85, gt=0, le=1, description="share of the device's memory that the engine takes")
    max_model_len: int | None = Field(
        None, ge=16, description="longest prompt and response together; the model's own if absent"
    )
    tensor_parallel: int = Field(1, ge=1, le=64, description="devices that one engine spans")
    eager: bool = Field(False, description="without CUDA graphs: slower, and starts faster")

    def problems(self) -> Sequence[tuple[str, str]]:
        return [] if find_spec("vllm") else [("dtype", MISSING)]

    def fingerprint(self) -> str:
        try:
            return f"vllm {metadata.version('vllm')}"
        except metadata.PackageNotFoundError:
            return ""

    def precision(self, weights: str) -> str:
        return "a type that vLLM chooses" if self.dtype == "auto" else self.dtype

    def gpus(self) -> int:
        return self.tensor_parallel

    def draws_apart(self) -> bool:
        return True  # by a seed for each prompt

    @contextmanager
    def session(self, policy: Policy) -> Iterator[Generate]:
        try:
            import vllm
        except ImportError as error:
            raise StageError(MISSING) from error
        engine = vllm.LLM(
            model=str(policy.folder),
            tokenizer=str(policy.folder),
            dtype=self.dtype,
            gpu_memory_utilization=self.memory_share,
            max_model_len=self.max_model_len,
            tensor_parallel_size=self.tensor_parallel,
            enforce_eager=self.eager,
            enable_prefix_caching=True,
            generation_config="vllm",  # none of the checkpoint's own sampling defaults
            trust_remote_code=False,
            seed=0,
        )
        try:
            yield _Session(engine, vllm.SamplingParams, ChatTemplate(policy.tokenizer), policy.stop_ids).generate
        finally:
            core = getattr(engine.llm_engine, "engine_core", None)
            if hasattr(core, "shutdown"):
                core.shutdown()
            del engine
            gc.collect()


@dataclass(frozen=True)
class _Session:
    engine: Any
    parameters: Any
    template: ChatTemplate
    stop_ids: tuple[int, ...]

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        report: Callable[[int, int], None] | None = None,
        chunks: Chunks | None = None,
    ) -> list[list[Response]]:
        answers = {} if chunks is None else dict(chunks.responses)
        missing = [place for place in range(len(prompts)) if place not in answers]
        per_call = max(1, SEQUENCES_PER_CALL // sampling.n)
        for start in range(0, len(missing), per_call):
            places = missing[start : start + per_call]
            fresh = dict(zip(places, self._ask(prompts, places, sampling), strict=True))
            answers |= fresh
            if chunks is not None:
                chunks.add(fresh)
            if report is not None:
                report(len(answers) * sampling.n, len(prompts) * sampling.n)
        return [answers[place] for place in range(len(prompts))]

    def _ask(self, prompts: Sequence[Prompt], places: Sequence[int], sampling: Sampling) -> list[list[Response]]:
        """The responses to some of the prompts; a prompt's seed is its place's, whatever is asked beside it."""
        asked = [{"prompt_token_ids": self.template.prompt_ids(prompts[place])} for place in places]
        outputs = self.engine.generate(asked, [self._parameters(sampling, place) for place in places], use_tqdm=False)
        return [[self._response(choice) for choice in output.outputs] for output in outputs]

    def _parameters(self, sampling: Sampling, place: int) -> Any:
        return self.parameters(
            n=sampling.n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=request_seed(sampling.seed, place, 0),
            stop_token_ids=list(self.stop_ids),
        )

    def _response(self, choice: Any) -> Response:
        """Return a choice as a response; its `token_ids` hold the token that ended the turn."""
        return self.template.sampled(choice.token_ids, choice.finish_reason == "stop")
