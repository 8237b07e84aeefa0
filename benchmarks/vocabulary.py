"""A large vocabulary: logits whole against logits in chunks, by each layout; peak memory and seconds of a step.

    python benchmarks/vocabulary.py            # vocabulary 128,000
    python benchmarks/vocabulary.py --small    # the sandbox's vocabulary and sizes, where chunks must cost nothing

Each measurement is a process of its own: the high-water mark of its resident set above what it held before its steps, and the
median seconds of its steps after the first. Processes of a pair run in turn, so that a busy machine disturbs both alike. Loss
and gradient of the two are compared by the tests (tests/training/test_layouts.py), not here.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from harness.models.logps import Head
from harness.training.batch import PLAIN, TokenGroup, group_logps
from harness.training.layouts.attention import install
from harness.training.layouts.padded import UniqueRows
from harness.training.layouts.shared_prefix import SharedPrefix
from harness_plugins.only_prompting.simpo import SimPO

LARGE = {"vocab_size": 128_000, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL = {"vocab_size": 420, "hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 4, "num_attention_heads": 4}
HEADS = {"whole": Head(), "chunks": Head(chunked=True)}


def main() -> None:
    options = parse()
    if options.one:
        print(json.dumps(measure(*options.one.split("/"), options.small)))
        return
    for layout in ("unique", "shared_prefix"):
        runs: dict[str, list[dict[str, float]]] = {"whole": [], "chunks": []}
        for number in range(options.rounds):
            for head in list(runs)[:: -1 if number % 2 else 1]:
                runs[head].append(child(f"{layout}/{head}", options.small))
        ratios = {
            name: [after[name] / before[name] for before, after in zip(runs["whole"], runs["chunks"], strict=True)]
            for name in ("mib", "seconds")
        }
        for head, found in runs.items():
            print(f"{layout} {head}: {median(r['mib'] for r in found):.0f} MiB, {median(r['seconds'] for r in found):.4f} s")
        for name, values in ratios.items():
            print(f"{layout} {name}, chunks over whole: {median(values):.3f} [{min(values):.3f}, {max(values):.3f}]")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--small", action="store_true", help="the sandbox's vocabulary instead of 128,000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", help=argparse.SUPPRESS)  # layout/head that this process measures
    return parser.parse_args()


def child(name: str, small: bool) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", name, *(["--small"] if small else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the measurement of {name} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(layout_name: str, head_name: str, small: bool) -> dict[str, float]:
    """Steps of SimPO, which needs no reference, on groups of four negatives."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**(SMALL if small else LARGE))).train()
    head = HEADS[head_name]
    layout = SharedPrefix(head) if layout_name == "shared_prefix" else UniqueRows(head=head)
    if layout_name == "shared_prefix":
        install(model)
    rng = random.Random(0)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(rng.choices(range(3, 400), k=length))

    groups = [TokenGroup({PLAIN: ids(16)}, tuple(ids(24) for _ in range(5))) for _ in range(16)]
    base, objective, seconds = _status("VmRSS"), SimPO(), []
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again here
    for _ in range(20 if small else 3):
        start = time.perf_counter()
        logps = group_logps(model, groups, objective, layout=layout)
        objective.loss(logps).per_pair.mean().backward()  # type: ignore[union-attr]
        model.zero_grad()
        seconds.append(time.perf_counter() - start)
    return {"mib": _status("VmHWM") - base, "seconds": median(seconds[1:])}


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


if __name__ == "__main__":
    main()
