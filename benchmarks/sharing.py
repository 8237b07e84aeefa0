"""One comparison against the sum of its methods alone, each from an empty store: wall time, tokens generated, tokens trained.

    python benchmarks/sharing.py                          # the quickstart's rows at one seed, three rounds
    python benchmarks/sharing.py --config my.yaml --rounds 1
    python benchmarks/sharing.py --quick                  # small numbers, one round, to see that it works

In each round the whole comparison runs, and every row alone with the same settings, its store empty and its baseline itself, so
that a lone row pays for its data, its starting model, its training and its evaluation and for nothing else. Every other round
begins with the lone rows. A ratio is taken within a round. Wall time is of `harness.run.compare.compare`, the start of its
workers included; tokens are counted from what each store holds afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from harness.config.file import load_raw, override
from harness.config.sweep import expand
from harness.run.compare import compare
from harness.store import Store

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
QUICK = ("source.sft=64", "source.heldout=16", "budget.prompts=32", "sft.epochs=1")
FACTS = {  # what is counted: kind of artifact -> its fact
    "generated": {"samples": "tokens", "answers": "tokens_generated"},
    "trained": {"train": "tokens_trained", "sft": "tokens_trained"},
    "scored": {"reference": "tokens_scored", "views": "tokens_scored"},
}


def main() -> None:
    options = parse()
    raw = override(load_raw(options.config), [*options.set, *(QUICK if options.quick else ())])
    raw, _ = expand({**raw, "seeds": [0]})
    if options.rows:
        raw["methods"] = [entry for entry in raw["methods"] if label(entry) in {*options.rows, raw["baseline"]}]
    rounds: list[dict[str, Any]] = []
    for number in range(options.rounds):
        measured: dict[str, Any] = {}
        for part in ("together", "alone") if number % 2 == 0 else ("alone", "together"):
            print(f"round {number + 1} of {options.rounds}: {part} …", flush=True)
            measured[part] = run(raw, options.workers) if part == "together" else alone(raw, options.workers)
        rounds.append(measured)
        write(raw, rounds, options)  # after each round, so that a run cut short leaves what it has


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of harness compare")
    parser.add_argument("--rows", nargs="+", default=[], metavar="LABEL", help="these rows and the baseline alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="small numbers, one round; writes sharing-quick")
    options = parser.parse_args()
    if options.quick:
        options.rounds = 1
    return options


def label(entry: Any) -> str:
    """The row's label, as the harness gives it."""
    return entry if isinstance(entry, str) else entry.get("label") or entry["method"]


def alone(raw: dict[str, Any], workers: int) -> dict[str, Any]:
    """Every row by itself. A null row is the baseline again, so alone it is the baseline with other seeds."""
    rows = {}
    for entry in raw["methods"]:
        name = label(entry)
        if name == "null":
            base = next(other for other in raw["methods"] if label(other) == raw["baseline"])
            lone = {**raw, "methods": [base], "seeds": [seed + 1000 for seed in raw["seeds"]]}
        else:
            lone = {**raw, "methods": [entry], "baseline": name}
        rows[name] = run(lone, workers)
    total: Counter[str] = Counter()
    for row in rows.values():
        total.update(row)
    return {**total, "rows": rows}


def run(raw: dict[str, Any], workers: int) -> dict[str, Any]:
    """Seconds and tokens of one comparison from an empty store."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        start, before = time.perf_counter(), processor_seconds()
        compare(raw, folder=Path(folder) / "run", store=store, workers=workers)
        spent = {"seconds": time.perf_counter() - start, "processor_seconds": processor_seconds() - before}
        return {**spent, **tokens(Store(store))}


def processor_seconds() -> float:
    """Processor time of this process and of those it started that have ended: what other work on the machine hardly changes."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def tokens(store: Store) -> dict[str, int]:
    """Tokens behind everything a store holds."""
    counted = dict.fromkeys(FACTS, 0)
    for record in store.root.glob("artifacts/*/*/artifact.json"):
        artifact = json.loads(record.read_text(encoding="utf-8"))
        for name, facts in FACTS.items():
            if artifact["kind"] in facts:
                counted[name] += artifact["facts"][facts[artifact["kind"]]]
    return counted


def write(raw: dict[str, Any], rounds: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """The numbers as JSON, and a table of them as Markdown."""
    RESULTS.mkdir(exist_ok=True)
    name = "sharing-quick" if options.quick else "sharing"
    about = {
        "config": options.config.stem,
        "rows": [label(entry) for entry in raw["methods"]],
        "seeds": raw["seeds"],
        "workers": options.workers,
        "rounds": len(rounds),
        "torch": version("torch"),
    }
    (RESULTS / f"{name}.json").write_text(json.dumps({**about, "measured": rounds}, indent=1) + "\n", encoding="utf-8")
    text = markdown(about, rounds)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def markdown(about: dict[str, Any], rounds: list[dict[str, Any]]) -> str:
    lines = ["# One comparison against its methods alone", ""]
    lines += [
        f"{about['config']}: {len(about['rows'])} rows at one seed, {about['workers']} workers, {about['rounds']} rounds, "
        f"torch {about['torch']}. Medians; the ratio is of sums alone over the comparison within a round,",
        "median [range]. `sharing.py` says how it is taken.",
        "",
        "| | alone, summed | one comparison | ratio |",
        "|---|---|---|---|",
    ]
    for unit in ("seconds", *FACTS):
        lone, shared = ([entry[part][unit] for entry in rounds] for part in ("alone", "together"))
        ratios = [a / b for a, b in zip(lone, shared, strict=True) if b]
        told = f"{median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]" if ratios else "–"
        name = "wall time, s" if unit == "seconds" else f"tokens {unit}"
        lines.append(f"| {name} | {median(lone):,.0f} | {median(shared):,.0f} | {told} |")
    lines += ["", "| row | seconds alone | " + " | ".join(f"tokens {name}" for name in FACTS) + " |", "|---|---|---|---|---|"]
    for row in about["rows"]:
        cells = [median([entry["alone"]["rows"][row][unit] for entry in rounds]) for unit in ("seconds", *FACTS)]
        lines.append(f"| {row} | " + " | ".join(f"{cell:,.0f}" for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
