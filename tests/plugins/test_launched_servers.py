"""Servers that backends start: one at a time on a GPU, several on several GPUs."""

from __future__ import annotations

import fcntl
import platform
import sys
from pathlib import Path

import pytest

from harness import Policy
from harness_plugins.backends.launch import get_json, launched
from harness_plugins.backends.vllm_server import VllmServerBackend

SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Health(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'["well"]')

HTTPServer(("127.0.0.1", int(sys.argv[1])), Health).serve_forever()
"""


def is_free(turn: Path) -> bool:
    with turn.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_each_gpu_has_a_server_of_its_own(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", SERVER, "{port}"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    with launched(command, policy, 60) as first:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-2")
        with launched(command, policy, 60) as second:
            assert first != second
            assert all(get_json(url.replace("/v1", "/health")) == ["well"] for url in (first, second))
            held = {path.name for path in policy.logs.glob("turn*") if not is_free(path)}
            assert held == {f"turn-{platform.node()}-{device}" for device in ("0", "1", "GPU-2")}
    assert all(is_free(path) for path in policy.logs.glob("turn*"))
    assert len({path.name for path in policy.logs.glob("*.log")}) == 2


def test_without_named_gpus_a_store_has_one_server(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with launched([sys.executable, "-c", SERVER, "{port}"], policy, 60):
        assert not is_free(policy.logs / "turn")


@pytest.mark.parametrize(
    ("fields", "requests"),
    [
        ({}, 256),
        ({"concurrency": 500}, 500),
        ({"arguments": ("--max_num_seqs", "1024")}, 1024),
        ({"arguments": ("--enforce-eager", "--max-num-seqs=64"), "concurrency": 8}, 8),
    ],
)
def test_a_started_vllm_is_asked_as_much_as_it_decodes_at_a_time_unless_the_config_says_how_much(
    fields: dict, requests: int
) -> None:
    assert VllmServerBackend(**fields).concurrency == requests
