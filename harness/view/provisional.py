"""A process of its own that builds a run's provisional board: `python -m harness.view.provisional FOLDER`.

It plans the run again and computes the board's statistics, so it loads much, and its memory is free again when it ends.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pydantic import BaseModel

from harness.errors import HarnessError
from harness.view.summary import Summary, summarise

NICENESS = 5  # the run that is watched comes first


class Provisional(BaseModel):
    """The answer of the process: the board in short with its page, or why there is none."""

    summary: Summary | None = None
    page: str = ""
    problem: str = ""


def build(folder: Path) -> Provisional:
    """Build the provisional board of a run; nothing is written."""
    from harness.board.views.page import to_html
    from harness.run.provisional import provisional_board

    try:
        board = provisional_board(folder)
    except HarnessError as error:
        return Provisional(problem=str(error))
    return Provisional(summary=summarise(board), page=to_html(board, board.example_rows))


if __name__ == "__main__":
    os.nice(NICENESS)
    answer = build(Path(sys.argv[1])).model_dump_json()
    sys.stdout.write(answer)
