"""What the Hugging Face hub wants to know of a board: the card of a Space or data set, and a model's evaluation results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import yaml

from harness.errors import DataError, did_you_mean
from harness.board.files import SCORES
from harness.board.views.markdown import markdown_text
from harness.board.board import Board
from harness.board.views.site import slug
from harness.board.standing import short_name, summary
from harness.board.views.text import one_line


def site_card(boards: Sequence[Board], kind: Literal["space", "dataset"], title: str) -> str:
    """The README.md of a repository that holds a site. A data set shows the scores per example of each board as a table."""
    if kind == "space":
        head: dict[str, Any] = {"title": one_line(title), "sdk": "static", "app_file": "index.html", "pinned": False}
    else:
        files = [(slug(board.name), f"{slug(board.name)}/{SCORES}") for board in boards if SCORES in (board.files or {})]
        head = {"pretty_name": one_line(title), "tags": ["leaderboard", "alignment", "evaluation"]}
        if files:
            head["configs"] = [{"config_name": name, "data_files": path} for name, path in files]
    lines = [
        f"- [{markdown_text(board.name)}]({slug(board.name)}/board.md): {markdown_text(summary(board))}" for board in boards
    ]
    return f"---\n{yaml.safe_dump(head, sort_keys=True)}---\n\n# {markdown_text(title)}\n\n" + "\n".join(lines) + "\n"


def model_metadata(board: Board, row: str, model: str) -> dict[str, Any]:
    """One row's scores as the `model-index` of a model's card, by huggingface_hub's own writer.

    Raises:
        DataError: the board has no such row, or it has no scores.
    """
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    entry = board.row(row)
    if entry is None:
        raise DataError(f"row = {row!r}: the board {board.name} has none; {did_you_mean(row, [r.method for r in board.rows])}")
    if not entry.scores or entry.kind == "published":
        raise DataError(f"row = {row!r}: it has no scores that were measured here")
    source = board.config.get("source")
    data = source.get("name", "data") if isinstance(source, dict) else str(source or "data")
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=slug(str(data)),
            dataset_name=f"{one_line(str(data))} ({one_line(board.name)})",
            metric_type=metric.key,
            metric_name=one_line(short_name(board, metric)),
            metric_value=round(entry.scores[metric.key].mean, 6),
        )
        for metric in board.metrics
        if metric.key in entry.scores
    ]
    return {"model-index": eval_results_to_model_index(model, results)}
