"""Addresses: the same for the same content, on every machine."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEY = re.compile(r"[0-9a-f]{32}")


def canonical(value: Any) -> str:
    """JSON that is the same for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def key_of(
    kind: str, version: int, payload: Mapping[str, Any], inputs: Mapping[str, str], environment: Mapping[str, str] | None = None
) -> str:
    """The address of what `kind` makes from `payload` and `inputs` in an environment: 32 hexadecimal digits."""
    parts = {"kind": kind, "version": version, "payload": payload, "inputs": inputs}
    if environment is not None:
        parts["environment"] = environment
    return hashlib.sha256(canonical(parts).encode()).hexdigest()[:32]


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
