"""A small OpenAI-compatible HTTP server: for `harness serve-policy`, for the sandbox's judge, and for tests.

It reads strictly: a body has a length, which is limited, and so is its depth; a connection that stalls is closed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from harness.api.walk import walk
from harness.errors import HarnessError

LARGEST_BODY = 16 * 2**20  # bytes
DEEPEST_BODY = 32  # lists and objects within each other; a chat with parts of content has 5
STALL_SECONDS = 60.0  # a connection that sends nothing for so long, also between two requests, is closed
BODY_SECONDS = 120.0  # for a whole body
ADDRESS = "127.0.0.1"  # it has no keys and no encryption: for this machine alone, unless it is told otherwise
CHAT = "/v1/chat/completions"
MODELS = "/v1/models"


@dataclass(frozen=True)
class HttpReply:
    """An answer over HTTP. `body` is sent as JSON, or as it is where it is bytes."""

    body: object
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Callable[[Mapping[str, Any]], HttpReply]


class BodyError(HarnessError):
    """A request whose body is not read.

    Attributes:
        status: 400, 408, 411 or 413.
        ends: whether the connection has to end, since what follows on it may be the rest of the body.
    """

    def __init__(self, status: int, message: str, *, ends: bool = True) -> None:
        self.status, self.ends = status, ends
        super().__init__(message)


class OpenAIServer(ThreadingHTTPServer):
    """Answer `POST` by a function for each path, in a thread for each connection, and `GET` by JSON for each path.

    A function that raises a HarnessError or ValueError refuses the request (HTTP 400); any other error is the server's (500).

    Args:
        port: 0 takes a free one.

    Raises:
        OSError: the address cannot be listened on.
    """

    daemon_threads = True
    request_queue_size = 256  # the kernel's backlog: clients send hundreds of requests at once

    def __init__(
        self, answers: Mapping[str, Answer], documents: Mapping[str, object], host: str = ADDRESS, port: int = 0
    ) -> None:
        self.answers = answers
        self.documents = documents
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        """The base URL that clients are given."""
        host, port = self.server_address[:2]
        return f"http://{host if isinstance(host, str) else host.decode()}:{port}/v1"

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent: only a client that has gone gets here."""


def models_document(name: str) -> dict[str, object]:
    """Return the answer to `GET /v1/models` of a server with one model."""
    return {"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "harness"}]}


def completion(text: str, model: str, question: str = "") -> dict[str, object]:
    """Return the body of a chat completion; tokens are counted as words, since no tokenizer is behind it."""
    read, written = len(question.split()), len(text.split())
    return {
        "id": "chatcmpl-local",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
    }


def judge_server(answer: Answer, model: str, port: int = 0) -> OpenAIServer:
    """Return a server of chat completions alone, whose requests `answer` gets only if they have messages."""

    def checked(asked: Mapping[str, Any]) -> HttpReply:
        try:
            asked["messages"][-1]["content"]
        except (KeyError, IndexError, TypeError):
            raise HarnessError("send a chat completion request as JSON, with messages") from None
        return answer(asked)

    return OpenAIServer({CHAT: checked}, {MODELS: models_document(model)}, port=port)


def refusal(status: int, message: str) -> HttpReply:
    """Return an error as OpenAI's API words it."""
    return HttpReply({"error": {"message": message, "type": "invalid_request_error", "code": status}}, status)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = STALL_SECONDS
    server: OpenAIServer

    def do_GET(self) -> None:
        documents = self.server.documents
        self._send(HttpReply(documents[self.path]) if self.path in documents else self._no_endpoint())

    def do_POST(self) -> None:
        try:
            body = self._body()
            answer = self.server.answers.get(self.path)
            reply = answer(body) if answer else self._no_endpoint()
        except BodyError as error:
            self.close_connection |= error.ends
            reply = refusal(error.status, str(error))
        except (HarnessError, ValueError) as error:
            reply = refusal(400, str(error))
        except OSError:
            raise  # the client's connection
        except Exception as error:
            reply = refusal(500, f"{type(error).__name__}: {error}")
        self._send(reply)

    def _body(self) -> Mapping[str, Any]:
        """Read the request's JSON object."""
        if self.headers.get("Transfer-Encoding"):
            raise BodyError(411, "send the body with a Content-Length, not in chunks")
        stated = self.headers.get("Content-Length", "")
        # Not int() alone: it takes "-1", which would read until the connection ends, and "1_0", "+1" and " 1 ".
        if not (stated.isascii() and stated.isdigit()):
            raise BodyError(411 if not stated else 400, f"Content-Length is {stated!r}: send the body's size in bytes")
        if len(stated) > 20 or (size := int(stated)) > LARGEST_BODY:
            raise BodyError(413, f"the request has {stated[:20]} bytes, at most {LARGEST_BODY} are read")
        content = self._read(size)
        if len(content) < size:
            raise BodyError(400, f"the request has {len(content)} bytes, and Content-Length is {size}")
        try:
            body = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise BodyError(400, f"the body is no JSON ({error})", ends=False) from None
        if not isinstance(body, dict):
            raise BodyError(400, "the body is no JSON object", ends=False)
        if _deeper(body, DEEPEST_BODY):
            raise BodyError(400, f"the body is nested more than {DEEPEST_BODY} deep", ends=False)
        return body

    def _read(self, size: int) -> bytes:
        """Read so many bytes, or those that come before the connection ends."""
        ends, content = time.monotonic() + BODY_SECONDS, bytearray()
        while len(content) < size and (part := self.rfile.read1(min(size - len(content), 1 << 16))):
            content += part
            # A client that sends a byte a minute never stalls, and would keep its thread for ever.
            if len(content) < size and time.monotonic() > ends:
                raise BodyError(408, f"the body took longer than {BODY_SECONDS:g} seconds")
        return bytes(content)

    def _no_endpoint(self) -> HttpReply:
        served = ", ".join((*self.server.answers, *self.server.documents))
        return refusal(404, f"no such endpoint: {self.path}; this server answers {served}")

    def _send(self, reply: HttpReply) -> None:
        content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        closing = {"connection": "close"} if self.close_connection else {}
        headers = {"content-type": "application/json", "content-length": str(len(content)), **closing, **reply.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: prompts and answers belong in no log."""


def _deeper(body: object, levels: int) -> bool:
    """Return whether lists and objects lie in each other more than `levels` deep."""
    nodes = walk(
        body, deepest=levels - 1
    )  # the whole is the first level, so that a container of depth `levels` is one too many
    return any(node.depth >= levels and isinstance(node.value, dict | list) for node in nodes)
