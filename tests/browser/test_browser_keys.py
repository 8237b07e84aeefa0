"""Everything without a pointer: the order of the stops, a focus that can be seen, and what keys open."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

FOCUSED = "document.activeElement"


def stops(page: Page, count: int) -> list[str]:
    """What the tabulator reaches, by the text or the label that is read out."""
    found = []
    for _ in range(count):
        page.keyboard.press("Tab")
        found.append(page.evaluate(f"({FOCUSED}.ariaLabel || {FOCUSED}.placeholder || {FOCUSED}.textContent).trim()"))
    return found


def test_the_first_stops(page: Page) -> None:
    found = stops(page, 15)
    assert found[:5] == ["Skip to the ranking", "Theme: system", "On the other primary metric", "Ranking", "Differences"]
    assert found[-2:] == ["Provenance", "Filter by method, data or objective"]


def test_the_skip_link_shows_itself_and_skips(page: Page) -> None:
    page.keyboard.press("Tab")
    box = page.get_by_role("link", name="Skip to the ranking").bounding_box()
    assert box is not None and box["x"] >= 0 and box["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#ranking"
    assert stops(page, 1) == ["Filter by method, data or objective"]


def test_the_focus_can_be_seen_wherever_it_is(page: Page) -> None:
    """Along the first 40 stops; a region that scrolls is one of them."""
    kinds = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        outline = page.evaluate(f"getComputedStyle({FOCUSED}).outline")
        assert "solid 2px" in outline, page.evaluate(f"{FOCUSED}.outerHTML.slice(0, 200)")
        kinds.add(page.evaluate(f"{FOCUSED}.tagName"))
    assert {"A", "BUTTON", "INPUT", "DIV"} <= kinds


def test_keys_open_what_is_folded(page: Page) -> None:
    summary = page.locator("#row-1 > summary")
    summary.focus()
    page.keyboard.press("Enter")
    page.locator("#row-1 table").wait_for()
    page.keyboard.press("Space")
    assert page.locator("#row-1").get_attribute("open") is None


def test_keys_choose_a_figure_a_method_and_an_example(page: Page) -> None:
    page.locator("#differences select").focus()
    page.keyboard.press("ArrowDown")
    assert "gold/win_rate" in str(page.locator("#differences").get_by_role("img").get_attribute("aria-label"))
    page.locator("#examples").get_by_label("First row").focus()
    page.keyboard.press("ArrowUp")
    page.locator('[data-show="answer-0"]', has_text="kto answers 0").wait_for()
    page.locator("#examples [data-list] button").nth(3).focus()
    page.keyboard.press("Enter")
    page.locator('[data-show="answer-0"]', has_text="kto answers 3").wait_for()
    assert page.locator("#examples [aria-current=true] small").inner_text() == "p3"


def test_boxes_are_ticked_with_the_space_bar(page: Page) -> None:
    box = page.get_by_role("checkbox", name="control")
    box.focus()
    page.keyboard.press("Space")
    assert not box.is_checked() and page.locator("#ranking tr.control:visible").count() == 0
