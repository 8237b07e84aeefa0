"""A small OpenAI-compatible server, for judges that are made here: the sandbox's own, and those of tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGEST_BODY = 16_000_000  # bytes
ADDRESS = "127.0.0.1"  # it has no keys and no encryption: for this machine alone


@dataclass(frozen=True)
class Reply:
    """An answer over HTTP. `body` is sent as JSON, or as it is where it is bytes."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def completion(text: str, model: str, question: str = "") -> dict[str, Any]:
    """The body of a chat completion; tokens are counted as words, since no tokenizer is behind it."""
    read, written = len(question.split()), len(text.split())
    return {
        "id": "chatcmpl-local",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
    }


class JudgeServer(ThreadingHTTPServer):
    """Answers `POST …/chat/completions` by a function of the request's body; `GET …/models` says what it is called.

    Args:
        port: 0 takes a free one.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, answer: Callable[[Mapping[str, Any]], Reply], model: str, port: int = 0) -> None:
        self.answer = answer
        self.model = model
        super().__init__((ADDRESS, port), _Handler)

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: JudgeServer

    def do_GET(self) -> None:
        known = self.path.endswith("/models")
        self._send(Reply({"object": "list", "data": [{"id": self.server.model, "object": "model"}]}) if known else NOT_FOUND)

    def do_POST(self) -> None:
        size = int(self.headers.get("content-length") or 0)
        if size > LARGEST_BODY:
            self.close_connection = True
            return self._send(_error(413, "the body is too large"))
        body = self.rfile.read(size)
        if not self.path.endswith("/chat/completions"):
            return self._send(NOT_FOUND)
        try:
            asked = json.loads(body)
            asked["messages"][-1]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            return self._send(_error(400, "send a chat completion request as JSON, with messages"))
        return self._send(self.server.answer(asked))

    def _send(self, reply: Reply) -> None:
        content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in {"content-type": "application/json", "content-length": str(len(content)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def _error(status: int, message: str) -> Reply:
    return Reply({"error": {"message": message, "type": "invalid_request_error", "code": None}}, status)


NOT_FOUND = _error(404, "this server answers /v1/chat/completions and /v1/models")
