"""An OpenAI-compatible server of the standard library: deterministic answers, and faults on demand.

`python fake_server.py NAME PORT` serves until it is ended.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FakeServer:
    """What the server does, and what it was asked.

    Attributes:
        faults: for each request to come, one of `429`, `500`, `400`, `broken`, `empty`, `filtered`, `failed`, `stall`,
            `dropped` or `` (answer).
        knows_n: whether it answers with `n` choices; `refuses_n` answers 400 to n > 1.
        choice: fields of every choice, in place of its own.
        tells_ids: adds `token_ids` to each choice.
        meeting: where requests wait for each other before they are answered.
    """

    models: tuple[str, ...] = ("policy-test",)
    version: str | None = "1.2.3"
    knows_n: bool = True
    refuses_n: bool = False
    tells_ids: tuple[int, ...] | None = None
    finish: str = "stop"
    words: str = "ß 日本 🙂"
    choice: dict[str, Any] | None = None
    faults: list[str] = field(default_factory=list)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    answered: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    meeting: threading.Barrier | None = None
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def listen(self, port: int = 0) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"fake": self}))
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        return server

    @contextmanager
    def running(self) -> Iterator[FakeServer]:
        server = self.listen()
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield self
        finally:
            self.released.set()
            server.shutdown()
            server.server_close()

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Choices that depend on the prompt, the seed and the choice's number alone: what `n` gives, single calls give too."""
        prompt = json.dumps(body.get("messages") or body["prompt"], sort_keys=True)
        count = body.get("n", 1) if self.knows_n else 1
        choices = []
        for index in range(count):
            digest = hashlib.sha256(f"{prompt} {body.get('seed')} {index}".encode()).hexdigest()[:8]
            text = f" {self.words} {digest} "
            said = {"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text}
            ids = {} if self.tells_ids is None else {"token_ids": list(self.tells_ids)}
            choices.append({"index": index, **said, "finish_reason": self.finish, **ids, **(self.choice or {})})
        self.answered += 1
        return {
            "id": "x",
            "object": "text_completion",
            "created": 0,
            "model": body["model"],
            "choices": choices[::-1],
            "usage": {"prompt_tokens": 3, "completion_tokens": 7 * count, "total_tokens": 3 + 7 * count},
        }


class _Handler(BaseHTTPRequestHandler):
    fake: FakeServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            data = [{"id": name, "object": "model", "created": 0, "owned_by": "x"} for name in self.fake.models]
            self._send(200, {"object": "list", "data": data})
        elif self.path == "/version" and self.fake.version:
            self._send(200, {"version": self.fake.version})
        else:
            self._send(404, {"error": {"message": "no"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.fake.lock:
            self.fake.asked.append((self.path, body))
            self.fake.keys.add(self.headers["Authorization"])
            fault = self.fake.faults.pop(0) if self.fake.faults else ""
        if self.fake.meeting is not None:
            self.fake.meeting.wait()
        if fault == "429":
            self._send(429, {"error": {"message": "slow down"}}, {"Retry-After": "3"})
        elif fault in ("400", "500"):
            self._send(int(fault), {"error": {"message": f"because of {self.headers['Authorization']}"}})
        elif fault == "broken":
            self._raw(200, b'{"choices": [{"text"')
        elif fault == "filtered":
            self._send(400, {"error": {"message": "no", "code": "content_filter"}})
        elif fault == "failed":
            self._send(200, {"error": {"message": "overloaded", "code": 503}})
        elif fault == "empty":
            self._send(200, {"choices": []})
        elif fault == "stall":
            self.fake.released.wait()
            self.close_connection = True
        elif fault == "dropped":
            self.close_connection = True
        elif self.fake.refuses_n and body.get("n", 1) > 1:
            self._send(400, {"error": {"message": "n must be 1"}})
        else:
            with self.fake.lock:
                answer = self.fake.answer(self.path, body)
            self._send(200, answer)

    def _send(self, code: int, answer: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._raw(code, json.dumps(answer).encode(), headers)

    def _raw(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


if __name__ == "__main__":
    FakeServer(models=(sys.argv[1],), words="a pear and a plum").listen(int(sys.argv[2])).serve_forever()
