"""Light, dark, and paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from opened_page import Open

if TYPE_CHECKING:
    from playwright.sync_api import Page


def light(page: Page) -> bool:
    """Whether the page's ground is brighter than its text."""
    ground, ink = page.evaluate(
        "(({backgroundColor, color}) => [backgroundColor, color].map(c => c.match(/[0-9.]+/g).slice(0, 3).map(Number)))"
        "(getComputedStyle(document.body))"
    )
    return sum(ground) > sum(ink)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_follows_the_system(full: Path, open_page: Open, theme: str) -> None:
    page = open_page(full, theme=theme).page
    assert light(page) == (theme == "light")
    page.emulate_media(color_scheme="dark" if theme == "light" else "light")
    assert light(page) == (theme == "dark")


def test_the_switch_overrules_the_system_and_is_remembered(full: Path, open_page: Open) -> None:
    page = open_page(full, theme="dark").page
    switch = page.get_by_role("button", name="Theme")
    found = []
    for _ in range(3):
        found.append((switch.inner_text(), light(page)))
        switch.click()
    assert found == [("Theme: system", False), ("Theme: light", True), ("Theme: dark", False)]
    switch.click()
    page.reload()
    assert (switch.inner_text(), light(page)) == ("Theme: light", True)


@pytest.mark.parametrize("theme", ["system", "dark"])
def test_paper_is_light_whatever_was_chosen(full: Path, open_page: Open, theme: str) -> None:
    page = open_page(full, theme="dark").page
    while theme not in page.locator(".theme").inner_text():
        page.locator(".theme").click()
    page.emulate_media(media="print", color_scheme="dark")
    assert light(page)


def test_paper_has_what_a_reader_needs_and_no_controls(page: Page) -> None:
    page.emulate_media(media="print")
    for gone in ("nav", ".filters", "#examples", ".theme", ".choose"):
        assert page.locator(gone).first.is_hidden()
    assert page.locator("#differences svg:visible").count() == 2  # of both primary metrics, not of the chosen one alone
    assert page.locator("#differences h3:visible").all_inner_texts() == ["gold/reward", "gold/win_rate"]
    assert page.locator("#ranking tbody tr:visible").count() == 12


def test_nothing_sticks_out_of_the_paper(page: Page) -> None:
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 690, "height": 1000})  # A4 without its margins
    outside = "parts => parts.filter(part => part.getBoundingClientRect().right > innerWidth + 1).map(part => part.outerHTML)"
    assert page.eval_on_selector_all("main section:not(#metrics) :is(table, svg, p, dl)", outside) == []
    page.set_viewport_size({"width": 1010, "height": 700})  # the table of all metrics lies on the sheet's long side
    assert page.eval_on_selector_all("#metrics :is(table, p)", outside) == []
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")


def test_without_scripts_everything_but_the_viewer_is_there(full: Path, open_page: Open) -> None:
    page = open_page(full, java_script_enabled=False).page
    assert page.locator("#differences svg:visible").count() == 4 and page.locator("#ranking tbody tr:visible").count() == 12
    assert page.locator(".viewer").is_hidden() and page.locator(".filters").first.is_hidden()
