"""Which prompts got worse: between rows of one board, between two boards, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.api.types import Metric, Score
from harness.board import Board, ExampleRow, RowResult, build_board
from harness.board.changed_examples import worse_examples
from harness.cli import app
from harness.errors import DataError

VALUES = {"sft": (1.0, 2.0, 3.0, 4.0), "dpo": (3.0, 1.0, 3.0, 0.5)}


def made(name: str, lift: float = 0.0, higher_is_better: bool = True) -> Board:
    rows = [
        RowResult(
            label,
            None,
            None,
            1,
            "measured",
            {"e": {0: [Score(f"p{i}", "m", value + lift) for i, value in enumerate(values)]}},
            {},
            {},
            {},
        )  # type: ignore[arg-type]
        for label, values in VALUES.items()
    ]
    texts = [ExampleRow("p3", "why?\x1b[31m", None, {"sft": "because", "dpo": "no"})]
    metrics = {"e": [Metric("m", "A score", primary=True, higher_is_better=higher_is_better)]}
    shared: Any = {"description": "", "config": {}, "sharing": {}, "created": "", "warnings": ()}
    return build_board(name=name, baseline="sft", rows=rows, metrics=metrics, examples=texts, **shared)


def test_the_worst_come_first_and_every_prompt_is_counted() -> None:
    board = made("one")
    found = worse_examples(board, board, ("sft", "dpo"), most=1)
    assert (found.worse, found.equal, found.better) == (2, 1, 1)
    (worst,) = found.shown
    assert (worst.id, worst.before, worst.after, worst.answers) == ("p3", 4.0, 0.5, ("because", "no"))
    lower = made("lower", higher_is_better=False)
    assert [change.id for change in worse_examples(lower, lower, ("sft", "dpo")).shown] == ["p0"]


def test_by_default_the_best_row_of_both_boards_is_compared_with_itself() -> None:
    found = worse_examples(made("one"), made("other", lift=-0.25))
    assert found.rows == ("sft", "sft") and found.worse == 4


@pytest.mark.parametrize(
    ("rows", "metric", "message"),
    [(("sft", "dpa"), None, "'dpa': one has none; did you mean 'dpo'"), (None, "e/n", "'e/n': did you mean 'e/m'")],
)
def test_what_is_not_there_is_refused(rows: tuple[str, str] | None, metric: str | None, message: str) -> None:
    board = made("one")
    with pytest.raises(DataError, match=message):
        worse_examples(board, board, rows, metric)


def test_the_command_lists_them_with_both_answers(tmp_path: Path) -> None:
    made("one").write(tmp_path)
    command = ["diff", str(tmp_path), str(tmp_path), "--rows", "sft,dpo", "--examples", "1"]
    text = CliRunner().invoke(app, command).stdout
    assert "dpo against sft on e/m: worse on 2 of 4 prompts, equal on 1, better on 1." in text
    assert "−3.500 (4.000 → 0.500)  p3" in text and "  prompt: why?\\x1b[31m\n  sft: because\n  dpo: no\n" in text
    assert json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)["shown"][0]["id"] == "p3"
