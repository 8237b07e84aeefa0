"""Hub repositories pinned to a commit: against a server that speaks the hub's way, and against the cache alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.errors import DataError
from harness.models.hub import hub_commit, hub_files, hub_snapshot, is_commit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ADDRESS = "/api/models/someone/tiny/revision/"


class _Hub(BaseHTTPRequestHandler):
    """Knows one model at one revision; refuses another that is gated; has no other."""

    def do_GET(self) -> None:
        if self.path.startswith(ADDRESS + "main"):
            self._say(200, {"id": "someone/tiny", "sha": COMMIT, "siblings": [{"rfilename": "model.safetensors"}]})
        elif self.path.startswith(ADDRESS):
            self._say(404, {"error": "Invalid rev id"}, "RevisionNotFound")
        elif "gated" in self.path:
            self._say(403, {"error": "gated"}, "GatedRepo")
        else:
            self._say(404, {"error": "Repository not found"}, "RepoNotFound")

    def _say(self, status: int, body: object, code: str | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    from huggingface_hub import constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_branch_becomes_the_commit_that_the_hub_names(hub: None) -> None:
    assert hub_commit("someone/tiny") == hub_commit("someone/tiny", "main") == COMMIT
    assert is_commit(COMMIT) and not is_commit("main") and not is_commit(COMMIT[:7])


@pytest.mark.parametrize(
    ("name", "revision", "words"),
    [
        ("someone/tiny", "v9", "the hub has no revision 'v9' of it"),
        ("someone/tinny", None, "the hub has no model of this name, or it is private"),
        ("someone/gated", None, "accept them, then log in"),
    ],
)
def test_a_refusal_is_one_sentence(name: str, revision: str | None, words: str, hub: None) -> None:
    with pytest.raises(DataError) as caught:
        hub_commit(name, revision)
    assert words in str(caught.value)


def test_offline_the_cache_serves_what_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--someone--tiny"
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    (repository / "snapshots" / COMMIT / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    assert hub_commit("someone/tiny") == COMMIT
    assert hub_files("someone/tiny", COMMIT) == ["config.json"]
    assert hub_snapshot("someone/tiny", COMMIT, ["*.json"]) == repository / "snapshots" / COMMIT
    for call in (lambda: hub_commit("someone/tiny", "v2"), lambda: hub_snapshot("someone/other", COMMIT, ["*"])):
        with pytest.raises(DataError, match=r"needs network: the hub cannot be reached, and the local hub cache does not"):
            call()


def test_a_hub_that_cannot_be_reached_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        closed = server.server_port
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed}")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the hub's client waits between its attempts
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="needs network"):
        hub_commit("someone/tiny")
    with pytest.raises(DataError, match="needs network"):
        hub_snapshot("someone/tiny", COMMIT, ["*.json"])
    assert hub_files("someone/tiny", COMMIT) == []


def test_a_commit_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *_, **__: pytest.fail("asked"))
    assert hub_commit("someone/tiny", COMMIT) == COMMIT
