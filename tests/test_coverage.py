"""docs/papers/coverage: every item of the three papers has commands that exist, results that are linked, and no empty cell."""

from __future__ import annotations

import importlib.util
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from harness.api.registry import KINDS, Registry
from harness.cli import app
from harness.config import resolve
from harness.config.file import load_raw

ROOT = Path(__file__).resolve().parents[1]
SPEC = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
assert SPEC is not None and SPEC.loader is not None
GENERATE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(GENERATE)
PAPERS = {paper.arxiv: paper for paper in GENERATE.covered_papers()}
KINDS_OF_ITEMS = {"method", "baseline", "ablation", "analysis", "table", "figure"}
ITEMS = [item for paper in PAPERS.values() for item in paper.items]
COMMANDS = sorted({command for item in ITEMS for command in (item.full, item.here) if command})
# The last table and the last figure of each paper, its appendices included.
LAST = {"2404.00604": (5, 7), "2409.17534": (3, 4), "2405.21040": (8, 3)}


def numbers(kind: str, items: list[Any]) -> set[int]:
    """Return the numbers that items name, such as 4 and 5 of "Tables 4 and 5: hyper-parameters"."""
    heads = [match[1] for item in items if (match := re.match(rf"{kind}s? ([\d, and]+)", item.item, re.IGNORECASE))]
    return {int(number) for head in heads for number in re.findall(r"\d+", head)}


@pytest.mark.parametrize("arxiv", LAST)
def test_every_table_and_figure_is_listed(arxiv: str) -> None:
    tables, figures = LAST[arxiv]
    items = list(PAPERS[arxiv].items)
    assert numbers("table", items) == set(range(1, tables + 1))
    assert numbers("figure", items) == set(range(1, figures + 1))


@pytest.mark.parametrize("arxiv", LAST)
def test_every_component_of_a_paper_is_named(arxiv: str) -> None:
    text = " ".join(f"{item.item} {item.full} {item.here} {item.result}" for item in PAPERS[arxiv].items)
    registry = Registry.load()
    names = [
        name
        for kind in KINDS
        for name, entry in registry.entries[kind].items()
        if entry.component.paper is not None and entry.component.paper.arxiv == arxiv and kind != "evaluator"
    ]
    assert names
    assert not [name for name in names if not re.search(rf"\b{re.escape(name)}\b", text)]


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.item)
def test_no_cell_is_empty_and_an_item_that_cannot_run_says_why(item: Any) -> None:
    assert item.kind in KINDS_OF_ITEMS
    assert bool(item.full) != bool(item.never)
    for cell in (item.full or item.never, item.needs, item.here, item.result):
        assert re.search(r"\w{3}", cell), item
        assert not re.search(r"\b(missing|todo|tbd)\b", cell, re.IGNORECASE), item
    for link in re.findall(r"\]\(([^)#]+)", item.result):
        assert (ROOT / "docs" / "papers" / link).exists(), link


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_what_exists(command: str) -> None:
    """Its subcommand, its options, its config, and the config's rows or the analysis."""
    root: Any = typer.main.get_command(app)
    program, *words = shlex.split(command)
    assert program == "harness"
    subcommand = words.pop(0)
    parser = root.commands[subcommand]
    while hasattr(parser, "commands"):
        parser = parser.commands[words.pop(0)]
    options = {option: parameter for parameter in parser.params for option in parameter.opts}
    values = dict(pairwise(words))
    assert not [word for word in words if word.startswith("--") and word not in options]
    for path in (word for word in words if word.endswith(".yaml")):
        raw = load_raw(ROOT / path)
        labels = {row if isinstance(row, str) else row.get("label", row.get("method")) for row in raw["methods"]}
        assert set(values.get("--methods", "").split(",")) - {""} <= labels
    if subcommand == "analyze":
        assert words[0] in Registry.load().entries["analysis"]


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "papers" / "claims").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_twins_claims_are_about_its_configs_rows_and_evaluators(path: Path) -> None:
    twin = yaml.safe_load(path.read_text(encoding="utf-8"))
    raw = load_raw(ROOT / twin["config"])
    assert raw["name"] == twin["board"]
    labels = {row.label for row in resolve(raw, Registry.load()).rows}  # rows by round are ours@2, ours@3, …
    evaluators = {item if isinstance(item, str) else item.get("label", item["name"]) for item in raw["evaluators"]}
    assert twin["claims"]
    for claim in twin["claims"]:
        assert claim["more"] != claim["less"] and {claim["more"], claim["less"]} <= labels, claim
        assert claim["metric"].partition("/")[0] in evaluators, claim
