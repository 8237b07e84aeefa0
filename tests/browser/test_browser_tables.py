"""Tables that sort and filter, by pointer and by keys, and what a row's name leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

RANKING = "#ranking table"


def heading(page: Page, name: str, table: str = RANKING) -> Locator:
    return page.locator(f"{table} thead th", has=page.locator(".label", has_text=name)).first


def values(page: Page, name: str, table: str = RANKING) -> list[str]:
    """A column's values from top to bottom; empty where a row has none."""
    column = heading(page, name, table).evaluate("head => head.cellIndex")
    rows = f"{table} tbody tr:not([hidden])"
    return page.eval_on_selector_all(rows, "(rows, column) => rows.map(row => row.cells[column].dataset.value)", column)


def methods(page: Page, table: str = RANKING) -> list[str]:
    return values(page, "Method", table)


def test_a_heading_sorts_best_first_then_the_other_way(page: Page) -> None:
    head = heading(page, "win_rate")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    numbers = [float(value) for value in values(page, "win_rate") if value]
    assert len(numbers) == 10 and numbers == sorted(numbers, reverse=True)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    found = values(page, "win_rate")
    assert [float(value) for value in found[:10]] == sorted(numbers) and found[10:] == ["", ""]
    assert methods(page)[-1] == "broken"  # failed rows stay last either way


def test_only_one_column_is_said_to_be_sorted(page: Page) -> None:
    for name in ("reward", "Method", "Rank"):
        heading(page, name).get_by_role("button").click()
    found = page.eval_on_selector_all(f"{RANKING} th[aria-sort]", "heads => heads.map(head => head.ariaSort)")
    assert found.count("none") == len(found) - 1 and heading(page, "Rank").get_attribute("aria-sort") == "ascending"


def test_names_are_sorted_as_text(page: Page) -> None:
    heading(page, "Method").get_by_role("button").click()
    found = methods(page)
    assert found[:3] == ["dpo", "dpo, as printed", "elsewhere"] and found[-1] == "broken"


def test_where_lower_is_better_the_lowest_comes_first(page: Page) -> None:
    heading(page, "cut_off", "#metrics table").get_by_role("button").click()
    numbers = [float(value) for value in values(page, "cut_off", "#metrics table") if value]
    assert numbers == sorted(numbers)
    assert methods(page, "#metrics table") != methods(page)  # each table has its own order


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_keys_sort_and_keep_their_place(page: Page, key: str) -> None:
    head = heading(page, "reward")
    head.get_by_role("button").focus()
    page.keyboard.press(key)
    assert head.get_attribute("aria-sort") == "descending"
    page.keyboard.press(key)
    assert head.get_attribute("aria-sort") == "ascending"
    assert head.get_by_role("button").evaluate("button => document.activeElement === button")


def test_words_filter_the_rows_of_every_table(page: Page) -> None:
    page.get_by_placeholder("Filter by method").fill("SELF dpo")
    kept = [f"self_contrast[negatives={count}]" for count in (16, 4, 1)]
    assert methods(page) == methods(page, "#metrics table") == methods(page, "#budget table") == kept
    assert page.locator("details.row:not([hidden])").count() == 3
    assert page.locator("#ranking [data-count]").inner_text() == "3 of 12 rows"
    page.get_by_placeholder("Filter by method").fill("no such row")
    assert methods(page) == [] and page.locator("#ranking [data-count]").inner_text() == "0 of 12 rows"
    page.get_by_placeholder("Filter by method").fill("")
    assert len(methods(page)) == 12 and page.locator("#ranking [data-count]").inner_text() == ""


@pytest.mark.parametrize(
    ("kind", "gone"),
    [("control", "oracle"), ("null", "sft_other_seeds"), ("published", "dpo, as printed"), ("imported", "elsewhere")],
)
def test_kinds_of_rows_can_be_left_out(page: Page, kind: str, gone: str) -> None:
    assert gone in methods(page)
    page.get_by_role("checkbox", name=kind, exact=True).uncheck()
    assert gone not in methods(page) and len(methods(page)) == 11


def test_only_sure_differences(page: Page) -> None:
    page.get_by_role("checkbox", name="only significant differences").check()
    kept = methods(page)
    assert "dpo" in kept and not {"kto", "sft", "sft_other_seeds", "broken"} & set(kept)
    rows = page.locator(f"{RANKING} tbody tr:not([hidden])").all()
    assert len(rows) == len(kept)
    assert all(any("*" in mark for mark in row.locator(".delta b").all_inner_texts()) for row in rows)


def test_what_is_filtered_stays_filtered_when_sorted(page: Page) -> None:
    page.get_by_placeholder("Filter by method").fill("self_contrast")
    heading(page, "Time per seed").get_by_role("button").click()
    assert methods(page) == [f"self_contrast[negatives={count}]" for count in (1, 4, 16)]


def test_columns_can_be_filtered(page: Page) -> None:
    page.get_by_placeholder("Filter the columns").fill("gold")
    heads = page.locator("#metrics thead th:visible .label").all_inner_texts()
    assert heads == ["Method", "gold/reward", "gold/win_rate"]
    assert page.locator("#metrics [data-shown]").inner_text() == "2 of 4 metrics"


def test_intervals_marks_and_kinds_stand_in_the_table(page: Page) -> None:
    cells = page.locator(f"{RANKING} tbody tr", has_text="self_contrast[negatives=16]").locator("td").all_inner_texts()
    assert "*" in cells[1] and " – " in cells[1] and " … " in cells[1]
    undecided = page.locator(f"{RANKING} tbody tr", has_text="kto").inner_text()
    assert "…" in undecided and "*" not in undecided
    printed = page.locator(f"{RANKING} tr.published")
    assert printed.locator(".tag").inner_text() == "published" and "as published" in printed.inner_text()
    assert printed.locator(".delta").count() == 0
    assert "loss became nan at step 12" in page.locator(f"{RANKING} tr.lost").inner_text()


def test_a_name_leads_to_where_its_numbers_come_from(page: Page) -> None:
    page.locator(RANKING).get_by_role("link", name="simpo").click()
    row = page.locator("details.row[open]")
    assert row.count() == 1 and row.locator("summary").first.inner_text() == "simpo"
    assert row.locator("summary").first.evaluate("summary => document.activeElement === summary")
    table = row.get_by_role("table", name="All statistics of this row")
    assert table.locator("tbody tr").count() == 4 and "p corrected" in table.inner_text()
    text = row.inner_text()
    for expected in ("harness compare made-up", "sha256 " + "cd" * 32, "a-judge", "0, 1", "preference", "simpo"):
        assert expected in text


def test_an_address_opens_its_row(page: Page) -> None:
    page.evaluate("location.hash = '#row-1'")
    page.locator("#row-1 table").wait_for()
    assert page.locator("#row-1").get_attribute("open") is not None


def test_figures_are_chosen_by_metric(page: Page) -> None:
    forest = page.locator("#differences").get_by_role("img")
    assert forest.count() == 1 and "gold/reward" in str(forest.get_attribute("aria-label"))
    page.locator("#differences").get_by_label("Metric").select_option("lm_eval/sandbox_generation_exact_match")
    assert forest.count() == 1 and "sandbox_generation" in str(forest.get_attribute("aria-label"))


def test_every_part_is_there_and_can_be_reached(page: Page) -> None:
    links = page.get_by_role("navigation").get_by_role("link")
    targets = [str(link.get_attribute("href"))[1:] for link in links.all()]
    assert targets == [
        *("ranking", "differences", "cost", "scaling", "wins", "training", "certainty", "examples", "metrics", "budget", "rows")
    ]
    assert page.eval_on_selector_all("main > section", "parts => parts.map(part => part.id)") == targets
    assert page.locator("#scaling svg .line").count() >= 1 and page.locator("#cost svg .front").count() >= 1
    assert page.locator("#wins td").count() > 0 and page.locator("#training svg").count() == 7
