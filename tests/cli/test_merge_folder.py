"""`harness merge --out` never loses another board: it refuses, unless `--replace` is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.board.board import Board
from harness.board.facts import MergedBoard, SharingFacts
from harness.cli import main
from harness.errors import HarnessError
from harness.run.folders import check_merge_folder

LEADERBOARDS = Path(__file__).resolve().parents[2] / "leaderboards"
TABLE = LEADERBOARDS / "papers" / "sr-dpo-mt-bench"


@pytest.fixture
def merged() -> Board:
    return Board.read(TABLE)


def of_two(board: Board, *names: str) -> Board:
    return board.model_copy(
        update={"sharing": SharingFacts(merged=[MergedBoard(name=name, sha256="0" * 64) for name in names])}
    )


def test_an_empty_folder_and_an_earlier_merge_of_the_same_boards_are_taken(merged: Board, tmp_path: Path) -> None:
    check_merge_folder(tmp_path, merged)
    merged.write(tmp_path)
    check_merge_folder(tmp_path, merged)
    of_two(merged, "one", "two").write(tmp_path)
    check_merge_folder(tmp_path, of_two(merged, "two", "one"))


@pytest.mark.parametrize(
    ("names", "rows", "reason"),
    [
        (("one", "three"), None, "it was merged from one, two"),
        (("one", "two"), 1, "is not in the merged board"),
    ],
)
def test_a_merge_of_other_boards_is_kept(
    merged: Board, tmp_path: Path, names: tuple[str, ...], rows: int | None, reason: str
) -> None:
    of_two(merged, "one", "two").write(tmp_path)
    before = (tmp_path / "board.json").read_bytes()
    other = of_two(merged, *names).model_copy(update={"rows": merged.rows[:rows]})
    with pytest.raises(HarnessError, match=rf"--out .* holds another board \(.*{reason}.*--replace to lose that board"):
        check_merge_folder(tmp_path, other)
    assert (tmp_path / "board.json").read_bytes() == before


def test_a_measured_board_and_one_that_cannot_be_read_are_kept(merged: Board, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="a run or an import made it"):
        check_merge_folder(LEADERBOARDS / "imported", merged)
    (tmp_path / "board.json").write_text("{")
    with pytest.raises(HarnessError, match="holds another board"):
        check_merge_folder(tmp_path, merged)


def test_the_command_refuses_and_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def harness(*arguments: str) -> int:
        monkeypatch.setattr("signal.signal", lambda *_: None)
        monkeypatch.setattr("sys.argv", ["harness", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    arguments = ["merge", str(TABLE.with_suffix(".yaml")), "--out", str(tmp_path)]
    other = Board.read(LEADERBOARDS / "papers" / "sr-dpo-vicuna-bench")
    of_two(other, "one", "two").write(tmp_path)
    assert harness(*arguments) == 2
    assert "it was merged from one, two" in " ".join(capsys.readouterr().err.split())
    assert Board.read(tmp_path).name == other.name
    assert harness(*arguments, "--replace") == 0
    assert {row.method for row in Board.read(tmp_path).rows} == {row.method for row in Board.read(TABLE).rows}
