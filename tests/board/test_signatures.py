"""Boards are signed with SSH keys, and whoever checks knows by whom, or that a key or a byte is another."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.board import Board
from harness.board.signatures import SIGNATURE, sign, signature_of
from harness.board.views.site import build_site
from harness.cli import app
from harness.errors import DataError, HarnessError

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two keys, and a file of allowed signers that knows the first."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("known", "unknown"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / name)], check=True)
    (folder / "signers").write_text(f"ann@example.org {(folder / 'known.pub').read_text()}")
    return folder


@pytest.fixture(scope="module")
def sealed(build: Callable[..., Board], few_rows: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signed")
    rows, metrics = few_rows(("dpo", "simpo"), ("length",), examples=4)
    build(rows=rows, metrics=metrics).sealed().write(folder)
    return folder


@pytest.fixture
def folder(sealed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed, tmp_path / "board"))


def test_a_signed_board_names_its_signer(folder: Path, keys: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["sign", str(folder), "--key", str(keys / "known")])
    assert run.exit_code == 0 and run.stdout.strip() == str(folder / SIGNATURE)
    signature = signature_of(folder, keys / "signers")
    assert signature is not None and signature.signer == "ann@example.org" and signature.key.startswith("ED25519 SHA256:")
    run = CliRunner().invoke(app, ["verify", str(folder), "--signers", str(keys / "signers"), "--json"])
    answer = json.loads(run.stdout)
    assert answer["signed_by"] == "ann@example.org" and answer["holds"]
    build_site([folder], tmp_path / "site", signers=keys / "signers").write(tmp_path / "site")
    assert "signed by ann@example.org (ED25519 SHA256:" in (tmp_path / "site" / "index.html").read_text()
    assert signature_of(tmp_path / "site" / "quickstart", keys / "signers") == signature  # the signed bytes are published


def test_a_key_that_nobody_is_known_to_have_is_said_to_be(folder: Path, keys: Path, tmp_path: Path) -> None:
    sign(folder, keys / "unknown")
    assert "a key of nobody named" in signature_of(folder, keys / "signers").sentence  # type: ignore[union-attr]
    run = CliRunner().invoke(app, ["verify", str(folder), "--signers", str(keys / "signers")])
    assert run.exit_code == 4 and "a key of nobody named" in run.stdout
    build_site([folder], tmp_path / "site").write(tmp_path / "site")
    assert "signed with a key of nobody named" in (tmp_path / "site" / "index.html").read_text()


def test_a_changed_byte_and_a_missing_signature_are_named(folder: Path, keys: Path) -> None:
    run = CliRunner().invoke(app, ["verify", str(folder), "--signers", str(keys / "signers")])
    assert run.exit_code == 4 and f"{SIGNATURE} is missing: the board is not signed" in run.stdout
    sign(folder, keys / "known")
    text = (folder / "board.json").read_text()
    (folder / "board.json").write_text(text.replace('"name": "quickstart"', '"name": "quickstarT"'))
    with pytest.raises(DataError, match=r"board\.json\.sig is no signature of board\.json: "):
        signature_of(folder, keys / "signers")
    run = CliRunner().invoke(app, ["verify", str(folder), "--signers", str(keys / "signers")])
    assert run.exit_code == 4 and "is no signature of board.json" in run.stdout


def test_a_signature_of_something_else_is_none_of_a_board(folder: Path, keys: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-f", str(keys / "known"), "-n", "git", str(folder / "board.json")],
        check=True, capture_output=True,
    )  # fmt: skip
    with pytest.raises(DataError, match="is no signature of board"):
        signature_of(folder, keys / "signers")
    (folder / SIGNATURE).write_bytes(b"x" * 70_000)
    with pytest.raises(DataError, match="which no signature has"):
        signature_of(folder)


def test_what_cannot_be_signed_says_why(folder: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HarnessError, match="cannot be signed with"):
        sign(folder, tmp_path / "no-key")
    with pytest.raises(HarnessError, match=r"no board at .*board\.json"):
        sign(tmp_path, keys / "known")
    sign(folder, keys / "known")
    with pytest.raises(HarnessError, match="no such file; a line each"):
        signature_of(folder, tmp_path / "none")
    monkeypatch.setattr("harness.board.signatures.PROGRAM", "ssh-keygen-that-is-not-there")
    with pytest.raises(HarnessError, match=r"is missing: install OpenSSH 8\.1 or later"):
        signature_of(folder)
