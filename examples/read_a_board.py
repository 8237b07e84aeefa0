"""A board that somebody published: which rows are better than its baseline, and at what cost.

python examples/read_a_board.py leaderboards/quickstart
"""

from __future__ import annotations

import sys
from pathlib import Path

from harness import Board


def main(folder: Path) -> list[str]:
    """The rows whose difference on the first primary metric holds after correction."""
    board = Board.read(folder)
    frame = board.to_pandas()
    first = frame[frame["metric"] == board.primary[0].key]
    better = first[(first["delta"] > 0) & (first["p_adjusted"] < 0.05)].sort_values("delta", ascending=False)
    for row in better.itertuples():
        sys.stdout.write(
            f"{row.method}: {row.delta:+.2f} ({row.delta_low:+.2f} to {row.delta_high:+.2f}), {row.seconds:.0f} s\n"
        )
    return [str(method) for method in better["method"]]


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "leaderboards/quickstart"))
