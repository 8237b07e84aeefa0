"""Compute an older board's statistics again by today's methods, from its scores; nothing is trained again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from harness.api.interfaces import Evaluator
from harness.api.registry import Registry
from harness.board.board import Board
from harness.board.build import LoadedBoard, build_board
from harness.board.facts import MergedBoard, SharingFacts
from harness.board.files import digest
from harness.board.sequential import PromptsDesign
from harness.errors import DataError


def restated(loaded: LoadedBoard, *, created: str, registry: Registry | None = None) -> Board:
    """Return the board with every interval, test, rank and warning of today's methods; its rows, costs and texts stay.

    Metrics over all rows together, which scores per example do not give, keep their values. The board says what it was
    made from: `sharing.restated` holds the earlier board's date and hash.

    Args:
        created: the time now, in ISO 8601.
        registry: where its evaluators are looked up, for the bounds of metrics that the board states none of.

    Raises:
        DataError: it holds published numbers alone.
    """
    before = loaded.board
    if before.is_published:
        raise DataError(f"{loaded.name} holds published numbers only: there are no scores to compute statistics from")
    content = digest(before.to_json().encode("utf-8"))
    looks = before.statistics.sequential
    trained = (looks.trainings, looks.trainings_fixed) if looks else (None, None)
    bounds = stated_bounds(before.config, registry) if registry else {}
    earlier = MergedBoard(name=before.name, created=before.created, sha256=content, rows=len(before.rows))
    board = build_board(
        name=before.name,
        description=before.description,
        config=before.config,
        baseline=before.baseline,
        rows=loaded.rows,
        metrics={
            evaluator: [
                replace(metric, bounds=bounds.get(f"{evaluator}/{metric.name}", metric.bounds))
                if metric.bounds == (None, None)
                else metric
                for metric in metrics
            ]
            for evaluator, metrics in loaded.metrics.items()
        },
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
        trainings=None if trained[0] is None or trained[1] is None else (trained[0], trained[1]),
    )
    rows = tuple(loaded.with_costs(row) for row in board.rows)
    board = board.model_copy(update={"rows": rows, "harness": before.harness})
    return board.sealed(before.evidence.runs if before.evidence else ())


def stated_bounds(config: Mapping[str, Any], registry: Registry) -> dict[str, tuple[float | None, float | None]]:
    """Return metric key -> bounds, by the evaluators of a board's config; those that are not installed now are left out."""
    bounds: dict[str, tuple[float | None, float | None]] = {}
    for section in config.get("evaluators", ()):
        fields = {**section} if isinstance(section, Mapping) else {"name": section}
        name, label = fields.pop("name", None), fields.pop("label", None)
        entry = registry.entries["evaluator"].get(str(name))
        if entry is None or not issubclass(entry.component, Evaluator):
            continue
        try:
            metrics = entry.component(**fields).metrics()
        except ValueError:  # a field that this version does not have
            continue
        bounds |= {f"{label or name}/{metric.name}": metric.bounds for metric in metrics}
    return bounds


def _predictions(board: Board) -> Iterator[str]:
    """Warn about scores that are predictions of a fit, as those of AlpacaEval's evaluator were before its version 3."""
    for metric in board.metrics:
        if metric.key.endswith("/length_controlled_win_rate") and metric.fit is None:
            yield (
                f"{metric.key}: these scores are the fit's predictions, so its intervals and tests are far too narrow; "
                "evaluate or import again for those of the fit."
            )
