"""How quickly the page of a large board opens and answers: 50 methods × 20 metrics × 10,000 examples by default.

    python benchmarks/page.py --out benchmarks/results/page

Values are made up. The statistics are those of fewer prompts, whose number changes nothing that a page shows. Every example
has an answer of every method and a score of every metric, the primary ones at two seeds. Several pages are opened from a file
in headless Chromium, one after the other: paint and load are what the browser reports; what answers a click lasts from the
click until the next frame was painted (at 60 frames a second, up to 17 ms of it are waiting); sorting, filtering and searching
prompts last until their count is shown, a search less the 150 ms for which the page waits for another letter.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import random
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from playwright.sync_api import Browser, Page, sync_playwright

from harness.api.types import Cost, Metric, Score
from harness.board import Board, ExampleRow, RowResult, build_board
from harness.board.views.page import to_html

ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
WAITS = 150.0  # milliseconds between a letter and the search
WORDS = ("the", "river", "carries", "small", "boats", "past", "three", "quiet", "towns", "and", "a", "bridge", "of", "stone")
TIMED = """
async act => {
  const frame = () => new Promise(requestAnimationFrame);
  await frame();
  const start = performance.now();
  act();
  await frame();
  await new Promise(painted => setTimeout(painted));
  return performance.now() - start;
}
"""
ACTS = {
    "sort the ranking": "document.querySelectorAll('#ranking thead button')[2].click()",
    "sort the table of all metrics": "document.querySelectorAll('#metrics thead button')[2].click()",
    "filter the rows": (
        "const box = document.querySelector('[data-filter]'); box.value = box.value ? '' : 'row1';"
        "box.dispatchEvent(new Event('input', {bubbles: true}))"
    ),
    "turn a page of examples": "document.querySelector('[data-page=\"1\"]').click()",
    "choose another method": (
        "const menu = document.querySelector('[data-choose]'); menu.selectedIndex = (menu.selectedIndex + 7) % 50;"
        "menu.dispatchEvent(new Event('change', {bubbles: true}))"
    ),
}
SEARCH = """
([act, words]) => new Promise(done => {
  const box = document.querySelector("[data-search]"), said = document.querySelector("[data-found]"), start = performance.now();
  new MutationObserver((_, observer) => {
    if (!said.textContent.endsWith("prompts")) return;
    observer.disconnect();
    done(performance.now() - start);
  }).observe(said, {childList: true});
  if (act === "search") {
    box.value = words;
    box.dispatchEvent(new Event("input", {bubbles: true}));
  } else {
    const menu = document.querySelector(`[data-${act}]`);
    menu.value = words;
    menu.dispatchEvent(new Event("change", {bubbles: true}));
  }
})
"""
ARRANGE = {"sort prompts by what got worse": ("sort", "worse"), "show where judges disagree": ("only", "disagree")}


def made_board(rows: int, metrics: int, prompts: int) -> Board:
    """Rows with scores, costs and training logs of two seeds; one is a null row."""
    rng = random.Random(0)
    named = [Metric(f"m{k}", f"Made-up metric {k}", primary=k < 3) for k in range(metrics)]
    results = []
    for r in range(rows):
        scores = {
            seed: [Score(f"p{p}", m.name, 0.01 * r + rng.gauss(0, 1)) for p in range(prompts) for m in named] for seed in (0, 1)
        }
        curves = {
            seed: [{"step": step, "loss": rng.random(), "margin": rng.random()} for step in range(200)] for seed in (0, 1)
        }
        results.append(
            RowResult(
                label=f"row{r}",
                data="preference",
                objective="dpo",
                rounds=1,
                kind="null" if r == 1 else "measured",
                scores={"made": scores},
                costs={seed: Cost(rng.uniform(10, 99), 70_000 + r, 900 * r) for seed in (0, 1)},
                budget={"prompts": 800, "updates": 50},
                provenance={"models": {"0": f"{r:032x}"}},
                curves=curves,
            )
        )
    return build_board(
        name="large",
        description="Made up to measure the page.",
        config={},
        baseline="row0",
        rows=results,
        metrics={"made": named},
        examples=(),
        sharing={},
        created="2025-01-01T00:00:00+00:00",
        warnings=(),
    )


def made_examples(count: int, labels: Sequence[str]) -> list[ExampleRow]:
    rng = random.Random(1)

    def text(words: int) -> str:
        return " ".join(rng.choices(WORDS, k=words))

    return [ExampleRow(f"p{i}", f"{i} {text(12)}", text(10), {label: text(18) for label in labels}) for i in range(count)]


def made_scores(rows: int, metrics: int, examples: int) -> bytes:
    """Scores as Parquet: every other metric has eleven values, the others any; the three primary ones have two seeds."""
    rng, size = np.random.default_rng(2), rows * examples
    kinds = [(metric, seed) for metric in range(metrics) for seed in ((0, 1) if metric < 3 else (0,))]

    def named(places: np.ndarray, names: Sequence[str]) -> pyarrow.Array:
        return pyarrow.DictionaryArray.from_arrays(places.astype(np.int32), list(names))

    columns = {
        "row": named(np.tile(np.repeat(np.arange(rows), examples), len(kinds)), [f"row{r}" for r in range(rows)]),
        "evaluator": named(np.zeros(size * len(kinds)), ["made"]),
        "seed": np.repeat([seed for _, seed in kinds], size),
        "metric": named(np.repeat([metric for metric, _ in kinds], size), [f"m{k}" for k in range(metrics)]),
        "example": named(np.tile(np.arange(examples), rows * len(kinds)), [f"p{i}" for i in range(examples)]),
        "sample": np.zeros(size * len(kinds), np.int32),
        "value": np.concatenate([rng.integers(0, 11, size) / 10 if m % 2 else rng.normal(size=size) for m, _ in kinds]),
    }
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), out, compression="zstd")
    return out.getvalue()


def timed(page: Page, act: str) -> float:
    return float(page.evaluate(f"({TIMED})(() => {{ {act} }})"))


def visit(browser: Browser, path: Path) -> dict[str, float]:
    """Milliseconds of one page, opened and used."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(300_000)
    page = context.new_page()
    page.goto(path.as_uri())
    page.locator("[data-list] li").first.wait_for()
    found = {
        "first contentful paint": page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"),
        "load": page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"),
    }
    page.evaluate("scrollTo(0, document.querySelector('#metrics').offsetTop)")
    for name, act in ACTS.items():
        found[name] = statistics.median(timed(page, act) for _ in range(4))
    for name, act in ARRANGE.items():
        found[name] = page.evaluate(SEARCH, list(act))
    for menu in ("only", "sort"):
        page.evaluate(SEARCH, [menu, ""]) if menu == "only" else page.locator("[data-sort]").select_option("")
    found["search all texts"] = page.evaluate(SEARCH, ["search", "quiet stone 77"]) - WAITS
    found["elements"] = page.evaluate("document.querySelectorAll('*').length")
    context.close()
    return found


def measured(given: argparse.Namespace) -> dict[str, Any]:
    board = made_board(given.rows, given.metrics, given.prompts)
    examples = made_examples(given.examples, [row.method for row in board.rows])
    board._score_file = made_scores(given.rows, given.metrics, given.examples)
    started = time.perf_counter()
    content = to_html(board, examples)
    rendered = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "index.html"
        path.write_text(content, encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=given.chromium, args=list(ARGUMENTS))
        version = browser.version
        visits = [visit(browser, path) for _ in range(given.rounds)]
        size = path.stat().st_size
        browser.close()
    return {
        **{name: getattr(given, name) for name in ("rows", "metrics", "prompts", "examples", "rounds")},
        "chromium": version,
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "text_mb": round(sum(len(e.prompt) + sum(map(len, e.answers.values())) for e in examples) / 1e6, 1),
        "page_mb": round(size / 1e6, 1),
        "scores_mb": round(sum(map(len, re.findall(r'class="scores-block">([^<]*)', content))) / 1e6, 1),
        "metrics_with_scores": content.count('class="scores-block"'),
        "seconds_to_render": round(rendered, 1),
        "milliseconds": {name: [round(found[name], 1) for found in visits] for name in visits[0] if name != "elements"},
        "elements": visits[0]["elements"],
    }


def to_markdown(found: dict[str, Any]) -> str:
    head = f"""# The page of a large board

{found["rows"]} methods, {found["metrics"]} metrics, {found["examples"]:,} examples with an answer of each method
({found["text_mb"]} MB of text): a page of {found["page_mb"]} MB and {found["elements"]:,} elements, rendered in
{found["seconds_to_render"]} s. {found["scores_mb"]} MB of it are scores of {found["metrics_with_scores"]} metrics, as
many as there is room for. Chromium {found["chromium"]}, headless, {found["cores"]} cores at a load of {found["load"]};
milliseconds, median [range] of {found["rounds"]} pages. `page.py` says how it is taken.

| | ms |
|---|---|
"""
    lines = [
        f"| {name} | {statistics.median(values):,.0f} [{min(values):,.0f}, {max(values):,.0f}] |"
        for name, values in found["milliseconds"].items()
    ]
    return head + "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 50), ("metrics", 20), ("prompts", 60), ("examples", 10_000), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser's program")
    parser.add_argument("--out", type=Path, help="without its ending: .json and .md are written")
    given = parser.parse_args()
    found = measured(given)
    text = to_markdown(found)
    print(text, end="")
    if given.out:
        given.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
        given.out.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
