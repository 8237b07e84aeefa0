"""A comparison as a function: which rows, which seeds, what to change; then a data frame and a picture.

python examples/compare_in_a_script.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import harness


def main(folder: Path = Path("runs/example"), **changes: object) -> harness.Board:
    """Three rows of the quickstart on a fraction of its budget; `changes` are dotted fields of the config."""
    choice = harness.Choice(
        methods=["dpo", "ipo"],  # and the baseline, `sft`
        seeds=[0],
        changes={"budget.prompts": 64, "source.sft": 128, "source.heldout": 40, "evaluators": ["gold_reward"], **changes},
    )
    board = harness.compare("quickstart", choice, out=folder, store=folder / "store")
    frame = board.to_pandas()
    primary = frame[frame["primary"].astype(bool)]
    sys.stdout.write(primary[["method", "metric", "mean", "delta", "p_adjusted"]].to_string(index=False) + "\n")
    board.plot().save(folder / "differences.svg")
    return board


if __name__ == "__main__":
    main()
