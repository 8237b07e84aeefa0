"""A headless Chromium, and pages of boards that were made up for it. Without either package the tests are skipped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from made_boards import full_board, hostile_board
from opened_page import PATIENCE, TALL, Open, Opened, watched

from harness.board.views.page import to_html

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-default-apps"),
    *("--disable-background-networking", "--disable-component-update", "--disable-domain-reliability", "--mute-audio"),
)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where it is; nothing is made for tests that cannot run."""
    program = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium on the path: install it (Debian: apt-get install chromium)")
    pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install -e '.[dev]'")
    return program


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """One for the tests of a file; each page has a context of its own. While it is open an event loop runs in this thread,
    so it must not outlive these tests: others start loops of their own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=list(QUIET))
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens a file in a window of a width and a theme. After the test: it asked for nothing, and nobody complained."""
    opened: list[Opened] = []

    def open_file(path: Path, width: int = 1280, theme: Any = "light", **settings: Any) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": TALL}, color_scheme=theme, **settings)
        context.set_default_timeout(PATIENCE)
        opened.append(watched(context, path))
        return opened[-1]

    yield open_file
    for found in opened:
        found.page.context.close()
        assert (found.requests, found.complaints) == ([], [])


@pytest.fixture(scope="session")
def full(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a board with all kinds of rows and 10,000 examples."""
    board = full_board()
    path = tmp_path_factory.mktemp("full") / "index.html"
    path.write_text(to_html(board, board.example_rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def hostile(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a board whose texts are hostile."""
    board = hostile_board()
    path = tmp_path_factory.mktemp("hostile") / "index.html"
    path.write_text(to_html(board, board.example_rows), encoding="utf-8")
    return path


@pytest.fixture
def page(full: Path, open_page: Open) -> Page:
    return open_page(full).page
