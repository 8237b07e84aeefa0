"""vLLM's own server, in an environment of its own."""

from __future__ import annotations

from collections.abc import Sequence


def vllm_command(python: str, folder: str, name: str, port: str, arguments: Sequence[str] = ()) -> list[str]:
    """How to start vLLM's server for a checkpoint, without the checkpoint's own sampling defaults."""
    server = [python, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", port]
    return [*server, "--model", folder, "--served-model-name", name, "--generation-config", "vllm", "--seed", "0", *arguments]
