"""Compute an older board's statistics again by today's methods, from its scores; nothing is trained again."""

from __future__ import annotations

from collections.abc import Iterator

from harness.board.board import Board
from harness.board.build import LoadedBoard, build_board
from harness.board.facts import MergedBoard, SharingFacts
from harness.board.files import digest
from harness.board.sequential import PromptsDesign
from harness.errors import DataError


def restated(loaded: LoadedBoard, *, created: str) -> Board:
    """Return the board with every interval, test, rank and warning of today's methods; its rows, costs and texts stay.

    Metrics over all rows together, which scores per example do not give, keep their values. The board says what it was
    made from: `sharing.restated` holds the earlier board's date and hash.

    Args:
        created: the time now, in ISO 8601.

    Raises:
        DataError: it holds published numbers alone.
    """
    before = loaded.board
    if before.is_published:
        raise DataError(f"{loaded.name} holds published numbers only: there are no scores to compute statistics from")
    content = digest(before.to_json().encode("utf-8"))
    earlier = MergedBoard(name=before.name, created=before.created, sha256=content, rows=len(before.rows))
    board = build_board(
        name=before.name,
        description=before.description,
        config=before.config,
        baseline=before.baseline,
        rows=loaded.rows,
        metrics=loaded.metrics,
        examples=before.example_rows,
        sharing=SharingFacts.read({**before.sharing, "restated": earlier.model_dump(mode="json")}),
        created=created,
        warnings=[
            f"The statistics were computed again by today's methods from the scores of {before.created[:10]}; "
            "nothing was trained again.",
            *_predictions(before),
            *loaded.lasting_warnings,
        ],
        commit=before.harness.get("commit"),
        mixed_judges=before.mixed_judges,
        derived=loaded.derived,
        judges=before.statistics.judges or (),
        prompts=PromptsDesign.of(before.statistics.sequential_prompts),
    )
    rows = tuple(loaded.with_costs(row) for row in board.rows)
    return board.model_copy(update={"rows": rows, "harness": before.harness})


def _predictions(board: Board) -> Iterator[str]:
    """Warn about scores that are predictions of a fit, as those of AlpacaEval's evaluator were before its version 3."""
    for metric in board.metrics:
        if metric.key.endswith("/length_controlled_win_rate") and metric.fit is None:
            yield (
                f"{metric.key}: these scores are the fit's predictions, so its intervals and tests are far too narrow; "
                "evaluate or import again for those of the fit."
            )
