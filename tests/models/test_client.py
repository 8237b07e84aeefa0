"""What a server may make the client do: follow it nowhere, read no more than a limit, and believe what a body is."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest
from models.judge.scripted import FakeClock

from harness.errors import StageError
from harness.models.client import Clock, ModelClient, RefusedError
from harness.models.replies import ModelReply
from harness.models.retry import RetryPolicy
from harness.models.server import CHAT, HttpReply, OpenAIServer, completion

GOOD = completion("[[1]]", "m")


@contextmanager
def serving(*replies: HttpReply, path: str = CHAT) -> Iterator[tuple[OpenAIServer, list[Mapping[str, Any]]]]:
    """A server that gives its replies in turn, the last again and again."""
    asked: list[Mapping[str, Any]] = []

    def answer(body: Mapping[str, Any]) -> HttpReply:
        asked.append(body)
        return replies[min(len(asked), len(replies)) - 1]

    server = OpenAIServer({path: answer}, {})
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server, asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(url: str, *, attempts: int = 1, limit: int = 100_000) -> ModelReply:
    clock = FakeClock()
    client = ModelClient(url, "key", RetryPolicy(attempts, 30.0), largest_reply=limit, clock=Clock(clock.now, clock.sleep))
    with client.running() as runner:
        return runner.run(client.complete("/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_server_is_not_followed(status: int) -> None:
    with serving(HttpReply(GOOD)) as (other, elsewhere):
        away = HttpReply(b"", status, {"location": f"{other.url}/chat/completions"})
        with (
            serving(away) as (server, asked),
            pytest.raises(RefusedError, match=f"redirects to another server, http://127.0.0.1:{other.server_address[1]}"),
        ):
            ask(server.url, attempts=3)
    assert (len(asked), elsewhere) == (1, [])


def test_one_within_the_server_is_followed_with_the_question() -> None:
    with serving(HttpReply(b"", 307, {"location": "/v2/chat"})) as (server, asked):
        moved: list[Mapping[str, Any]] = []
        server.answers = {**server.answers, "/v2/chat": lambda body: moved.append(body) or HttpReply(GOOD)}
        assert ask(server.url).choices[0].text == "[[1]]"
    assert len(asked) == 1 and asked == moved


@pytest.mark.parametrize(
    "reply",
    [
        HttpReply(json.dumps({**GOOD, "padding": "x" * 200_000}).encode()),
        HttpReply(gzip.compress(b" " * 50_000_000), headers={"content-encoding": "gzip"}),
        HttpReply(gzip.compress(b" " * 50_000_000), 500, {"content-encoding": "gzip"}),
    ],
    ids=["plain", "compressed", "an error"],
)
def test_a_reply_has_a_size_limit_also_after_decompression(reply: HttpReply) -> None:
    with serving(reply) as (server, _), pytest.raises(StageError, match="larger than 100,000 bytes"):
        ask(server.url)


def test_compression_whose_output_has_no_limit_is_refused() -> None:
    with (
        serving(HttpReply(b"\x28\xb5", headers={"content-encoding": "zstd"})) as (server, _),
        pytest.raises(StageError, match="compressed by 'zstd'"),
    ):
        ask(server.url)


@pytest.mark.parametrize("kind", ["text/html", "text/plain; charset=latin-1", "application/octet-stream"])
@pytest.mark.parametrize("encode", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_json_is_recognised_by_its_content(kind: str, encode: Any) -> None:
    headers = {"content-type": kind, **({"content-encoding": "gzip"} if encode is gzip.compress else {})}
    body = json.dumps({**GOOD, "model": "ß"}, ensure_ascii=False).encode()
    with serving(HttpReply(encode(body), headers=headers)) as (server, asked):
        reply = ask(server.url, attempts=2)
    assert (reply.model, reply.choices[0].text, len(asked)) == ("ß", "[[1]]", 1)


@pytest.mark.parametrize("body", [b"[" * 100_000, b"<html>", b"", b"\xff\xfe\x00", b"[]", b"null"], ids=repr)
def test_anything_else_is_asked_for_again(body: bytes) -> None:
    with serving(HttpReply(body), HttpReply(GOOD)) as (server, asked):
        assert ask(server.url, attempts=2).choices[0].text == "[[1]]"
    assert len(asked) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_that_is_down_is_named_as_such(host: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(StageError, match=r"failed 2 times \(connection refused: no server listens there\)"):
            ask(f"http://{host}:{free.getsockname()[1]}/v1", attempts=2)
