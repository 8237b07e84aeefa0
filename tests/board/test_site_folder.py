"""Where a site is written: into a folder of its own, through no link, and its index links to the folders as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.board import Board
from harness.board.views.site import MARKER, build_site, check_folder, write_index
from harness.errors import DataError


@pytest.fixture
def run(board: Board, tmp_path: Path) -> Path:
    board.write(tmp_path / "run")
    return tmp_path / "run"


def publish(run: Path, site: Path) -> None:
    check_folder(site)
    build_site([run], site).publish(site)


@pytest.mark.parametrize("own", [(), (".git/config", ".nojekyll")], ids=["empty", "hidden files"])
def test_an_empty_folder_becomes_a_site_that_is_published_again(run: Path, tmp_path: Path, own: tuple[str, ...]) -> None:
    site = tmp_path / "site"
    for name in own:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text("mine")
    for _ in range(2):
        publish(run, site)
    assert (site / MARKER).is_file() and (site / "quickstart" / "board.json").is_file()
    assert {(site / name).read_text() for name in own} <= {"mine"}
    (site / MARKER).unlink()  # as in a site of version 0.1.0
    publish(run, site)


@pytest.mark.parametrize("name", ["index.html", "notes.txt", "quickstart/board.json"])
def test_what_lies_there_is_not_replaced(run: Path, tmp_path: Path, name: str) -> None:
    site = tmp_path / "site"
    (site / name).parent.mkdir(parents=True)
    (site / name).write_text("mine")
    with pytest.raises(DataError, match="no site that `harness publish` made"):
        publish(run, site)
    assert [path.read_text() for path in site.rglob("*") if path.is_file()] == ["mine"]


@pytest.mark.parametrize("name", ["index.html", "quickstart", "quickstart/board.json", "quickstart/history.html", MARKER])
def test_nothing_is_written_through_a_link(run: Path, tmp_path: Path, name: str) -> None:
    site, outside = tmp_path / "site", tmp_path / "outside"
    publish(run, site)
    target = site / name
    target.rename(outside)
    target.symlink_to(outside)
    before = {path: path.read_bytes() for path in [outside, *outside.rglob("*")] if path.is_file()}
    with pytest.raises(DataError, match="is a link"):
        build_site([run], site).publish(site)
    assert {path: path.read_bytes() for path in [outside, *outside.rglob("*")] if path.is_file()} == before
    assert target.is_symlink()


@pytest.mark.parametrize(
    "name", ["javascript:alert(1)", 'a"onmouseover="x', "a?b#c", "<b>", b"\xff".decode(errors="surrogateescape")]
)
def test_an_odd_folder_is_a_link_to_that_folder_alone(board: Board, tmp_path: Path, name: str) -> None:
    board.write(tmp_path / "runs" / name)
    write_index(tmp_path / "runs", "Runs")
    page = (tmp_path / "runs" / "index.html").read_text()
    (link,) = re.findall(r'href="([^"]*/index\.html)"', page)
    assert re.fullmatch(r"[A-Za-z0-9%_.-]+/index\.html", link)
    assert "onmouseover" not in page.replace("%22onmouseover%3D%22x", "") and "<b>" not in page


def test_an_index_that_is_somebody_elses_stays(board: Board, tmp_path: Path) -> None:
    board.write(tmp_path / "run")
    (tmp_path / "index.html").write_text("mine")
    write_index(tmp_path, "Runs")
    assert (tmp_path / "index.html").read_text() == "mine"
