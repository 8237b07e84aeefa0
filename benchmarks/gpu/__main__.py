"""Measure what only a GPU can tell, by one command on a machine with a GPU, PyTorch and transformers, and no network.

    make gpu-wheels                                # before, where there is a network: the missing packages into wheels/
    make gpu                                       # all parts; needs a CUDA device
    make gpu ARGS="--parts equality speed"         # some of them
    make gpu ARGS="--small --device cpu"           # the same code at a small size anywhere: shows that it works

Parts, the most valuable first; each module says what it measures:

machine     always: the card, driver, versions, and the rate of a large matrix product
equality    gradients of all layouts and of TRL in bfloat16 against float32; what precision does to scores
speed       seconds and memory of a step, TRL's DPOTrainer against ours, m = 1, 4, 8 and 16
generation  tokens a second of our transformers backend against `generate`, n = 32
quickstart  `harness compare` of the packaged quickstart
smollm2     `harness compare configs/smollm2.yaml`, where its weights and data are on the machine

A part is a process of its own with a time limit, and yields rows. After each row gpu.json and gpu.md in the folder `--out` are
written again, so that a killed run leaves what it has. Exit code 1: a part failed, a check did not hold, or time ran out.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).resolve().parent
# This package as `gpu`, and benchmarks/sides.py; not its modules by themselves, whose names are common ones.
sys.path = [str(FOLDER.parent), *(place for place in sys.path if place != str(FOLDER))]

from gpu import wheels  # noqa: E402

LIMITS = {"machine": 60, "equality": 90, "speed": 160, "generation": 90, "quickstart": 300, "smollm2": 240}  # seconds
TOTAL = 9 * 60 - 15  # seconds of the whole, installation included
Row = dict[str, Any]


def main() -> int:
    began, options = time.monotonic(), parse()
    if options.only:
        run_part(options)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that `finally` ends the part that runs
    environment, problems = wheels.prepare(options.device)
    results = Results(options, problems)
    for name in dict.fromkeys(["machine", *options.parts]):
        left = began + options.total - time.monotonic()
        print(f"{name} …", flush=True)
        if left < 1:
            results.end(name, 0.0, "not begun: the time was up")
            continue
        start = time.monotonic()
        error = supervise(name, results, environment, min(left, options.limit or LIMITS[name]))
        results.end(name, time.monotonic() - start, error)
        if name == "machine" and results.failures():
            break  # no device: the rest would fail one after the other
    print(results.markdown())
    return 1 if results.failures() else 0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=[*LIMITS], choices=[*LIMITS], metavar="PART")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--small", action="store_true", help="tiny models and few tokens")
    parser.add_argument("--m", type=int, nargs="+", help="negatives per prompt; default 1 4 8 16, and 2 where small")
    parser.add_argument("--steps", type=int, help="timed steps of a side, after two that are not; default 8, and 1 where small")
    parser.add_argument("--hh-rlhf", type=Path, help="harmless-base/test.jsonl.gz of Anthropic/hh-rlhf, for smollm2")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or FOLDER / "results"))
    parser.add_argument("--limit", type=float, help="seconds of each part; default: each has its own")
    parser.add_argument("--total", type=float, default=TOTAL, help=f"seconds of all parts; default {TOTAL}")
    parser.add_argument("--only", choices=[*LIMITS], help=argparse.SUPPRESS)  # this process is a part
    options = parser.parse_args(arguments)
    options.m = options.m or ([2] if options.small else [1, 4, 8, 16])
    options.steps = options.steps or (1 if options.small else 8)
    return options


def part(name: str) -> ModuleType:
    """The module of a part: `rows(options)` measures, and `report(rows, machine)` gives Markdown lines.

    Modules import torch only where they measure: this process reports, and leaves the GPU to the parts.
    """
    return importlib.import_module(f"gpu.{name}")


def run_part(options: argparse.Namespace) -> None:
    """Write each row of the part as a line of JSON to standard output; whatever else is printed goes to standard error."""
    with os.fdopen(os.dup(1), "w") as stream:
        os.dup2(2, 1)
        for row in part(options.only).rows(options):
            stream.write(json.dumps(row) + "\n")
            stream.flush()


def supervise(name: str, results: Results, environment: Mapping[str, str], limit: float) -> str | None:
    """Run a part as a process, and return why it is not whole, or None if it is."""
    log = results.options.out / f"{name}.log"
    command = [sys.executable, str(FOLDER), *sys.argv[1:], "--only", name]
    with log.open("wb") as stream:
        # In a session of its own, so that its children end with it.
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stream, env={**os.environ, **environment}, start_new_session=True
        )
        late = threading.Event()

        def end() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(limit, end)
        timer.start()
        code = 0
        try:
            assert process.stdout is not None
            for line in process.stdout:
                results.add(name, json.loads(line))
            code = process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if not log.stat().st_size:
        log.unlink()
    if late.is_set():
        return f"ended after {limit:g} s, its time limit"
    if code:
        return f"ended with code {code}: " + " | ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
    return None


class Results:
    """All rows so far, in gpu.json and gpu.md of the output folder."""

    def __init__(self, options: argparse.Namespace, problems: list[str]) -> None:
        self.options, self.problems = options, problems
        self.parts: dict[str, dict[str, Any]] = {}
        options.out.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, row: Row) -> None:
        self._part(name)["rows"].append(row)
        print(f"  {json.dumps(row)}", flush=True)
        self._write()

    def end(self, name: str, seconds: float, error: str | None) -> None:
        self._part(name).update(seconds=round(seconds, 1), error=error)
        print(f"  {seconds:.0f} s{f'; {error}' if error else ''}", flush=True)
        self._write()

    def failures(self) -> list[str]:
        """Sentences: parts that are not whole, rows that failed, and checks that did not hold."""
        failures = []
        for name, values in self.parts.items():
            failures += [f"{name}: {values['error']}"] if values["error"] else []
            failures += [f"{name}: {row['failed']}" for row in values["rows"] if row.get("failed")]
        return failures

    def markdown(self) -> str:
        size = "small, to see that it works: no measurement" if self.options.small else "full size"
        machine = next((row for row in self.parts.get("machine", {}).get("rows", [])), {})
        lines = ["# GPU kit", "", f"{machine.get('device', 'unknown device')}; {size}.", ""]
        for name, values in self.parts.items():
            lines += [f"## {name}", ""]
            try:
                lines += part(name).report(values["rows"], machine)
            except Exception as error:  # of a report only: the rows are in gpu.json
                lines.append(f"The report failed: {type(error).__name__}: {error}")
            lines.append("")
        if failures := [*self.problems, *self.failures()]:
            lines += ["## Problems", "", *(f"- {failure}" for failure in failures), ""]
        return "\n".join(lines)

    def _part(self, name: str) -> dict[str, Any]:
        return self.parts.setdefault(name, {"rows": [], "seconds": None, "error": None})

    def _write(self) -> None:
        content = {"small": self.options.small, "problems": self.problems, "parts": self.parts}
        (self.options.out / "gpu.json").write_text(json.dumps(content, indent=1) + "\n")
        (self.options.out / "gpu.md").write_text(self.markdown())


if __name__ == "__main__":
    sys.exit(main())
