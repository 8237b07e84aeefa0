"""`harness view` in the browser: made-up runs, one of hostile texts, and a real comparison, watched, killed and resumed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from made_boards import HOSTILE
from made_runs import write_running
from opened_page import PATIENCE, TALL
from test_browser_access import THEMES, faults
from test_compare import tiny_config

from harness.board import Board
from harness.board.views.text import visible

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TOKEN = "a-token-of-this-test"
LEADERBOARDS = Path(__file__).resolve().parents[2] / "leaderboards"
LONG = 600_000  # milliseconds, for a comparison on a machine that is busy


@dataclass
class Served:
    """`harness view` in a process of its own, and the pages that are open."""

    folder: Path
    port: int = 0
    process: subprocess.Popen[str] | None = None
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/{TOKEN}"

    def start(self) -> None:
        """Start it, the second time at the same port."""
        command = [sys.executable, "-P", "-m", "harness", "view", str(self.folder), "--no-browser", "--port", str(self.port)]
        environment = {**os.environ, "HARNESS_VIEW_TOKEN": TOKEN}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        self.port = int(said.partition("127.0.0.1:")[2].partition("/")[0])

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def open(self, browser: Browser, path: str, width: int = 1280, theme: Any = "light") -> Page:
        context = browser.new_context(viewport={"width": width, "height": TALL}, color_scheme=theme)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(self.address + path)
        return page


@pytest.fixture(scope="module")
def served(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A folder with a run that goes on, one with hostile texts and a board without a journal."""
    folder = tmp_path_factory.mktemp("runs")
    write_running(folder / "half", error="the learning rate is too high")
    write_running(folder / "hostile", HOSTILE, sample=HOSTILE, error=HOSTILE)
    board = Board.read(LEADERBOARDS / "hh-rlhf-small")
    board.with_examples(board.example_rows[:5]).write(folder / "done")
    served = Served(folder)
    served.start()
    yield served
    assert served.stop() == 130


def settled(page: Page) -> None:
    """Wait for the first events, and unfold everything."""
    page.locator("[data-facts] div, [data-cards] li").first.wait_for()
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", [400, 1280])
def test_axe_finds_no_fault_on_live_pages(served: Served, browser: Browser, width: int, theme: str) -> None:
    for path in ("/", "/run/half", "/beside?run=half&run=done"):
        page = served.open(browser, path, width, theme)
        settled(page)
        assert faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.context.close()
    assert served.complaints == []
    assert all(url.startswith(served.address) for url in served.requests)


def test_hostile_texts_are_texts(served: Served, browser: Browser) -> None:
    page = served.open(browser, "/run/hostile", 400)
    settled(page)
    page.locator("[data-samples] figure").first.wait_for()
    assert page.evaluate("window.pwned === undefined")
    assert page.locator("main :is(img, iframe, script, a[href^='javascript'])").count() == 0
    assert page.locator("h1").inner_text() == visible(HOSTILE)
    assert page.locator("[data-samples] p:not(.prompt)").first.inner_text() == visible(HOSTILE)
    assert visible(HOSTILE) in page.locator("[data-failed]").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    assert served.complaints == []


def test_the_policy_stops_scripts_and_the_network(served: Served, browser: Browser) -> None:
    heard = "new Promise(done => { addEventListener('securitypolicyviolation', event => done(event.effectiveDirective));"
    for attempt, directive in (
        ("document.body.append(Object.assign(document.createElement('script'), {text: 'pwned = 1'}))", "script-src-elem"),
        ("fetch('https://example.invalid/').catch(() => 0)", "connect-src"),
        ("document.body.append(Object.assign(new Image(), {src: 'https://example.invalid/i.png'}))", "img-src"),
    ):
        page = served.open(browser, "/run/half")
        assert page.evaluate(f"{heard} {attempt} }})") == directive
        page.context.close()
    served.complaints.clear()
    served.requests.clear()


def test_runs_are_chosen_and_shown_side_by_side(served: Served, browser: Browser) -> None:
    page = served.open(browser, "/")
    cards = page.locator("[data-cards] li")
    cards.filter(has_text="9 of 24 stages").first.wait_for()
    for name in ("half ·", "done ·"):
        cards.filter(has_text=name).get_by_role("checkbox").check()
    page.get_by_role("button", name="Show side by side").click()
    page.locator("article.run").nth(1).locator("tbody tr").first.wait_for()
    assert page.locator("article.run").count() == 2
    page.locator("article.run").nth(1).get_by_role("link", name="Open the board").click()
    page.locator("#ranking tbody tr").first.wait_for()


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@pytest.mark.slow
def test_a_comparison_is_watched_killed_and_resumed_without_a_reload(
    tiny_checkpoint: Path, browser: Browser, tmp_path: Path
) -> None:
    rows = ["sft", "dpo", {"method": "self_contrast", "data": {"samples": 4, "keep": 0.5}}]
    config = tiny_config(tiny_checkpoint) | {"methods": rows, "seeds": [0, 1]}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    runs = tmp_path / "runs"
    runs.mkdir()
    command = [sys.executable, "-P", "-m", "harness", "compare", str(tmp_path / "tiny.yaml"), "--workers", "1"]
    command += ["--store", str(tmp_path / "store")]
    # The baseline is in the store already, so that there is something to rank from the first row on.
    subprocess.run([*command, "--methods", "sft", "--out", str(tmp_path / "baseline")], check=True, capture_output=True)

    def compare() -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        return subprocess.Popen([*command, "--out", str(runs / "live")], stdout=quiet, stderr=quiet, start_new_session=True)

    served = Served(runs, free_port())
    served.start()
    index = served.open(browser, "/")
    index.get_by_text("There is no run here yet.").wait_for()
    run = compare()
    try:
        index.locator("[data-cards] li", has_text="tiny").locator(".state.running").wait_for(timeout=LONG)
        page = served.open(browser, "/run/live")
        page.evaluate("window.sameDocument = true")
        page.locator("[data-now] li").first.wait_for(timeout=LONG)
        page.locator("[data-curves] figure", has_text="dpo").wait_for(timeout=LONG)
        page.locator("[data-samples] figure").first.wait_for(timeout=LONG)
        done = int(page.locator("[data-facts] dd").first.inner_text().split()[0])
        assert done > 0
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        page.locator(".state.killed").wait_for(timeout=LONG)
        # While rows are still to come, those that are complete are ranked with their intervals.
        page.locator(".tag.provisional").wait_for(timeout=LONG)
        page.locator("tr.complete .mean + small").first.wait_for()

        # The viewer is started again, too: the page finds it by itself.
        assert served.stop() == 130
        page.locator("[data-lost]").wait_for()
        served.start()
        page.locator("[data-lost]").wait_for(state="hidden")
        run = compare()
        page.locator(".state.running").wait_for(timeout=LONG)
        page.locator(".state.finished").wait_for(timeout=LONG)
        page.get_by_role("link", name="Open the board").wait_for()
        assert page.locator("tr.complete").count() == 3
        assert page.evaluate("window.sameDocument")
        page.get_by_role("link", name="Open the board").click()
        page.locator("#ranking tbody tr").first.wait_for()
        assert run.wait(60) == 0
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
        served.stop()
    complaints = [text for text in served.complaints if "ERR_CONNECTION_REFUSED" not in text and "ERR_INCOMPLETE" not in text]
    assert complaints == []
