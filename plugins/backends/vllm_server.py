"""Generation by vLLM in an environment of its own, started for each checkpoint and spoken to over HTTP."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

from pydantic import Field, model_validator

from harness import Policy, vllm_command
from harness_plugins.backends.asking import Dialect
from harness_plugins.backends.launch import launched
from harness_plugins.backends.openai import ServedBackend

SEQUENCES = 256  # that vLLM decodes side by side where nothing else is said
# The distribution is not always called as the module: there are builds for CPUs.
_VERSION = "from importlib import metadata as m; n = m.packages_distributions()['vllm'][0]; print(n, m.version(n))"


class VllmServerBackend(ServedBackend):
    """vLLM in its own Python environment: one server per checkpoint, started when a stage first generates."""

    name: ClassVar[str] = "vllm_server"

    dialect: Dialect = Field("vllm", description="as of `openai`")
    python: str = Field("python", min_length=1, description="the interpreter of the environment that vLLM is installed in")
    concurrency: int = Field(
        SEQUENCES, ge=1, le=1024, description="requests at a time; as many as vLLM decodes (`--max-num-seqs`) if absent"
    )
    arguments: tuple[str, ...] = Field((), description="more options of vLLM's server, as in ['--max-model-len', '4096']")

    @model_validator(mode="before")
    @classmethod
    def _fed(cls, fields: Any) -> Any:
        """Ask for as many responses at a time as the engine decodes, unless the config says how many."""
        if (
            not isinstance(fields, Mapping)
            or "concurrency" in fields
            or not isinstance(fields.get("arguments", ()), list | tuple)
        ):
            return fields
        decoded = _given(fields.get("arguments", ()), "--max-num-seqs", default=SEQUENCES)
        return {**fields, "concurrency": min(decoded, 1024)}

    def problems(self) -> Sequence[tuple[str, str]]:
        lacking = (
            [] if self._engine else [("python", "it cannot be run, or has no vLLM installed: name the environment's python")]
        )
        return [*super().problems(), *lacking]

    def fingerprint(self) -> str:
        return self._engine

    def gpus(self) -> int:
        return _given(self.arguments, "--tensor-parallel-size", "-tp") * _given(
            self.arguments, "--pipeline-parallel-size", "-pp"
        )

    @cached_property
    def _engine(self) -> str:
        """Distribution and version, as its interpreter says; '' where it can't."""
        try:
            asked = subprocess.run([self.python, "-c", _VERSION], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return ""
        return asked.stdout.strip()

    @contextmanager
    def serving(self, policy: Policy) -> Iterator[tuple[str, str]]:
        command = vllm_command(self.python, "{folder}", "{name}", "{port}", self.arguments)
        with launched(command, policy, self.start_seconds) as url:
            yield url, policy.name


def _given(arguments: Sequence[object], *names: str, default: int = 1) -> int:
    """Return the number that arguments give an option, as vLLM reads it: of several the last."""
    words = [part for word in arguments for part in str(word).split("=", 1)]
    numbers = [value for name, value in pairwise(words) if name.replace("_", "-") in names and value.isdecimal()]
    return max(1, int(numbers[-1])) if numbers else default
