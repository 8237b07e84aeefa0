"""What keeps two boards from being one comparison, and what a reader of the two as one should know."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.board.part import Part
from harness.board.pool import recipe
from harness.board.views.provenance import board_precision
from harness.board.board import Board, RowEntry
from harness.board.views.text import one_line, shortened

MUST_AGREE = ("model", "sft", "source", "evaluation", "generation")  # else the numbers are not of the same question
SHOULD_AGREE = ("budget", "training")


def disagreements(first: Part, other: Part) -> Iterator[str]:
    """Why the numbers of two boards do not answer one question."""
    a, b = first.board, other.board
    if a.baseline != b.baseline:
        yield f"{other.name}: its baseline is {b.baseline!r}, that of {first.name} is {a.baseline!r}"
    else:
        one, two = (recipe(board.row(board.baseline)) for board in (a, b))
        if one != two:
            yield f"{other.name}: its baseline {b.baseline!r} was made in another way (see `provenance`)"
    for key in MUST_AGREE:
        if a.config.get(key) != b.config.get(key):
            yield f"{other.name}: {key} is {_short(b.config.get(key))}, in {first.name} {_short(a.config.get(key))}"
    models = [{str(_model(row)) for row in board.rows if _model(row)} for board in (a, b)]
    if models[0] and models[1] and models[0] != models[1]:
        yield f"{other.name}: the starting model is another one, by its provenance"
    asked = [{entry.get("name"): entry for entry in board.config.get("evaluators", ())} for board in (a, b)]
    for name in sorted(set(asked[0]) & set(asked[1])):
        if asked[0][name] != asked[1][name]:
            yield f"{other.name}: evaluator {name} has other fields than in {first.name}"
    judges = [_judge(board) for board in (a, b)]
    if judges[0] and judges[1] and judges[0] != judges[1]:
        yield f"{other.name}: the judge is {_short(judges[1])}, in {first.name} {_short(judges[0])}"
    directions = {metric.key: metric.higher_is_better for metric in a.metrics}
    for metric in b.metrics:
        if directions.get(metric.key, metric.higher_is_better) != metric.higher_is_better:
            yield f"{other.name}: {metric.key} does not point the same way as in {first.name}"
    prompts = [{example.id: example.prompt for example in board.example_rows} for board in (a, b)]
    if any(prompts[0][name] != prompts[1][name] for name in set(prompts[0]) & set(prompts[1])):
        yield f"{other.name}: examples of one id have other prompts than in {first.name}"


def caveats(parts: Sequence[Part]) -> Iterator[str]:
    """What does not forbid a merge, and a reader should know."""
    first = parts[0]
    for part in parts[1:]:
        for key in SHOULD_AGREE:
            if part.board.config.get(key) != first.board.config.get(key):
                said = (
                    f"{key} is {_short(part.board.config.get(key))} in {part.name}, {_short(first.board.config.get(key))} in "
                )
                yield f"{said}{first.name}: rows of the two had different settings."
        types = [board_precision(found.board) for found in (first, part)]
        if all(types) and types[0] != types[1]:
            yield f"{part.name}: {types[1]}; {first.name}: {types[0]}."
        versions = [found.board.sharing.get("versions") for found in (first, part)]
        if part.board.harness.get("version") != first.board.harness.get("version") or versions[0] != versions[1]:
            yield f"{part.name} and {first.name} were made with different versions of the harness or its libraries."


def _model(row: RowEntry) -> Any:
    return row.provenance.get("model") if row.kind != "published" else None


def _judge(board: Board) -> dict[str, Any] | None:
    judge = board.config.get("judge")
    if not isinstance(judge, Mapping):
        return None
    return {key: judge.get(key) for key in ("model", "name", "base_url", "temperature", "max_tokens", "seed")}


def _short(value: Any) -> str:
    return shortened(one_line(json.dumps(value, sort_keys=True, default=str)), 90)
