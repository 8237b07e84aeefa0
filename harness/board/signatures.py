"""Signatures of boards with the keys that people have: OpenSSH's `ssh-keygen -Y`, of version 8.1 or later.

`board.json` names the SHA-256 of every file beside it, the evidence among them, so that a signature of it stands for the
whole folder. It lies in `board.json.sig`. A file of allowed signers (`man ssh-keygen`) says whose key is whose: a line each,
such as `mail@example.org ssh-ed25519 AAAA…`.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.board.files import BOARD
from harness.errors import DataError, HarnessError

SIGNATURE = f"{BOARD}.sig"
NAMESPACE = "harness-board"  # a signature of something else with the same key is none of a board
SECONDS = 60.0  # `sign` may wait for a password, or for a touch of a security key
LARGEST_SIGNATURE = 1 << 16  # bytes; that of an RSA key has 3 kB
KEY = re.compile(r"with (\S+) key (SHA256:\S+)")
PROGRAM = "ssh-keygen"


@dataclass(frozen=True)
class Signature:
    """A signature that is one of a board's bytes.

    Attributes:
        key: type and fingerprint, such as `ED25519 SHA256:…`.
        signer: name in the file of allowed signers; "" where none was given, or it does not know the key.
    """

    key: str
    signer: str = ""

    @property
    def sentence(self) -> str:
        """Return who signed."""
        if self.signer:
            return f"signed by {self.signer} ({self.key})"
        return f"signed with a key of nobody named ({self.key})"


def sign(path: Path, key: Path) -> Path:
    """Sign a board with a private key, or a public one whose private key an agent holds; return the signature's path.

    Raises:
        HarnessError: it cannot be signed.
    """
    board = path / BOARD if path.is_dir() else path
    if not board.is_file():
        raise HarnessError(f"no board at {board}: give a board.json, or the folder that holds it")
    (board.parent / SIGNATURE).unlink(missing_ok=True)  # ssh-keygen asks before it replaces one
    done = _run("-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(board))
    if done.returncode or not (board.parent / SIGNATURE).is_file():
        raise HarnessError(f"{board} cannot be signed with {key}: {_last_line(done.stderr)}")
    return board.parent / SIGNATURE


def signature_of(path: Path, signers: Path | None = None) -> Signature | None:
    """Return the signature beside a board; None without one.

    Args:
        signers: the file of allowed signers.

    Raises:
        DataError: what lies there is no signature of these bytes.
        HarnessError: `ssh-keygen` or the file of signers is missing.
    """
    board = path / BOARD if path.is_dir() else path
    file = board.parent / SIGNATURE
    if not file.is_file():
        return None
    if file.stat().st_size > LARGEST_SIGNATURE:
        raise DataError(f"{file} has more than {LARGEST_SIGNATURE:,} bytes, which no signature has")
    if signers is not None and not signers.is_file():
        raise HarnessError(f"--signers {signers}: no such file; a line each: mail@example.org ssh-ed25519 AAAA…")
    content = board.read_bytes()
    done = _run("-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(file), content=content)
    found = KEY.search(done.stdout)
    if done.returncode or found is None:
        raise DataError(f"{file} is no signature of {board.name}: {_last_line(done.stderr or done.stdout)}")
    key = f"{found[1]} {found[2]}"
    if signers is None:
        return Signature(key)
    known = _run("-Y", "find-principals", "-s", str(file), "-f", str(signers))
    for name in known.stdout.splitlines() if not known.returncode else ():
        valid = _run("-Y", "verify", "-n", NAMESPACE, "-s", str(file), "-f", str(signers), "-I", name, content=content)
        if not valid.returncode:
            return Signature(key, name)
    return Signature(key)


def _run(*arguments: str, content: bytes | None = None) -> subprocess.CompletedProcess[str]:
    """Run `ssh-keygen`; its questions to a person go to the terminal.

    Raises:
        HarnessError: it is not installed, or answers nothing.
    """
    with tempfile.TemporaryFile() as given:
        given.write(content or b"")
        given.seek(0)
        try:
            return subprocess.run([PROGRAM, *arguments], stdin=given, capture_output=True, text=True, timeout=SECONDS)
        except FileNotFoundError:
            raise HarnessError(f"{PROGRAM} is missing: install OpenSSH 8.1 or later, whose keys sign boards") from None
        except subprocess.TimeoutExpired:
            raise HarnessError(f"{PROGRAM} gave no answer in {SECONDS:.0f} s") from None


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it does not say why")
