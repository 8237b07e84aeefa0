"""Real servers on this machine. Slow; each skips where its engine is not there."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import pytest

from harness import Sampling
from harness.models.checkpoint import checkpoint_folder
from harness.models.generate import generate
from harness_plugins.backends.openai import OpenAIBackend
from harness_plugins.backends.vllm_server import VllmServerBackend

VLLM = os.environ.get("HARNESS_VLLM_PYTHON")  # the interpreter of an environment with vLLM
GREEDY = Sampling(temperature=0, max_tokens=32)
pytestmark = pytest.mark.slow


@pytest.fixture
def sandbox(policy):
    """The sandbox's base model: its answers are far from ties, so engines must agree."""
    policy.folder = checkpoint_folder("sandbox")
    return policy


@pytest.mark.skipif(VLLM is None, reason="HARNESS_VLLM_PYTHON names no interpreter with vLLM")
def test_vllm_answers_as_this_process_does(sandbox, prompts) -> None:
    small = ("--dtype", "float32", "--max-model-len", "256", "--gpu-memory-utilization", "0.15")
    backend = VllmServerBackend(python=str(VLLM), arguments=small)
    assert list(backend.problems()) == []
    drawn = Sampling(n=8, max_tokens=32, seed=1)
    with backend.session(sandbox) as ask:
        answers, samples, again = ask(prompts, GREEDY), ask(prompts, drawn), ask(prompts, drawn)
    assert answers == generate(sandbox.model, sandbox.tokenizer, prompts, GREEDY)
    assert samples == again
    assert [len({response.text for response in row}) > 1 for row in samples] == [True] * 3


@pytest.mark.skipif(find_spec("uvicorn") is None, reason="transformers' extra `serving` is not installed")
def test_transformers_serve_answers_greedily_as_this_process_does(sandbox, prompts) -> None:
    backend = OpenAIBackend(
        command=f"{sys.executable} -m transformers.cli.transformers serve --host 127.0.0.1 --port {{port}} "
        "--device cpu --dtype float32 {folder}",
        model="{folder}",
        engine="transformers",
        send="chat",
    )
    with backend.session(sandbox) as ask:
        answers = ask(prompts, GREEDY)
    expected = generate(sandbox.model, sandbox.tokenizer, prompts, GREEDY)
    assert [row[0].text for row in answers] == [row[0].text for row in expected]
