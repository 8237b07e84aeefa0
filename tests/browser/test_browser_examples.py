"""The viewer of examples: two methods side by side, what the judge said, pages, searching, and 10,000 of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from made_boards import EXAMPLES, LONG
from opened_page import Open

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


PER_PAGE = 12


@pytest.fixture
def viewer(page: Page) -> Locator:
    found = page.locator("#examples")
    found.locator('[data-show="left"]', has_text="sft answers 0").wait_for()
    return found


def shown(viewer: Locator, part: str) -> Locator:
    return viewer.locator(f'[data-show="{part}"]')


def listed(viewer: Locator) -> list[str]:
    return viewer.locator("[data-list] small").all_inner_texts()


def search(viewer: Locator, words: str, found: int) -> None:
    viewer.get_by_placeholder("Search prompts").fill(words)
    viewer.locator("[data-found]", has_text=f"{found:,} of {EXAMPLES:,} prompts").wait_for()


def test_the_baseline_stands_beside_the_best_that_answered(viewer: Locator) -> None:
    assert viewer.get_by_label("First method").evaluate("s => s.selectedOptions[0].text") == "sft"
    assert viewer.get_by_label("Second method").evaluate("s => s.selectedOptions[0].text") == "dpo"
    assert shown(viewer, "prompt").inner_text() == "question 0: name two things that float"
    assert shown(viewer, "target").inner_text() == "This source has no target."
    assert shown(viewer, "right").inner_text() == "dpo answers 0"


def test_any_two_methods_can_be_chosen(viewer: Locator) -> None:
    viewer.get_by_label("First method").select_option("kto")
    shown(viewer, "left").filter(has_text="kto answers 0").wait_for()
    viewer.get_by_label("Second method").select_option("sft")
    shown(viewer, "right").filter(has_text="sft answers 0").wait_for()
    assert viewer.get_by_label("First method").locator("option").all_inner_texts() == ["dpo", "kto", "sft"]


def test_what_the_judge_said_stands_below_the_answer_it_is_about(viewer: Locator) -> None:
    said = viewer.locator('[data-judged="right"]')
    assert "pairwise: A" in said.inner_text() and "clearer, verdict 0" in said.inner_text()
    assert viewer.locator('[data-judged="left"]').inner_text() == ""
    viewer.get_by_role("button", name="p1 question 1").click()
    shown(viewer, "right").filter(has_text="dpo answers 1").wait_for()
    assert said.inner_text() == "" and shown(viewer, "target").inner_text() == "a cork and a boat"


def test_pages_turn_and_the_focus_is_not_lost_at_the_end(viewer: Locator, page: Page) -> None:
    earlier, later = viewer.get_by_role("button", name="Earlier"), viewer.get_by_role("button", name="Later")
    assert earlier.is_disabled() and listed(viewer) == [f"p{i}" for i in range(PER_PAGE)]
    later.click()
    viewer.locator("[data-list] small", has_text="p12").wait_for()
    assert viewer.locator("[data-at]").inner_text() == "2 / 834"
    earlier.focus()
    page.keyboard.press("Enter")
    viewer.locator("[data-list] small", has_text="p11").wait_for()
    assert earlier.is_disabled() and later.evaluate("button => document.activeElement === button")


def test_a_search_looks_at_prompts_of_all_blocks(viewer: Locator) -> None:
    search(viewer, "PUMICE", 10)
    assert listed(viewer) == [f"p{i}" for i in range(777, EXAMPLES, 1000)]
    shown(viewer, "left").filter(has_text="sft answers 777").wait_for()
    search(viewer, "answers 9999", 1)
    assert listed(viewer) == ["p9999"]


def test_the_count_the_list_and_the_texts_of_a_search_change_at_once(viewer: Locator) -> None:
    """Blocks with finds must be unpacked again: a page that told the count before would show the former list beside it."""
    viewer.evaluate("""viewer => {
        const text = (selector) => viewer.querySelector(selector).textContent;
        window.seen = [];
        new MutationObserver(() => {
            const ids = [...viewer.querySelectorAll("[data-list] small")].map((small) => small.textContent);
            window.seen.push([text("[data-found]"), ids, text("[data-id]")]);
        }).observe(viewer.querySelector("[data-found]"), { childList: true });
    }""")
    search(viewer, "PUMICE", 10)
    seen = [entry for entry in viewer.evaluate("window.seen") if "looking" not in entry[0]]
    assert seen == [[f"10 of {EXAMPLES:,} prompts", [f"p{i}" for i in range(777, EXAMPLES, 1000)], "p777"]]


def test_turning_a_page_while_a_search_looks_does_not_end_it(viewer: Locator) -> None:
    # The click comes in the moment in which the page says that it looks, however fast the machine is.
    viewer.evaluate(
        """viewer => new MutationObserver((_, observer) => {
            if (!viewer.querySelector("[data-found]").textContent.includes("still looking")) return;
            observer.disconnect();
            viewer.querySelector('[data-page="1"]').click();
            viewer.dataset.turned = "1";
        }).observe(viewer, {subtree: true, childList: true, characterData: true})"""
    )
    viewer.get_by_placeholder("Search prompts").fill("pumice")
    viewer.locator("[data-found]", has_text=f"10 of {EXAMPLES:,} prompts").wait_for()
    assert listed(viewer) == [f"p{i}" for i in range(777, EXAMPLES, 1000)]
    assert viewer.locator("[data-at]").inner_text() == "1 / 1"
    assert viewer.get_attribute("data-turned") == "1"


def test_a_search_looks_at_what_judges_said(viewer: Locator) -> None:
    search(viewer, "clearer 9990", 1)
    assert listed(viewer) == ["p9990"]
    shown(viewer, "prompt").filter(has_text="question 9990").wait_for()
    assert "clearer, verdict 9990" in viewer.locator('[data-judged="right"]').inner_text()


def test_a_search_without_a_find_says_so_and_ends_when_cleared(viewer: Locator) -> None:
    search(viewer, "gibberish", 0)
    assert listed(viewer) == [] and viewer.get_by_role("button", name="Later").is_disabled()
    viewer.get_by_placeholder("Search prompts").fill("")
    viewer.locator("[data-list] small", has_text="p11").wait_for()
    assert viewer.locator("[data-found]").inner_text() == ""


def test_the_last_page_of_ten_thousand(viewer: Locator) -> None:
    search(viewer, "question", EXAMPLES)
    viewer.evaluate("viewer => { for (let i = 0; i < 833; i++) viewer.querySelector('[data-page=\"1\"]').click(); }")
    viewer.locator("[data-list] small", has_text="p9999").wait_for()
    assert viewer.locator("[data-at]").inner_text() == "834 / 834" and listed(viewer) == [f"p{i}" for i in range(9996, 10_000)]
    viewer.get_by_role("button", name="p9999").click()
    shown(viewer, "left").filter(has_text="sft answers 9999").wait_for()


def test_a_long_line_is_cut_until_it_is_asked_for(hostile: Path, open_page: Open) -> None:
    page = open_page(hostile, width=400).page
    page.locator("#examples [data-list] button").nth(1).click()
    text = page.locator('[data-show="prompt"]')
    text.get_by_role("button", name="Show all 100,000 characters").click()
    assert text.inner_text() == LONG
    assert page.evaluate("document.documentElement.scrollWidth") == 400
