"""Families, ranks and what could be seen stand in every table; nothing of it where the board says nothing."""

from __future__ import annotations

import io
import re

from rich.console import Console

from harness.board import Board
from harness.board.views.latex import latex_text, to_latex
from harness.board.views.markdown import board_precision, markdown_text, remarks, to_markdown
from harness.board.views.page import _facts, made_of
from harness.board.views.terminal import print_table


def test_remarks_say_what_the_board_holds(board: Board) -> None:
    noise, families, ranks, detectable = remarks(board)
    assert noise.startswith("The noise floor (a change of seeds alone stays below it 95% of the time), known to 95%: win_rate ")
    assert re.search(r"win_rate 0\.\d+ \(0\.\d+ to 0\.\d+\), followed 0\.\d+ \(", noise)
    assert families == (
        "Corrected together: 20 tests of primary metrics; apart from them 60 tests of other metrics. "
        "The primary metrics are each evaluator's own, since the config declares none."
    )
    assert board.analysis is not None
    assert ranks == "Ranks on win_rate at 95%, all at once: self_contrast_16 1 to 8, iterative_dpo 1 to 8, dpo 1 to 8."
    draws = board.model_copy(update={"analysis": board.analysis.model_copy(update={"first_place": None})})
    best = max(board.analysis.ranking["gold/win_rate"].items(), key=lambda item: item[1].first)
    assert remarks(draws)[2].startswith(f"First on win_rate over bootstrap draws: {best[0]} {best[1].first:.0%} (rank 1 to ")
    power = board.analysis.power
    assert detectable.endswith(
        f"win_rate {power['gold/win_rate'].detectable:.3f}, followed {power['format/followed'].detectable:.3f}."
    )
    older = board.model_copy(update={"analysis": None, "statistics": board.statistics.model_copy(update={"families": None})})
    assert remarks(older) == []


def test_they_stand_in_every_table(board: Board) -> None:
    out = io.StringIO()
    print_table(board, Console(file=out, width=200))
    printed = " ".join(out.getvalue().split())
    markdown, latex = to_markdown(board), to_latex(board)
    for said in remarks(board):
        assert markdown_text(said) in markdown and said in printed
        assert latex_text(said) in latex


GPU = {"training": "bfloat16", "weights": "float32", "scoring": "float32", "generation": "bfloat16"}
WORDS = (
    "trained with products in bfloat16 (its references and refinements too), weights kept in float32, "
    "log-probabilities scored in float32, text generated in bfloat16"
)


def test_in_which_types_it_was_computed_stands_in_every_form(board: Board) -> None:
    """Once for all rows; by rows where they differ; nothing of a board that does not say."""

    def with_types(*types: dict[str, str] | None) -> Board:
        rows = [
            row.model_copy(update={"provenance": {**row.provenance, **({"precision": found} if found else {})}})
            for row, found in zip(board.rows, [*types, *[types[-1]] * len(board.rows)], strict=False)
        ]
        return board.model_copy(update={"rows": rows})

    assert board_precision(board) == ""
    same = with_types(GPU)
    assert board_precision(same) == WORDS and remarks(same)[-1] == f"Precision: {WORDS}."
    out = io.StringIO()
    print_table(same, Console(file=out, width=200))
    assert f"Precision: {WORDS}." in " ".join(out.getvalue().split())
    assert markdown_text(f"Precision: {WORDS}.") in to_markdown(same)
    assert ("Precision", WORDS) in _facts(same) and ("Precision", WORDS) in made_of(same, same.rows[0])
    assert board_precision(with_types({**GPU, "training": "none"}, GPU)) == WORDS  # a row that was not trained says no less
    assert board_precision(with_types({**GPU, "training": "none"})).startswith("not trained, weights kept in float32, ")
    other = with_types({**GPU, "training": "float32", "generation": "float32", "rewards": "bfloat16"}, GPU)
    said = board_precision(other)
    assert said.startswith("trained with products in float32, weights kept") and "reward models in bfloat16" in said
    assert f"({board.rows[0].method}); {WORDS} ({board.rows[1].method}, " in said
