"""A board as data frame, picture and cell output; what comes from models stays text."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from harness import HarnessError
from harness.board import Board
from harness.board.views.notebook import to_notebook

SVG = "{http://www.w3.org/2000/svg}"


def test_a_frame_has_one_line_per_row_and_metric(board: Board) -> None:
    frame = board.to_pandas()
    expected = [(row.method, metric.key) for row in board.rows for metric in board.metrics if metric.key in row.scores]
    scored = frame[frame["metric"].notna()]
    assert list(zip(scored["method"], scored["metric"], strict=True)) == expected
    without = [row.method for row in board.rows if not row.scores]
    assert without and list(frame[frame["metric"].isna()]["method"]) == without
    row = board.rows[0]
    score = row.scores[board.primary[0].key]
    (line,) = frame[(frame["method"] == row.method) & (frame["metric"] == board.primary[0].key)].to_dict("records")
    assert (line["mean"], line["n"], line["primary"]) == (score.mean, score.n, True)
    assert score.delta is not None
    assert (line["delta"], line["delta_low"], line["p_adjusted"]) == (score.delta.mean, score.delta.low, score.delta.p_adjusted)
    assert frame[frame["method"] == board.baseline]["delta"].isna().all()


@pytest.mark.parametrize("picture", ["differences", "cost"])
def test_a_picture_is_whole_and_harmless(board: Board, picture: Any, tmp_path: Path) -> None:
    drawn = board.plot(picture=picture)
    root = ElementTree.fromstring(drawn.svg)
    assert root.tag == f"{SVG}svg"
    tags = ("svg", "style", "text", "line", "rect", "circle", "polyline", "title")
    assert {element.tag for element in root.iter()} <= {f"{SVG}{tag}" for tag in tags}
    assert drawn.save(tmp_path / "a.svg").read_text() == drawn.svg + "\n"


def test_a_metric_that_is_not_there(board: Board) -> None:
    with pytest.raises(HarnessError, match="no metric is called 'gold/winrate': did you mean 'gold/win_rate'"):
        board.plot("gold/winrate")


def test_a_cell_escapes_what_it_shows(board: Board) -> None:
    shown = board._repr_html_()
    assert shown == to_notebook(board)
    nasty = next(row.method for row in board.rows if "<img" in row.method)
    assert nasty not in shown and "<img" not in shown and "<script" not in shown
    assert shown.count("<tr>") == len(board.rows) + 1
