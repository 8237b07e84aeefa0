"""A log of stages, beside the board."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness import hookimpl


class StageLog:
    """Writes `stages.txt` into the board's folder: a line per stage that ran."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @hookimpl
    def harness_stage_finished(self, title: str, error: str | None) -> None:
        self.lines.append(f"{'failed' if error else 'done'} {title}")

    @hookimpl
    def harness_board_ready(self, board: dict[str, Any], folder: Path) -> None:
        (folder / "stages.txt").write_text("".join(f"{line}\n" for line in self.lines), encoding="utf-8")
