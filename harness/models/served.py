"""Models that a server keeps to itself: an OpenAI-compatible endpoint gives their answers, and neither weights nor tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.errors import StageError
from harness.models.client import ModelClient, RefusedError
from harness.models.retry import RetryPolicy
from harness.store import canonical

BACKEND = "openai"  # asks it
ASKED_AS: Mapping[str, Any] = {"send": "chat"}  # messages as they are: the server's own template renders them
LOOK = RetryPolicy(attempts=2, timeout_seconds=10.0)  # while planning, a person waits


@dataclass(frozen=True)
class ServedModel:
    """A model behind an endpoint.

    Attributes:
        base_url: the server's address, up to and including `/v1`.
        model: its name there.
        name: identifies it in keys wherever it is served; None where its address and its name there do.
        api_key_env: the environment variable that holds the key, or None.
        concurrency, retries, timeout_seconds: how it is asked, as of the backend; no part of a key.
    """

    base_url: str
    model: str
    name: str | None = None
    api_key_env: str | None = None
    concurrency: int = 32
    retries: int = 6
    timeout_seconds: float = 600.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def identity(self) -> dict[str, str]:
        """Return what tells it from other models: the declared name, or the address with the name there."""
        return {"name": self.name} if self.name else {"base_url": self.base_url.rstrip("/"), "model": self.model}

    @property
    def digest(self) -> str:
        """A hash of the identity."""
        return hashlib.sha256(canonical(self.identity).encode()).hexdigest()[:32]

    def backend_fields(self) -> Mapping[str, Any]:
        """Return the fields of the backend that asks it."""
        return {
            **ASKED_AS,
            "base_url": self.base_url,
            "model": self.model,
            "api_key_variable": self.api_key_env,
            "concurrency": self.concurrency,
            "retries": self.retries,
            "timeout_seconds": self.timeout_seconds,
        }

    def problem(self, key: str | None) -> tuple[str, str] | None:
        """Return the field that is wrong and the fix, where the server does not answer or serves other models; else None.

        A server that lists no models (some gateways refuse to) cannot be judged before it is asked for an answer.

        Args:
            key: the API key, or None.
        """
        client = ModelClient(self.base_url, key, LOOK, when_exhausted="start the server, or correct the address")
        with client.running() as runner:
            try:
                listed = runner.run(client.models())
            except RefusedError as error:
                keyless = any(f"HTTP {status}" in str(error) for status in (401, 403))
                return ("api_key_env", str(error)) if keyless else None
            except StageError as error:
                return "base_url", str(error)
        if listed and self.model not in listed:
            return "model", f"the server at {self.base_url} serves {', '.join(listed[:5])}: name one of its models"
        return None
