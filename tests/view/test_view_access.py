"""Nobody without the token, no other host, no other method, and no file outside of the runs' folder."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import uvicorn
from viewer_client import TOKEN, Connect

from harness.cli.compare import show_live
from harness.errors import HarnessError
from harness.view.folders import Runs
from harness.view.server import chosen_token, serve


@pytest.mark.parametrize("path", ["/", "/run/half", "/events", "/board/half/index.html", "/logs/half", "/static/view.js"])
@pytest.mark.parametrize("token", ["", "wrong", f"{TOKEN}x", TOKEN[:-1], "tökén", "%ff%fe"])
def test_a_request_without_the_token_is_refused(root: Path, connect: Connect, path: str, token: str) -> None:
    answer = connect(root, bare=True).get(f"/{token}{path}")
    assert answer.status_code == 403
    assert "half" not in answer.text


def test_the_address_itself_answers_and_sets_no_cookie(root: Path, connect: Connect) -> None:
    answer = connect(root, bare=True).get(f"/{TOKEN}/", follow_redirects=False)
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy and "http" not in policy
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "127.0.0.2", "[::1]:8765", ""])
def test_another_host_is_refused(root: Path, connect: Connect, host: str) -> None:
    answer = connect(root).get("/", headers={"host": host})
    assert answer.status_code == 421
    assert "half" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9000"])
def test_names_of_this_machine_are_answered(root: Path, connect: Connect, host: str) -> None:
    assert connect(root).get("/run/half", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_can_be_written(root: Path, connect: Connect, method: str) -> None:
    assert connect(root).request(method, "/run/half").status_code == 405


def outside(root: Path) -> Path:
    """A run beside the folder that is shown."""
    folder = root.parent / "outside"
    folder.mkdir()
    (folder / "events.jsonl").write_text('{"event": "run_started", "name": "a secret"}\n')
    (folder / "board.json").write_text("{}")
    return folder


@pytest.mark.parametrize("page", ["/run/{}", "/events/{}", "/logs/{}", "/board/{}/index.html", "/beside?run=half&run={}"])
@pytest.mark.parametrize(
    "name", ["%2E%2E", "%2E%2E/outside", "..%2Foutside", "half/%2E%2E/%2E%2E/outside", "{absolute}", "link", "half%00"]
)
def test_a_path_outside_of_the_folder_is_refused(root: Path, connect: Connect, page: str, name: str) -> None:
    folder = outside(root)
    (root / "link").symlink_to(folder)
    asked = page.format(name.replace("{absolute}", str(folder)))
    client = connect(root)
    answer = client.send(client.build_request("GET", asked))
    assert answer.status_code in (403, 404)
    assert "secret" not in answer.text


@pytest.mark.parametrize("name", ["events.jsonl", "board.json", "status.json", "logs", "examples.jsonl"])
def test_a_link_in_a_run_that_leads_outside_is_refused(root: Path, connect: Connect, name: str) -> None:
    folder, secret = root / "linked", root.parent / "secret"
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    secret.write_text("a secret")
    (folder / name).symlink_to(secret)
    answer = connect(root).get("/run/linked")
    assert answer.status_code == 403
    assert [place.name for place in Runs.of(root).folders()] == ["half"]


def test_a_log_that_leads_outside_is_refused_and_the_others_are_shown(root: Path, connect: Connect) -> None:
    logs = root / "half" / "logs"
    logs.mkdir()
    (logs / "worker-0.log").write_text("--- train\x1b[31m dpo of sk-0123456789abcdef\n")
    client = connect(root)
    assert client.get("/logs/half").json() == [{"name": "worker-0.log", "text": "--- train\\x1b[31m dpo of (hidden)\n"}]
    (logs / "worker-1.log").symlink_to("/etc/hostname")
    assert client.get("/logs/half").status_code == 403


def test_the_port_is_of_the_loopback_alone_and_may_be_taken(root: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(HarnessError, match=f"--port {port}: Address already in use; give another one, or leave it out"):
            serve(Runs.of(root), port, TOKEN, lambda address: None)


@pytest.mark.parametrize(("shown", "path"), [("half", ""), ("done", "board/-/index.html")])
def test_the_printed_address_is_the_board_s_where_one_finished_run_is_shown(
    root: Path, monkeypatch: pytest.MonkeyPatch, shown: str, path: str
) -> None:
    (root / "done").mkdir()
    (root / "done" / "board.json").write_text("{}")
    addresses: list[str] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: None)
    serve(Runs.of(root / shown), 0, TOKEN, addresses.append)
    (address,) = addresses
    assert address.startswith("http://127.0.0.1:")
    assert address.partition(f"/{TOKEN}/")[2] == path


def test_compare_starts_the_viewer_with_the_address_that_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[tuple[list[str], str]] = []
    monkeypatch.delenv("HARNESS_VIEW_TOKEN", raising=False)
    popen = "harness.cli.compare.subprocess.Popen"
    monkeypatch.setattr(popen, lambda command, env, **more: started.append((command, env["HARNESS_VIEW_TOKEN"])))
    show_live(tmp_path)
    ((command, token),) = started
    port = command[command.index("--port") + 1]
    assert capsys.readouterr().err == f"View: http://127.0.0.1:{port}/{token}/\n"
    assert command[command.index("view") + 1] == str(tmp_path)
    assert command[command.index("--with") + 1] == str(os.getpid())


def test_tokens_are_random_and_a_chosen_one_is_not_short() -> None:
    assert chosen_token(None) != chosen_token(None)
    assert len(chosen_token(None)) >= 43
    assert chosen_token("long-enough_token") == "long-enough_token"
    for given in ("short", "has/a/slash/in/it", "ümlaut-in-the-token"):
        with pytest.raises(HarnessError, match=r"\$HARNESS_VIEW_TOKEN: give at least 16 letters"):
            chosen_token(given)
