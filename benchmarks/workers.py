"""What a comparison costs beside its stages, and what a second worker brings.

    python benchmarks/workers.py                                     # five rows of the quickstart at one seed, three rounds
    python benchmarks/workers.py --rows all --seeds 0,1 --rounds 1   # the quickstart as it ships
    python benchmarks/workers.py --quick                             # small numbers, one round, to see that it works

In each round `harness compare` runs from an empty store with one worker and with two; every other round begins with two. Wall
time is that of the command, from the start of its process to its end. The bare stages are what the artifacts say: the seconds
from a stage's first read to its artifact's last byte, inside the worker. The overhead is what the wall time with one worker has
beyond their sum, within that run. It has two parts: handing over (from giving a stage to a worker until the worker said
that it is done, beyond the bare stage: the worker's start and its first imports, checksums of inputs, messages), and the rest
(the command's start, the plan, the board). Ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from harness.run.executors.journal import EVENTS
from harness.run.executors.process import WORKER_ENVIRONMENT
from harness.store import Store

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
MAIN = "from harness.cli import main; main()"
ROWS = "sft,dpo,kto,sr_dpo,self_contrast_1"
QUICK = ("source.sft=64", "source.heldout=16", "budget.prompts=32", "sft.epochs=1")
TARGET = 0.03  # of the bare stages


def main() -> None:
    options = parse()
    rounds: list[dict[str, Any]] = []
    for number in range(options.rounds):
        measured: dict[str, Any] = {}
        for workers in (1, 2) if number % 2 == 0 else (2, 1):
            print(f"round {number + 1} of {options.rounds}: --workers {workers} …", flush=True)
            measured[str(workers)] = run(options, workers)
        rounds.append(measured)
        write(rounds, options)  # after each round, so that a run cut short leaves what it has


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of harness compare")
    parser.add_argument("--rows", default=ROWS, metavar="A,B,…", help="labels of rows, or `all`")
    parser.add_argument("--seeds", default="0", metavar="0,1,…")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small numbers, one round; writes workers-quick")
    options = parser.parse_args()
    if options.quick:
        options.rounds = 1
        options.set += QUICK
    return options


def run(options: argparse.Namespace, workers: int) -> dict[str, float]:
    """One comparison from an empty store: its seconds, and where they went."""
    rows = [] if options.rows == "all" else ["--methods", options.rows]
    sets = [part for entry in options.set for part in ("--set", entry)]
    with tempfile.TemporaryDirectory() as name:
        folder, store = Path(name) / "run", Path(name) / "store"
        places = ["--out", str(folder), "--store", str(store), "--workers", str(workers)]
        command = [sys.executable, "-c", MAIN, "compare", str(options.config), "--seeds", options.seeds, *rows, *sets, *places]
        start = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        seconds = time.perf_counter() - start
        if done.returncode:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
        return {"wall": seconds, **parts(folder, Store(store))}


def parts(folder: Path, store: Store) -> dict[str, float]:
    """Seconds of the bare stages, seconds until a worker said so, and how many stages there were."""
    events = [json.loads(line) for line in (folder / EVENTS).read_text(encoding="utf-8").splitlines()]
    ended = {event["key"]: event["seconds"] for event in events if event["event"] == "stage_finished"}
    return {
        "stages": len(ended),
        "bare": sum(store.open(key).seconds for key in ended),
        "given": sum(ended.values()),
    }


def overheads(entry: dict[str, float]) -> dict[str, float]:
    """Of a run with one worker: seconds beyond its stages, and their share of these."""
    handing, rest = entry["given"] - entry["bare"], entry["wall"] - entry["given"]
    return {"handing": handing, "rest": rest, "share": (handing + rest) / entry["bare"]}


def write(rounds: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """The numbers as JSON, and a table of them as Markdown."""
    RESULTS.mkdir(exist_ok=True)
    name = "workers-quick" if options.quick else "workers"
    about = {
        "config": options.config.stem,
        "rows": options.rows,
        "seeds": options.seeds,
        "set": options.set,
        "rounds": len(rounds),
        "threads_per_worker": int(WORKER_ENVIRONMENT["OMP_NUM_THREADS"]),
        "torch": version("torch"),
    }
    (RESULTS / f"{name}.json").write_text(json.dumps({**about, "measured": rounds}, indent=1) + "\n", encoding="utf-8")
    text = markdown(about, rounds)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def markdown(about: dict[str, Any], rounds: list[dict[str, Any]]) -> str:
    one, two = ([entry[count] for entry in rounds] for count in ("1", "2"))
    beyond = [overheads(entry) for entry in one]
    lines = [
        "# Workers",
        "",
        f"{about['config']}: rows {about['rows']}, seeds {about['seeds']}, {one[0]['stages']} stages, "
        f"{about['rounds']} rounds, torch {about['torch']}. Median [range]. `workers.py` says how it is taken.",
        "",
        "| one worker | |",
        "|---|---|",
        f"| wall time, s | {told([entry['wall'] for entry in one])} |",
        f"| bare stages, s | {told([entry['bare'] for entry in one])} |",
        f"| handing over, s | {told([entry['handing'] for entry in beyond], 2)} |",
        f"| the command's start, the plan, the board, s | {told([entry['rest'] for entry in beyond], 2)} |",
        f"| overhead over the bare stages (target below {TARGET:.0%}) | {told([100 * e['share'] for e in beyond], 1)} % |",
        "",
        "| two workers | |",
        "|---|---|",
        f"| wall time, s | {told([entry['wall'] for entry in two])} |",
        f"| bare stages, s | {told([entry['bare'] for entry in two])} |",
        f"| times as fast as one | {told([a['wall'] / b['wall'] for a, b in zip(one, two, strict=True)], 2)} |",
    ]
    return "\n".join(lines) + "\n"


def told(values: list[float], digits: int = 0) -> str:
    """The median, and the range behind it."""
    return f"{median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


if __name__ == "__main__":
    main()
