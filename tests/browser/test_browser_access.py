"""What axe-core finds, at three widths in both themes with everything unfolded, and that no page is wider than its window."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opened_page import Open

from harness.board.views.site import build_site

if TYPE_CHECKING:
    from playwright.sync_api import Page


LEADERBOARDS = Path(__file__).resolve().parents[2] / "leaderboards"
COMMITTED = ("quickstart", "sandbox-full", "papers/sr-dpo-open-llm")
WIDTHS, THEMES = (400, 800, 1280), ("light", "dark")
UNFOLD = """
for (const part of document.querySelectorAll("main details:not(.row), #row-0, #row-0 details, #row-1")) part.open = true;
for (const part of document.querySelectorAll(".late")) part.style.contentVisibility = "visible";
"""


def faults(page: Page) -> list[Any]:
    """Whatever axe-core calls a violation, of any impact: rule, impact, and the elements it is about."""
    axe = pytest.importorskip("axe_playwright_python.base", reason="axe-playwright-python is missing: pip install -e '.[dev]'")
    page.evaluate(axe.AXE_SCRIPT)
    found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    return [(rule["id"], rule["impact"], [node["html"] for node in rule["nodes"]][:3]) for rule in found]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_no_fault(full: Path, open_page: Open, width: int, theme: str) -> None:
    page = open_page(full, width=width, theme=theme).page
    page.evaluate(UNFOLD)
    page.locator("[data-judged] details").wait_for()
    assert faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_axe_finds_no_fault_where_texts_are_hostile(hostile: Path, open_page: Open) -> None:
    page = open_page(hostile, width=400).page
    page.evaluate(UNFOLD)
    assert faults(page) == []


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_boards_open_sort_and_fit(open_page: Open, name: str) -> None:
    page = open_page(LEADERBOARDS / name / "index.html", width=400).page
    head = page.locator("#ranking thead th").first
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    found = page.eval_on_selector_all("#ranking tbody th", "heads => heads.map(head => head.dataset.value)")
    assert found == sorted(found, key=str.casefold) and len(found) > 1
    assert page.evaluate("document.documentElement.scrollWidth") == 400


def test_a_published_site_has_no_fault_and_asks_for_nothing(open_page: Open, tmp_path: Path) -> None:
    build_site([LEADERBOARDS / "papers" / "sr-dpo-open-llm"], tmp_path).write(tmp_path)
    for name in ("index.html", "sr-dpo-open-llm/history.html"):
        for theme in THEMES:
            assert faults(open_page(next(tmp_path.rglob(name)), width=400, theme=theme).page) == []
