"""Where a component comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """Where a component comes from."""

    title: str
    arxiv: str = ""
    equations: str = ""
