"""The HTTP server reads strictly: what is no request of its protocol gets an error and never hangs it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from threading import Thread

import pytest

from harness.models.server import CHAT, DEEPEST_BODY, HttpReply, OpenAIServer

BACKLOG = 100


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    def answer(body: object) -> HttpReply:
        if body == {"fail": True}:
            raise RuntimeError("out of memory")
        return HttpReply(body)

    serving = OpenAIServer({CHAT: answer}, {"/health": {"status": "ok"}})
    thread = Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield serving
    serving.shutdown()
    serving.server_close()
    thread.join()


def send(server: OpenAIServer, body: bytes, **headers: str) -> tuple[int, object, bool]:
    """Status, answer, and whether the server closes the connection."""
    connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    connection.putrequest("POST", CHAT)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders(body)
    response = connection.getresponse()
    answer = response.status, json.loads(response.read()), response.getheader("connection") == "close"
    connection.close()
    return answer


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content_Length": "-1"}, 400),
        ({"Content_Length": "1_0"}, 400),
        ({"Content_Length": "many"}, 400),
        ({"Content_Length": "9" * 5000}, 413),
        ({"Content_Length": str(2**25)}, 413),
        ({"Transfer_Encoding": "chunked"}, 411),
        ({}, 411),
    ],
    ids=str,
)
def test_a_body_without_a_sound_length_is_not_read(server: OpenAIServer, headers: dict[str, str], status: int) -> None:
    code, answer, closes = send(server, b"", **headers)
    assert (code, closes) == (status, True)
    assert isinstance(answer, dict) and answer["error"]["message"]


def test_a_body_that_comes_too_slowly_is_given_up(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.models.server.BODY_SECONDS", -1.0)
    code, _, closes = send(server, b'{"a":', Content_Length="10")
    assert (code, closes) == (408, True)


def nested(levels: int) -> bytes:
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


@pytest.mark.parametrize("body", [nested(DEEPEST_BODY + 1), nested(100_000), b"[1]", b"\xff", b"{"], ids=range(5))
def test_a_body_that_is_no_flat_json_object_is_refused_and_the_connection_stays(server: OpenAIServer, body: bytes) -> None:
    code, _, closes = send(server, body, Content_Length=str(len(body)))
    assert (code, closes) == (400, False)


def test_the_deepest_body_is_answered_and_an_error_of_the_server_is_an_answer(server: OpenAIServer) -> None:
    body = nested(DEEPEST_BODY)
    assert send(server, body, Content_Length=str(len(body))) == (200, json.loads(body), False)
    failing = b'{"fail": true}'
    code, answer, _ = send(server, failing, Content_Length=str(len(failing)))
    assert code == 500 and isinstance(answer, dict) and answer["error"]["message"] == "RuntimeError: out of memory"


def test_many_may_connect_before_one_is_accepted() -> None:
    """The kernel completes connections up to the backlog while nobody accepts them."""
    idle = OpenAIServer({}, {})
    connections = [HTTPConnection("127.0.0.1", idle.server_address[1], timeout=60) for _ in range(BACKLOG)]
    try:
        for connection in connections:
            connection.connect()
    finally:
        for connection in connections:
            connection.close()
        idle.server_close()
