"""Nothing leaves the page, nothing but its own script runs in it, and hostile texts are texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from made_boards import HOSTILE
from opened_page import Open, Opened

from harness.board.views.text import visible

if TYPE_CHECKING:
    from playwright.sync_api import Page


UNFOLD = "for (const part of document.querySelectorAll('details')) part.open = true"


def use(page: Page) -> None:
    """Opens, sorts, chooses, looks at and searches everything there is."""
    page.evaluate(UNFOLD)
    for button in page.locator("thead button").all():
        button.click()
    for select in page.locator("main select:visible:not(#examples select)").all():
        for index in range(select.locator("option").count()):
            select.select_option(index=index)
    page.locator("#examples [data-add]").select_option("all")
    for name in ("choose", "metric", "only", "sort", "other"):
        menu = page.locator(f"#examples [data-{name}]").first
        for value in menu.evaluate("menu => [...menu.options].map(option => option.value)"):
            if menu.is_visible():
                menu.select_option(value)
    for name in ("only", "sort"):
        page.locator(f"#examples [data-{name}]").select_option("")
    page.locator("[data-found]").filter(has_not_text="prompts").wait_for()
    for index in range(3):
        page.locator("#examples [data-list] button").nth(index).click()
    page.get_by_role("button", name="Show all").first.click()
    page.get_by_placeholder("Search prompts").fill("<script>")
    page.locator("[data-found]", has_text="3 of 3 prompts").wait_for()


def test_hostile_texts_run_nothing_whatever_is_done(hostile: Path, open_page: Open) -> None:
    page = open_page(hostile).page
    use(page)
    assert page.evaluate("window.pwned === undefined")
    assert page.locator("img, iframe, object, embed, base, form, textarea, svg svg").count() == 0
    addresses = page.eval_on_selector_all("[href], [src]", "all => all.map(one => one.getAttribute('href') ?? one.src)")
    assert addresses and all(address.startswith("#") for address in addresses)
    handlers = "all => all.filter(one => [...one.attributes].some(({name}) => name.startsWith('on'))).length"
    assert page.eval_on_selector_all("*", handlers) == 0


def test_hostile_texts_are_shown_as_they_are(hostile: Path, open_page: Open) -> None:
    page = open_page(hostile).page
    page.evaluate(UNFOLD)
    page.locator('[data-show="answer-1"]', has_text="window.pwned=1").wait_for()
    for part in ("prompt", "target", "answer-0", "answer-1"):
        assert page.locator(f'[data-show="{part}"]').inner_text() == visible(HOSTILE)
    for part in ("h1", ".lead", ".warnings", "#row-1", "#metrics .meanings"):
        assert visible(HOSTILE) in str(page.locator(part).first.text_content())
    body = str(page.locator("body").text_content())
    assert not any(character in body for character in "\x1b\x07\u202e\u202c\u200f")


def test_what_the_judge_said_is_shown_as_it_is(hostile: Path, open_page: Open) -> None:
    page = open_page(hostile).page
    methods = page.locator("#examples").get_by_label("Row 2")
    labels = methods.locator("option").all_inner_texts()
    methods.select_option(index=next(place for place, label in enumerate(labels) if label.startswith("<script>")))
    said = page.locator("[data-judged]").nth(1)
    said.locator("summary").wait_for()
    assert said.locator("summary").inner_text() == f"{visible(HOSTILE)}: {visible(HOSTILE)}"
    assert said.locator(".text").inner_text().startswith(visible(HOSTILE))


@pytest.mark.parametrize("width", [400, 1280])
def test_a_hundred_thousand_characters_do_not_widen_the_page(hostile: Path, open_page: Open, width: int) -> None:
    page = open_page(hostile, width=width).page
    page.evaluate(UNFOLD)
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize(
    ("markup", "directive"),
    [
        ("<i onclick='window.pwned = 1'>", "script-src-attr"),
        ("<style>body {color: red}</style>", "style-src-elem"),
        ("<img src=https://example.invalid/x.png>", "img-src"),
        ("<iframe src=https://example.invalid/></iframe>", "frame-src"),
    ],
)
def test_the_policy_stops_markup_that_got_in(full: Path, open_page: Open, markup: str, directive: str) -> None:
    put_in = f"document.body.insertAdjacentHTML('beforeend', `{markup}`); document.body.lastElementChild.click()"
    blocked(open_page(full), put_in, directive)


@pytest.mark.parametrize(
    ("script", "directive"),
    [
        (
            "document.body.append(Object.assign(document.createElement('script'), {text: 'pwned = 1'}))",
            "script-src-elem",
        ),
        ("fetch('https://example.invalid/').catch(() => 0)", "connect-src"),
        ("new Worker('data:text/javascript,0')", "worker-src"),
    ],
)
def test_the_policy_stops_what_scripts_would_load(full: Path, open_page: Open, script: str, directive: str) -> None:
    blocked(open_page(full), script, directive)


def blocked(opened: Opened, attempt: str, directive: str) -> None:
    """Makes the attempt, and waits for the policy to say that it stopped it."""
    heard = "new Promise(done => { addEventListener('securitypolicyviolation', event => done(event.effectiveDirective));"
    assert opened.page.evaluate(f"{heard} {attempt} }})") == directive
    assert opened.page.evaluate("window.pwned === undefined")
    assert all("Content Security Policy" in complaint for complaint in opened.complaints)
    opened.complaints.clear()
    opened.requests.clear()  # what was stopped is reported as asked for, too
