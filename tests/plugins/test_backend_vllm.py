"""vLLM in process, against a module that has vLLM's signatures and result types and generates with transformers.

vLLM itself needs a GPU or an environment of its own: what is tested here is how it is called and how its results are read.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from harness import ChatTemplate, Response, Sampling, StageError
from harness.models.generate import generate, generate_ids
from harness.models.load import load
from harness_plugins.backends import vllm as module
from harness_plugins.backends.vllm import VllmBackend


@dataclass(kw_only=True)
class SamplingParams:
    """The fields of vLLM's that are used, with its checks."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int | None = 16
    seed: int | None = None
    stop_token_ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.temperature < 1e-5 and self.n > 1:
            raise ValueError("n must be 1 when using greedy sampling")


class LLM:
    """`vllm.LLM`: keyword options, prompts as `TokensPrompt` mappings, one `SamplingParams` per prompt."""

    made: list[LLM]
    options: dict[str, Any]

    def __init__(
        self,
        model: str,
        *,
        tokenizer: str | None = None,
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        seed: int = 0,
        gpu_memory_utilization: float = 0.9,
        enforce_eager: bool = False,
        **kwargs: Any,
    ) -> None:
        assert set(kwargs) <= {"max_model_len", "enable_prefix_caching", "generation_config"}
        self.options = {"trust_remote_code": trust_remote_code, "tokenizer": tokenizer, **kwargs}
        self.loaded = load(Path(model))
        self.ended = False
        self.stops: list[list[int]] = []
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(shutdown=lambda: setattr(self, "ended", True)))
        self.made.append(self)

    def generate(self, prompts: Sequence[dict], sampling_params: Sequence[SamplingParams], *, use_tqdm: bool = True) -> list:
        assert not use_tqdm and len(prompts) == len(sampling_params)
        return [self._output(prompt["prompt_token_ids"], asked) for prompt, asked in zip(prompts, sampling_params, strict=True)]

    def _output(self, ids: list[int], asked: SamplingParams) -> SimpleNamespace:
        model, tokenizer = self.loaded
        self.stops.append(asked.stop_token_ids)
        sampling = Sampling(asked.n, asked.temperature, asked.top_p, asked.max_tokens or 16, asked.seed or 0)
        (responses,) = generate_ids(model, ChatTemplate(tokenizer), [ids], sampling, asked.stop_token_ids)
        outputs = []
        for index, response in enumerate(responses):
            reason, stop = ("stop", response.ids[-1]) if response.finished else ("length", None)
            outputs.append(
                SimpleNamespace(index=index, text="unused", token_ids=response.ids, finish_reason=reason, stop_reason=stop)
            )
        return SimpleNamespace(prompt_token_ids=ids, outputs=outputs, finished=True)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[LLM]:
    module = ModuleType("vllm")
    LLM.made = []
    module.LLM, module.SamplingParams = LLM, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
    return LLM.made


def test_greedy_answers_are_those_of_transformers(engines, policy, prompts) -> None:
    greedy = Sampling(temperature=0, max_tokens=8)
    with VllmBackend().session(policy) as ask:
        answers = ask(prompts, greedy)
        assert not policy.loaded
    assert engines[0].options["generation_config"] == "vllm"
    assert not engines[0].options["trust_remote_code"]
    assert engines[0].ended
    expected = generate(policy.model, policy.tokenizer, prompts, greedy)
    assert [row[0].text for row in answers] == [row[0].text for row in expected]
    assert [row[0].finished for row in answers] == [row[0].finished for row in expected]
    assert [row[0].ids for row in answers] == [row[0].ids for row in expected]


@pytest.mark.parametrize("others", [[40], [41, 42]], ids=["as Qwen's", "as Llama 3's"])
def test_it_is_told_every_end_token(engines, policy, prompts, others: list[int], several_ends) -> None:
    ends = several_ends(policy, others)
    with VllmBackend().session(policy) as ask:
        rows = ask(prompts, Sampling(n=512, max_tokens=8, seed=2))
    assert engines[0].stops == [list(ends)] * 3
    assert {response.ids[-1] for row in rows for response in row if response.finished} == set(ends)
    assert all(set(ends).isdisjoint(response.ids[:-1]) for row in rows for response in row)


def test_each_prompt_has_a_seed_of_its_own(engines, policy, prompts) -> None:
    with VllmBackend().session(policy) as ask:
        first = ask([prompts[0], prompts[0]], Sampling(n=4, max_tokens=8, seed=2))
        again = ask([prompts[0], prompts[0]], Sampling(n=4, max_tokens=8, seed=2))
    assert first == again
    assert [len(row) for row in first] == [4, 4]
    assert first[0] != first[1]


class Memory:
    """Chunks of a process that ends after `left` of them."""

    def __init__(self, responses: dict[int, list[Response]], left: int) -> None:
        self.responses, self.state, self.left = responses, b"", left

    def add(self, responses: dict[int, list[Response]], state: bytes = b"") -> None:
        self.responses, self.left = self.responses | responses, self.left - 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_a_generation_goes_on_after_any_call(engines, policy, prompts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is asked for a limited number of sequences at once: what is kept is what a call gave."""
    sampling, asked, chunks = Sampling(n=2, max_tokens=8, seed=2), [*prompts, *prompts], Memory({}, 2)
    with VllmBackend().session(policy) as ask:
        whole = ask(asked, sampling)
        monkeypatch.setattr(module, "SEQUENCES_PER_CALL", 5)
        with pytest.raises(KeyboardInterrupt):
            ask(asked, sampling, None, chunks)
    assert sorted(chunks.responses) == [0, 1, 2, 3]
    seen: list[tuple[int, int]] = []
    with VllmBackend().session(policy) as ask:
        assert ask(asked, sampling, lambda done, total: seen.append((done, total)), Memory(chunks.responses, 2)) == whole
    assert seen == [(12, 12)]


def test_the_engine_is_ended_when_a_stage_fails(engines, policy) -> None:
    with pytest.raises(RuntimeError, match="the stage"), VllmBackend().session(policy):
        raise RuntimeError("the stage failed")
    assert engines[0].ended


def test_its_absence_is_said_while_planning_and_when_used(monkeypatch: pytest.MonkeyPatch, policy) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setattr("harness_plugins.backends.vllm.find_spec", lambda name: None)
    ((_, fix),) = VllmBackend().problems()
    assert "alignment-harness[vllm]" in fix and "vllm_server" in fix
    with pytest.raises(StageError, match="vllm is not installed"), VllmBackend().session(policy):
        raise AssertionError("no session")


def test_its_version_is_in_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: {"vllm": "0.33.0"}[name])
    assert VllmBackend().fingerprint() == "vllm 0.33.0"
