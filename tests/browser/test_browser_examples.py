"""The viewer of examples: rows side by side with their scores and judges' words, sorting, links, searching, 10,000 of them."""

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
    found.locator('[data-show="answer-0"]', has_text="sft answers 0").wait_for()
    return found


def shown(viewer: Locator, part: str) -> Locator:
    return viewer.locator(f'[data-show="{part}"]')


def listed(viewer: Locator) -> list[str]:
    return viewer.locator("[data-list] small").all_inner_texts()


def search(viewer: Locator, words: str, found: int) -> None:
    viewer.get_by_placeholder("Search prompts").fill(words)
    viewer.locator("[data-found]", has_text=f"{found:,} of {EXAMPLES:,} prompts").wait_for()


def test_the_baseline_stands_beside_the_best_that_answered(viewer: Locator) -> None:
    assert viewer.get_by_label("First row").evaluate("s => s.selectedOptions[0].text") == "sft"
    assert viewer.get_by_label("Row 2").evaluate("s => s.selectedOptions[0].text") == "dpo"
    assert shown(viewer, "prompt").inner_text() == "question 0: name two things that float"
    assert shown(viewer, "target").inner_text() == "This source has no target."
    assert shown(viewer, "answer-1").inner_text() == "dpo answers 0"


def test_any_two_rows_can_be_chosen(viewer: Locator) -> None:
    viewer.get_by_label("First row").select_option("kto")
    shown(viewer, "answer-0").filter(has_text="kto answers 0").wait_for()
    viewer.get_by_label("Row 2").select_option("sft")
    shown(viewer, "answer-1").filter(has_text="sft answers 0").wait_for()
    assert viewer.get_by_label("First row").locator("option").all_inner_texts() == ["dpo", "kto", "sft"]


def test_what_the_judge_said_stands_below_the_answer_it_is_about(viewer: Locator) -> None:
    said = viewer.locator("[data-judged]").nth(1)
    assert "pairwise: A" in said.inner_text() and "clearer, verdict 0" in said.inner_text()
    assert viewer.locator("[data-judged]").nth(0).inner_text() == ""
    viewer.get_by_role("button", name="p1 question 1").click()
    shown(viewer, "answer-1").filter(has_text="dpo answers 1").wait_for()
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
    shown(viewer, "answer-0").filter(has_text="sft answers 777").wait_for()
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
    assert "clearer, verdict 9990" in viewer.locator("[data-judged]").nth(1).inner_text()


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
    shown(viewer, "answer-0").filter(has_text="sft answers 9999").wait_for()


def test_a_long_line_is_cut_until_it_is_asked_for(hostile: Path, open_page: Open) -> None:
    page = open_page(hostile, width=400).page
    page.locator("#examples [data-list] button").nth(1).click()
    text = page.locator('[data-show="prompt"]')
    text.get_by_role("button", name="Show all 100,000 characters").click()
    assert text.inner_text() == LONG
    assert page.evaluate("document.documentElement.scrollWidth") == 400


def choose(viewer: Locator, menu: str, option: str) -> None:
    viewer.locator(f"[data-{menu}]").select_option(option)


def test_which_prompts_got_worse(viewer: Locator) -> None:
    """Each listed prompt has the second row's score minus the first's; those without a score are not among them."""
    viewer.locator("[data-choose]").nth(1).select_option("kto")
    choose(viewer, "only", "kto is worse than sft")
    viewer.locator("[data-found]", has_text=f"of {EXAMPLES:,} prompts").wait_for()
    worse = int(viewer.locator("[data-found]").inner_text().split()[0])
    assert 0 < worse < 60
    choose(viewer, "only", "kto is better than sft")
    viewer.locator("[data-found]", has_text=f"{60 - worse} of {EXAMPLES:,} prompts").wait_for()
    choose(viewer, "only", "all prompts")
    choose(viewer, "sort", "worse in kto first")
    viewer.locator("[data-found]", has_text=f"{EXAMPLES:,} of {EXAMPLES:,} prompts").wait_for()
    gaps = [float(text.replace("−", "-")) for text in viewer.locator("[data-list] .gap").all_inner_texts()]
    assert len(gaps) == PER_PAGE and gaps == sorted(gaps) and sum(gap < 0 for gap in gaps) == min(worse, PER_PAGE)
    delta = viewer.locator("[data-scores]").nth(1).locator("tbody tr").first.locator("td").last
    assert float(delta.inner_text().replace("−", "-")) == gaps[0]


def test_prompts_are_sorted_by_a_metric_and_by_the_disagreement_of_judges(viewer: Locator) -> None:
    choose(viewer, "metric", "gold/win_rate")
    choose(viewer, "sort", "highest score of sft first")
    viewer.locator("[data-found]", has_text="prompts").wait_for()
    scores = viewer.locator("[data-scores]").first.locator("tbody tr", has_text="win_rate").locator("td")
    assert float(scores.last.inner_text()) > 0.4  # the largest of 60 draws with a deviation of 0.4
    assert viewer.locator("[data-other]").is_hidden()
    viewer.locator("[data-choose]").nth(1).select_option("kto")
    choose(viewer, "only", "two judges disagree")
    assert viewer.locator("[data-other]").is_visible()
    viewer.locator("[data-found]").filter(has_not_text=f"{EXAMPLES:,} of").wait_for()
    assert 0 < int(viewer.locator("[data-found]").inner_text().split()[0]) < 60


def test_a_link_restores_rows_order_and_example(viewer: Locator, page: Page) -> None:
    choose(viewer, "add", "kto")
    shown(viewer, "answer-2").filter(has_text="kto answers 0").wait_for()
    choose(viewer, "sort", "better in dpo first")
    viewer.locator("[data-found]", has_text="prompts").wait_for()
    viewer.locator("[data-list] button").nth(3).click()
    name = listed(viewer)[3]
    viewer.locator("[data-id]", has_text=name).wait_for()
    before, address = listed(viewer), viewer.get_by_role("link", name="Link to this view").get_attribute("href")
    assert address is not None and page.url.endswith(address)
    page.reload()
    viewer.locator("[data-id]", has_text=name).wait_for()
    assert listed(viewer) == before
    assert [select.input_value() for select in viewer.locator("[data-choose]").all()] == ["2", "0", "1"]
    assert shown(viewer, "answer-2").inner_text() == f"kto answers {name[1:]}"
    viewer.get_by_role("button", name="Remove this row").nth(2).click()
    assert viewer.locator("[data-choose]").count() == 2


def test_all_scores_of_an_answer_are_shown_when_asked_for(viewer: Locator) -> None:
    scores = viewer.locator("[data-scores]").nth(1)
    assert scores.locator("tbody th").all_inner_texts() == ["reward", "win_rate"]
    scores.get_by_role("button", name="All 4 scores").click()
    scores.get_by_role("button", name="Fewer scores").wait_for()
    assert scores.locator("tbody th").all_inner_texts() == ["reward", "win_rate", "cut_off", "sandbox_generation_exact_match"]
