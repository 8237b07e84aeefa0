"""Engines that generate."""

from harness import Backend, hookimpl
from harness_plugins.backends.openai import OpenAIBackend
from harness_plugins.backends.transformers import TransformersBackend
from harness_plugins.backends.vllm import VllmBackend
from harness_plugins.backends.vllm_server import VllmServerBackend


@hookimpl
def harness_backends() -> list[type[Backend]]:
    return [TransformersBackend, VllmBackend, VllmServerBackend, OpenAIBackend]
