"""A checkpoint behind OpenAI's completion and chat endpoints, by this package's own generation.

`transformers serve` ignores `n`, and samples only where the checkpoint's generation config does, so data cannot be built with
it. This server does what `harness.models.generate` does, one request after another: the reference for other engines, and enough
for small models. What it does not do it refuses; it never ignores a field that would change an answer.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.api.types import Message, Prompt, Response, Sampling
from harness.errors import HarnessError
from harness.models.generate import generate_ids
from harness.models.load import load, model_eos
from harness.models.server import CHAT, MODELS, HttpReply, OpenAIServer, models_document
from harness.models.tokenization import ChatTemplate
from harness.version import __version__

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


COMPLETIONS = "/v1/completions"

# Fields that would change an answer, each with the values that don't; anything else is refused.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "stream": (False, None),
    "logprobs": (False, None),
    "top_logprobs": (None,),
    "echo": (False, None),
    "suffix": (None, ""),
    "best_of": (None, 1),
    "logit_bias": (None, {}),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "repetition_penalty": (None, 1),
    "top_k": (None, -1, 0),
    "min_p": (None, 0),
    "tools": (None, []),
    "response_format": (None, {"type": "text"}),
}


class Request(BaseModel):
    """The fields that both endpoints take."""

    model_config = ConfigDict(extra="ignore")

    model: str
    n: int = Field(1, ge=1, le=1024)
    temperature: float = Field(1.0, ge=0, le=10)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(16, ge=1, le=65_536)
    seed: int = Field(0, ge=0, lt=2**63)
    stop: str | list[str] | None = None
    stop_token_ids: list[int] = []
    add_special_tokens: bool = True
    return_token_ids: bool = False

    @property
    def sampling(self) -> Sampling:
        return Sampling(1 if self.temperature == 0 else self.n, self.temperature, self.top_p, self.max_tokens, self.seed)


class Completion(Request):
    """`/v1/completions`: text, or tokens."""

    prompt: str | list[int]


class Turn(BaseModel):
    """A turn of a dialogue; text only."""

    role: Literal["system", "user", "assistant"]
    content: str


class Chat(Request):
    """`/v1/chat/completions`."""

    messages: list[Turn] = Field(min_length=1)


REQUESTS: Mapping[str, type[Request]] = {COMPLETIONS: Completion, CHAT: Chat}


class Usage(TypedDict):
    """Counts of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionBody(TypedDict):
    """The answer of both endpoints; a chat's holds the prompt's ids, where they are asked for, a completion's choices do."""

    id: str
    object: str
    created: int
    model: str
    choices: list[dict[str, object]]
    usage: Usage
    prompt_token_ids: NotRequired[list[int]]


class RequestError(HarnessError):
    """A request that this server will not answer."""


@dataclass
class PolicyServer:
    """One checkpoint and its answers; a lock keeps requests apart."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, folder: Path, name: str) -> PolicyServer:
        return cls(name, *load(folder))

    def listen(self, host: str, port: int) -> OpenAIServer:
        """Return a server bound to an address, not yet serving; port 0 is any free one."""
        documents = {
            MODELS: models_document(self.name),
            "/version": {"engine": "harness", "version": __version__},
            "/health": {"status": "ok"},
        }
        answers = {path: partial(self._reply, path) for path in REQUESTS}
        return OpenAIServer(answers, documents, host, port)

    def _reply(self, path: str, body: Mapping[str, Any]) -> HttpReply:
        return HttpReply(self.post(path, body))

    def post(self, path: str, body: Mapping[str, Any]) -> CompletionBody:
        """Return the answer to a request to one of the two endpoints.

        Raises:
            RequestError: the request is malformed, or asks for what this server cannot do.
        """
        try:
            request = REQUESTS[path].model_validate({name: value for name, value in body.items() if value is not None})
        except ValidationError as error:
            raise RequestError(str(error)) from error
        for name, neutral in NEUTRAL.items():
            if body.get(name) not in neutral:
                raise RequestError(f"{name} = {body[name]!r} is not supported here")
        if request.model != self.name:
            raise RequestError(f"this server serves {self.name}, not {request.model}")
        return self._answer(request)

    def _answer(self, request: Request) -> CompletionBody:
        template = ChatTemplate(self.tokenizer)
        ids = self._ids(request, template)
        ends = template.stop_ids(model_eos(self.model))
        self._check_stops(request, ends)
        longest = getattr(self.model.config, "max_position_embeddings", None)
        if not ids or (longest and len(ids) + request.max_tokens > longest):
            raise RequestError(
                f"a prompt of {len(ids)} tokens and max_tokens = {request.max_tokens}: the model reads {longest}"
            )
        with self.lock:
            (responses,) = generate_ids(self.model, template, [ids], request.sampling, ends)
        responses = responses * request.n if request.temperature == 0 else responses
        chat = isinstance(request, Chat)
        completion = sum(response.tokens or 0 for response in responses)
        choices = [_choice(index, response, request) for index, response in enumerate(responses)]
        answer: CompletionBody = {
            "id": "harness",
            "object": "chat.completion" if chat else "text_completion",
            "created": 0,
            "model": self.name,
            "choices": choices,
            "usage": {"prompt_tokens": len(ids), "completion_tokens": completion, "total_tokens": len(ids) + completion},
        }
        # The prompt's ids are where vLLM has them: with each choice of a completion, and once with a chat.
        if request.return_token_ids and chat:
            answer["prompt_token_ids"] = ids
        elif request.return_token_ids:
            answer["choices"] = [{**choice, "prompt_token_ids": ids} for choice in choices]
        return answer

    def _ids(self, request: Request, template: ChatTemplate) -> list[int]:
        if isinstance(request, Chat):
            return template.prompt_ids(Prompt("request", tuple(Message(turn.role, turn.content) for turn in request.messages)))
        assert isinstance(request, Completion)
        if isinstance(request.prompt, str):
            read: list[int] = self.tokenizer(request.prompt, add_special_tokens=request.add_special_tokens)["input_ids"]
            return read
        if request.prompt and not 0 <= min(request.prompt) <= max(request.prompt) < self.model.config.vocab_size:
            raise RequestError("the prompt holds a token that the model does not have")
        return request.prompt

    def _check_stops(self, request: Request, ends: Sequence[int]) -> None:
        """Refuse any stop but the tokens that end a turn, each of which ends it in any case."""
        stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
        words = [self.tokenizer.decode([end]) for end in ends]
        others = [stop for stop in stops if stop not in words] + [stop for stop in request.stop_token_ids if stop not in ends]
        if others:
            named = ", ".join(map(repr, words))
            raise RequestError(f"stop = {others[0]!r} is not supported here: the only stop is the end of a turn, {named}")


def _choice(index: int, response: Response, request: Request) -> dict[str, object]:
    text = response.text
    words = {"message": {"role": "assistant", "content": text}} if isinstance(request, Chat) else {"text": text}
    ids = {"token_ids": list(response.ids or ())} if request.return_token_ids else {}
    return {"index": index, **words, "logprobs": None, "finish_reason": "stop" if response.finished else "length", **ids}


def supervised_command(command: Sequence[str]) -> list[str]:
    """Return the words that run a command under supervision; its standard input should be a pipe, whose closing ends it.

    All of its processes are then ended, those included that left its process group.
    """
    return [sys.executable, "-P", "-m", "harness.models.supervise", *command]


def vllm_command(python: str, folder: str, name: str, port: str, arguments: Sequence[str] = ()) -> list[str]:
    """How to start vLLM's server for a checkpoint, without the checkpoint's own sampling defaults."""
    server = [python, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", port]
    return [*server, "--model", folder, "--served-model-name", name, "--generation-config", "vllm", "--seed", "0", *arguments]
