"""The packaged quickstart on the device, from an empty store: seconds, and whether a row failed.

Its model is small, and a GPU waits for the process that drives it: so three runs share the store, one for each seed, and a last
one makes the board of all from it. A run that is cut off leaves how far it was.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

EVERY = 15.0  # seconds between two looks at the store
SMALL = [
    "--methods",
    "sft,dpo",
    "--set",
    "budget.prompts=8",
    "--set",
    "source.sft=16",
    "--set",
    "source.heldout=8",
    "--workers",
    "1",
]
COMMAND = [sys.executable, "-P", "-m", "harness", "compare"]


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    evaluators = ["gold_reward", "target_win_rate", "preference_accuracy", "response_stats", "lm_eval"]
    if options.small or find_spec("lm_eval") is None:
        evaluators = evaluators[:1] if options.small else evaluators[:-1]
        yield {"note": f"evaluators: {', '.join(evaluators)}"}
    extra = [*(SMALL if options.small else ()), "--set", f"evaluators=[{','.join(evaluators)}]"]
    yield from compare(extra, seeds=["0"] if options.small else ["0", "1", "2"])


def compare(extra: list[str], seeds: list[str]) -> Iterator[dict[str, Any]]:
    """Run `harness compare` for each seed at once, then for all; yield how far it is now and then, and the board's row last."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        store, began = Path(folder, "store"), time.monotonic()

        def start(name: str, chosen: list[str]) -> subprocess.Popen[bytes]:
            arguments = ["--out", f"{folder}/{name}", "--store", str(store), "--seeds", ",".join(chosen), *extra]
            return subprocess.Popen([*COMMAND, *arguments], stdin=subprocess.DEVNULL)

        def wait(runs: list[subprocess.Popen[bytes]]) -> Iterator[dict[str, Any]]:
            due = time.monotonic() + EVERY
            while any(run.poll() is None for run in runs):
                time.sleep(0.2)
                if time.monotonic() > due:
                    due += EVERY
                    yield {"seconds": round(time.monotonic() - began, 1), "artifacts": artifacts(store)}

        if len(seeds) > 1:
            yield from wait([start(f"seed-{seed}", [seed]) for seed in seeds])
        last = start("all", seeds)
        yield from wait([last])
        row: dict[str, Any] = {"seconds": round(time.monotonic() - began, 1), "artifacts": artifacts(store)}
        board = Path(folder, "all", "board.json")
        if not board.is_file():
            yield row | {"failed": f"harness compare ended with code {last.returncode} and no board"}
            return
        entries = json.loads(board.read_text())["rows"]
        failed = [f"{entry['method']}: {entry['failed']}" for entry in entries if entry.get("failed")]
        yield row | {"rows": len(entries), **({"failed": "; ".join(failed)} if failed or last.returncode else {})}


def artifacts(store: Path) -> int:
    return sum(1 for _ in store.glob("index/*/*"))


def report(rows: list[dict[str, Any]], machine: dict[str, Any]) -> list[str]:
    lines = [row[name] for row in rows for name in ("note", "skipped") if name in row]
    timed = [row for row in rows if "seconds" in row]
    if timed:
        last = timed[-1]
        whole = f"the board has {last['rows']} rows" if "rows" in last else "no board"
        lines.append(f"{last['artifacts']} artifacts after {last['seconds']:.0f} s; {whole}.")
    return lines
