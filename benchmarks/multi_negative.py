"""One prompt with m negatives: TRL's DPOTrainer on the expanded pairs against our layouts, side by side in one run.

    python benchmarks/multi_negative.py                 # all cases, at least 5 interleaved rounds each
    python benchmarks/multi_negative.py --stored        # and the regime in which ours finds its reference in the store
    python benchmarks/multi_negative.py --quick         # one small case, to see that it works

A step is collation, loss, backward and AdamW on one batch of one prompt (two at m = 1), the same token ids on both sides; its
loss and gradient are compared before anything is timed. In each round every variant runs one step, in turn and every other
round backwards; a ratio is taken within a round. Regimes:

    fly           TRL computes the reference in the loop, ours in its one pass over unique responses, charged to it
    stored        TRL computes the reference in the loop, ours finds it in the store (a second method on the same data)
    precomputed   both find it stored

Peak memory is of a fresh process per variant: the high-water mark of its resident set above what it held before its steps.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from sides import Case, Ours, Side, Theirs, relative_difference

LAYOUTS = ("unique", "shared_prefix")
RESULTS = Path(__file__).parent / "results"
MARGINS = {"loss": 1e-4, "gradient": 1e-4}  # more than this apart, and the comparison is of different things


def main() -> None:
    options = parse()
    if options.memory:
        print(json.dumps(peak_memory(Case(**json.loads(options.case)), options.memory, options.threads)))
        return
    import torch

    torch.set_num_threads(options.threads)
    measured = []
    for case in cases(options):
        print(f"{case.label} …", flush=True)
        measured.append(measure(case, options))
        write(measured, options)  # after each case, so that a run cut short leaves what it has


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--m", type=int, nargs="+", default=[1, 4, 8, 16], help="negatives per prompt")
    parser.add_argument("--lengths", nargs="+", default=["146/256", "64/64"], help="tokens of prompt/response")
    parser.add_argument("--spread", type=float, default=0.0, help="lengths vary by so much, e.g. 0.4")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds per case")
    parser.add_argument("--regimes", nargs="+", default=["fly", "precomputed"], choices=["fly", "stored", "precomputed"])
    parser.add_argument("--stored", action="store_true", help="add the regime `stored`")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="m = 4 at 64/64, two rounds; writes multi_negative-quick")
    parser.add_argument("--name", default="multi_negative", help="of the files in results/")
    parser.add_argument("--memory", help=argparse.SUPPRESS)  # the variant that this process measures
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.m, options.lengths, options.rounds = [4], ["64/64"], 2
    if options.stored and "stored" not in options.regimes:
        options.regimes.append("stored")
    return options


def cases(options: argparse.Namespace) -> list[Case]:
    found = []
    for lengths in options.lengths:
        prompt, response = map(int, lengths.split("/"))
        found += [Case(m, prompt, response, options.spread, prompts=2 if m == 1 else 1) for m in options.m]
    return found


def variants(case: Case, regimes: list[str]) -> dict[str, Side]:
    """Every side that the regimes need, by name; ours are `layout` (reference stored) and `layout+reference`."""
    sides: dict[str, Side] = {}
    if {"fly", "stored"} & set(regimes):
        sides["trl"] = Theirs(case, precomputed=False)
    if "precomputed" in regimes:
        sides["trl precomputed"] = Theirs(case, precomputed=True)
    for layout in LAYOUTS:
        if "fly" in regimes:
            sides[f"{layout}+reference"] = Ours(case, layout, stored=False)
        if {"stored", "precomputed"} & set(regimes):
            sides[layout] = Ours(case, layout, stored=True)
    return sides


def measure(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """One case: equality first, then rounds, then memory."""
    sides = variants(case, options.regimes)
    equality = compare(sides)
    for side in sides.values():
        side.step()  # warm-up: the optimiser's state, allocations
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(options.rounds):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            seconds[name].append(sides[name].step())
    tokens = {name: side.tokens for name, side in sides.items()}
    del sides
    memory = {name: child(case, name, options.threads) for name in seconds}
    return {
        "case": asdict(case),
        "tokens": tokens,
        "equality": equality,
        "seconds": seconds,
        "speedups": speedups(seconds, options.regimes),
        "memory": memory,
    }


def compare(sides: dict[str, Side]) -> dict[str, dict[str, float]]:
    """Relative differences of loss and gradient from the first of TRL's sides."""
    (first, *rest), differences = list(sides), {}
    loss, gradient = sides[first].gradient()
    for name in rest:
        other_loss, other = sides[name].gradient()
        found = {"loss": abs(other_loss - loss) / abs(loss), "gradient": relative_difference(other, gradient)}
        if any(found[key] > margin for key, margin in MARGINS.items()):
            sys.exit(f"{name} and {first} do not compute the same: {found}")
        differences[name] = found
    return differences


def speedups(seconds: dict[str, list[float]], regimes: list[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Regime -> layout -> median and range over rounds of TRL's seconds over ours."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for regime in regimes:
        theirs = seconds["trl precomputed" if regime == "precomputed" else "trl"]
        table[regime] = {}
        for layout in LAYOUTS:
            ours = seconds[f"{layout}+reference" if regime == "fly" else layout]
            ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
            table[regime][layout] = {"median": median(ratios), "low": min(ratios), "high": max(ratios)}
    return table


def child(case: Case, variant: str, threads: int) -> dict[str, float]:
    """`peak_memory` in a process of its own."""
    arguments = ["--memory", variant, "--case", json.dumps(asdict(case)), "--threads", str(threads)]
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the memory measurement of {variant} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def peak_memory(case: Case, variant: str, threads: int) -> dict[str, float]:
    """MiB of this process: held before the steps, and the peak over two of them above that."""
    import torch

    torch.set_num_threads(threads)
    regime = "precomputed" if variant == "trl precomputed" else "fly"
    layout, _, charged = variant.partition("+")
    side = Theirs(case, regime == "precomputed") if variant.startswith("trl") else Ours(case, layout, stored=not charged)
    base = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again here
    side.step()
    side.step()
    peak = _status("VmHWM")
    return {"base_mib": base, "peak_mib": peak, "above_base_mib": peak - base}


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def write(measured: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """The numbers as JSON, and a table of them as Markdown."""
    import torch
    import transformers
    import trl

    RESULTS.mkdir(exist_ok=True)
    name = "multi_negative-quick" if options.quick else options.name
    about = {
        "model": "Llama, 8.4 M parameters, float32, vocabulary 4096, no gradient checkpointing",
        "threads": options.threads,
        "rounds": options.rounds,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": trl.__version__,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps({**about, "cases": measured}, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(markdown(about, measured))
    print(markdown(about, measured))


def markdown(about: dict[str, Any], measured: list[dict[str, Any]]) -> str:
    lines = ["# m negatives per prompt: TRL's DPOTrainer on expanded pairs against our layouts", ""]
    lines += [", ".join(f"{key} {value}" if key != "model" else str(value) for key, value in about.items()) + ".", ""]
    lines += [
        "Tokens and seconds are of one prompt. Speedup is TRL's seconds over ours within a round, median [range]. Memory is",
        "the peak of a step (two prompts at m = 1, else one) above what the process held before. Regimes and method: see",
        "`multi_negative.py`.",
        "",
        "| prompt/response | m | regime | layout | tokens TRL / ours | seconds TRL / ours | speedup | MiB TRL / ours |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in measured:
        case = row["case"]
        for regime, layouts in row["speedups"].items():
            theirs = "trl precomputed" if regime == "precomputed" else "trl"
            for layout, ratio in layouts.items():
                ours = f"{layout}+reference" if regime == "fly" else layout
                pairs = [" / ".join(f"{row['tokens'][side] / case['prompts']:.0f}" for side in (theirs, ours))]
                pairs.append(" / ".join(f"{median(row['seconds'][side]) / case['prompts']:.3f}" for side in (theirs, ours)))
                pairs.append(f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]")
                pairs.append(" / ".join(f"{row['memory'][side]['above_base_mib']:.0f}" for side in (theirs, ours)))
                lines.append(
                    f"| {case['prompt']}/{case['response']} | {case['m']} | {regime} | {layout} | {' | '.join(pairs)} |"
                )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
