"""Generation by any OpenAI-compatible server: one that runs, or one started for each checkpoint."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import ClassVar
from urllib.parse import urlsplit

from pydantic import Field

from harness import Backend, ChatTemplate, Generate, ModelClient, Policy, RetryPolicy, StageError, UnavailableError
from harness_plugins.backends.asking import Asking, Dialect, Send
from harness_plugins.backends.launch import fill, get_json, launched

VERSIONS = {"version": "version", "info": "version", "server_info": "version", "props": "build_info"}  # path -> field


class ServedBackend(Backend):
    """The common part of backends that speak to a server."""

    resumes: ClassVar[bool] = True

    send: Send = Field(
        "ids",
        description="the prompt as tokens or as text of the policy's own chat template (completion endpoint), "
        "or as messages that the server's template renders (chat endpoint)",
    )
    dialect: Dialect = Field("openai", description="`vllm` also for SGLang: fields beyond OpenAI's that make answers exact")
    concurrency: int = Field(32, ge=1, le=1024, description="requests at a time")
    retries: int = Field(6, ge=0, le=100, description="further attempts for one request, with growing waits")
    timeout_seconds: float = Field(600.0, gt=0, le=86_400, description="for one answer")
    start_seconds: float = Field(900.0, gt=0, le=86_400, description="until a server that is started answers")

    def precision(self, weights: str) -> str:
        return "a type that the server chooses"

    def draws_apart(self) -> bool:
        return True  # by a seed for each request

    @contextmanager
    def session(self, policy: Policy) -> Iterator[Generate]:
        with self.serving(policy) as (url, name):
            client = ModelClient(
                url,
                self.api_key(policy),
                RetryPolicy(self.retries + 1, self.timeout_seconds),
                when_exhausted="answers so far are kept: run again, or raise `retries`",
            )
            with client.running() as runner:
                served = runner.run(client.models()) if name == policy.name else [name]
                self.check_server(served, url, name)
                template, own = _template(policy), self.serves_any_policy()
                stop_ids = policy.stop_ids if template is not None else ()
                fields = (self.send, self.dialect, self.concurrency, stop_ids, own)
                yield Asking(client, runner, name, template, *fields).generate

    @contextmanager
    def serving(self, policy: Policy) -> Iterator[tuple[str, str]]:
        """Yield a server's base URL and the policy's name there."""
        raise NotImplementedError
        yield

    def api_key(self, policy: Policy) -> str | None:
        return None

    def check_server(self, served: Sequence[str], url: str, name: str) -> None:
        """Refuse a server that serves something else than what the keys say.

        Args:
            served: the models that it serves.
            name: the one that this stage needs.

        Raises:
            StageError: it lacks the model, or is another software or version than the plan was made for.
        """
        if name not in served:
            raise StageError(
                f"the server at {url} serves {', '.join(served) or 'nothing'}, and this stage needs {name}: "
                "start it with `harness serve-policy`, let the backend start it (`command`), or name its model (`model`)"
            )
        version, expected = server_version(url), self.fingerprint()
        if version and version.split()[-1] not in expected:
            raise StageError(
                f"the server at {url} is {version}, and the plan was made for {expected!r}: plan again, or set `engine`"
            )


def _template(policy: Policy) -> ChatTemplate | None:
    """Return the policy's chat template; None of a model that only its server has."""
    try:
        return ChatTemplate(policy.tokenizer)
    except UnavailableError:
        return None


class OpenAIBackend(ServedBackend):
    """Any OpenAI-compatible server, as vLLM's, SGLang's, llama.cpp's: one at `base_url`, or one per checkpoint by `command`."""

    name: ClassVar[str] = "openai"

    base_url: str | None = Field(None, description="of a server that runs, as in http://localhost:8000/v1")
    command: str | None = Field(
        None, description="starts a server for a checkpoint: a command line with {folder}, {name} and {port}"
    )
    model: str | None = Field(
        None,
        description="the model's name at the server, where it is not the one that `harness serve-policy` gives; "
        "with `command` it may hold {folder}",
    )
    engine: str | None = Field(
        None, description="the server's software and version, for keys and the board; asked for if absent"
    )
    api_key_variable: str | None = Field(None, description="the environment variable that holds the key")

    def serves_any_policy(self) -> bool:
        return self.command is not None or self.model is None

    def problems(self) -> Sequence[tuple[str, str]]:
        return [*super().problems(), *self._place_problems()]

    def _place_problems(self) -> list[tuple[str, str]]:
        if (self.base_url is None) == (self.command is None):
            return [("base_url", "give exactly one of `base_url` and `command`")]
        if self.command is not None:
            places = ("{folder}", "{port}") if self.model else ("{folder}", "{name}", "{port}")
            missing = [place for place in places if place not in self.command]
            if missing:
                return [("command", f"it lacks {' and '.join(missing)}, which stand for what a server has to be told")]
            if self.engine is None:
                return [("engine", "say what the command starts and its version, as in 'vllm 0.33.0': it is part of every key")]
        elif urlsplit(self.base_url or "").scheme not in ("http", "https"):
            return [("base_url", "write it with http:// or https://, as in http://localhost:8000/v1")]
        elif self.engine is None and not self._asked:
            return [
                ("engine", f"no server at {self.base_url} tells its version: start it, or say what it is, as in 'vllm 0.33.0'")
            ]
        return []

    def fingerprint(self) -> str:
        return self.engine or self._asked

    @cached_property
    def _asked(self) -> str:
        return server_version(self.base_url or "")

    @contextmanager
    def serving(self, policy: Policy) -> Iterator[tuple[str, str]]:
        if self.command is None:
            yield self.base_url or "", self.model or policy.name
        else:
            with launched(shlex.split(self.command), policy, self.start_seconds) as url:
                yield url, fill(self.model or "{name}", policy)

    def api_key(self, policy: Policy) -> str | None:
        return policy.secret(self.api_key_variable) if self.api_key_variable else None


def server_version(base_url: str) -> str:
    """Return a server's name for its software; "" where it tells none.

    vLLM, TGI, SGLang, llama.cpp and `harness serve-policy` tell it, each at a path of its own.
    """
    root = base_url.rstrip("/").removesuffix("/v1")
    for path, field in VERSIONS.items() if root else ():
        document = get_json(f"{root}/{path}")
        if isinstance(document, dict) and isinstance(document.get(field), str):
            engine = document.get("engine")
            return f"{engine} {document[field]}" if isinstance(engine, str) else str(document[field])
    return ""
