"""Engines that generate."""

from harness import Backend, hookimpl
from harness_plugins.backends.transformers import TransformersBackend


@hookimpl
def harness_backends() -> list[type[Backend]]:
    return [TransformersBackend]
