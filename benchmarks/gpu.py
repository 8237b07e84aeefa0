"""What only a GPU can tell, in one go: layouts in bfloat16, speed against TRL at about 1 B parameters, the quickstart.

    python benchmarks/gpu.py                          # all of it; needs a CUDA device; writes results/gpu.json and gpu.md
    python benchmarks/gpu.py --parts equality speed   # a part alone
    python benchmarks/gpu.py --small --device cpu     # the same code on a small model anywhere, to see that it works

equality    gradient of one batch by each layout and by TRL, in bfloat16 with weights in float32, against the same gradient in
            float32. Rounding makes each differ from that; a layout may differ 1.5 times as much as expanded pairs do.
speed       seconds of a step and peak memory, m = 1 and 8, prompt 146 and responses 256 tokens (Nectar's averages): TRL's
            DPOTrainer on expanded pairs, which computes its reference in the loop; and our three layouts, the reference
            stored. Medians of --steps.
quickstart  `harness compare` of the packaged quickstart on the device, from an empty store: seconds, and that no row failed.

Weights are random: what is measured does not hang on what they say. Each side has the GPU to itself.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from gpu_sides import TRL, Step, model_config, reference_of
from sides import Case, relative_difference
from transformers import LlamaForCausalLM

from harness.training.layouts.choose import LayoutName

RESULTS = Path(__file__).parent / "results"
LAYOUTS: tuple[LayoutName, ...] = ("expanded", "unique", "shared_prefix")
WORSE = 1.5  # a layout's rounding error over that of expanded pairs, at most


def main() -> None:
    options = parse()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device is here: --small --device cpu shows that the code works, and measures nothing")
    found: dict[str, Any] = about(options)
    for part, run in (("equality", equality), ("speed", speed), ("quickstart", quickstart)):
        if part in options.parts:
            print(f"{part} …", flush=True)
            found[part] = run(options)
            write(found, options)  # after each part, so that a run cut short leaves what it has
    print(markdown(found))
    if not found.get("equality", {}).get("passed", True):
        sys.exit("a layout's gradient differs more than rounding explains")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["equality", "speed", "quickstart"])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--small", action="store_true", help="a model of under a million parameters, few and short tokens")
    parser.add_argument("--m", type=int, nargs="+", default=[1, 8], help="negatives per prompt")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each side, after two that are not")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def about(options: argparse.Namespace) -> dict[str, Any]:
    import transformers
    import trl

    device = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    with torch.device("meta"):
        parameters = LlamaForCausalLM(model_config(options)).num_parameters()
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "trl": trl.__version__}
    return {"device": device, "parameters": parameters, **versions}


def cases(options: argparse.Namespace) -> list[Case]:
    prompt, response = (20, 24) if options.small else (146, 256)
    return [Case(m, prompt, response, spread=0.3, prompts=2 if m == 1 else 1) for m in options.m]


def equality(options: argparse.Namespace) -> dict[str, Any]:
    """Per case: each side's loss, and how far its gradient is from the exact one."""
    rows, passed = [], True
    for case in cases(options):
        _, exact = Step(options, case, "expanded", "float32", reference_of(options, case, "float32")).gradient()
        reference = reference_of(options, case, "bfloat16")
        sides = {}
        for side in (*LAYOUTS, TRL):
            loss, gradient = Step(options, case, side, "bfloat16", reference).gradient()
            sides[side] = {"loss": loss, "error": relative_difference(gradient, exact)}
            free()
        most = WORSE * sides["expanded"]["error"] + 1e-6
        passed = passed and all(sides[layout]["error"] <= most for layout in LAYOUTS)
        rows.append({"m": case.m, "sides": sides})
    return {"passed": passed, "rows": rows}


def speed(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Per case and side: median seconds of a step, and peak memory where the device can tell."""
    rows = []
    for case in cases(options):
        reference = reference_of(options, case, "bfloat16")
        for side in (TRL, *LAYOUTS):
            free()
            step = Step(options, case, side, "bfloat16", reference)
            taken = [step.seconds() for _ in range(options.steps + 2)][2:]
            peak = torch.cuda.max_memory_allocated() / 2**30 if options.device == "cuda" else None
            rows.append({"m": case.m, "side": side, "seconds": median(taken), "peak_gib": peak})
            del step
    return rows


def quickstart(options: argparse.Namespace) -> dict[str, Any]:
    """The packaged quickstart from an empty store; of a small run, two rows of it."""
    with tempfile.TemporaryDirectory() as folder:
        few = ["--methods", "sft,dpo", "--seeds", "0", "--set", "budget.prompts=16", "--set", "source.sft=32"]
        command = [sys.executable, "-c", "from harness.cli import main; main()", "compare", "--out", f"{folder}/out"]
        began = time.perf_counter()
        done = subprocess.run([*command, "--store", f"{folder}/store", *(few if options.small else [])], capture_output=True)
        seconds = time.perf_counter() - began
        if done.returncode:
            return {"seconds": seconds, "failed": done.stderr.decode()[-2000:]}
        board = json.loads(Path(folder, "out", "board.json").read_text())
        return {"seconds": seconds, "rows": len(board["rows"]), "failed": [r["method"] for r in board["rows"] if "failed" in r]}


def free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def write(found: dict[str, Any], options: argparse.Namespace) -> None:
    name = "gpu-small" if options.small else "gpu"
    options.out.mkdir(exist_ok=True, parents=True)
    (options.out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.out / f"{name}.md").write_text(markdown(found))


def markdown(found: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {found[name]}" for name in ("torch", "transformers", "trl"))
    lines = ["# On a GPU", "", f"{found['device']}; a Llama of {found['parameters']:,} random parameters; {versions}.", ""]
    if "equality" in found:
        lines += ["| m | side | loss | gradient from the exact one |", "|---|---|---|---|"]
        for row in found["equality"]["rows"]:
            lines += [f"| {row['m']} | {side} | {v['loss']:.5f} | {v['error']:.2e} |" for side, v in row["sides"].items()]
        lines.append("")
    if "speed" in found:
        lines += ["| m | side | seconds a step | TRL over it | peak GiB |", "|---|---|---|---|---|"]
        theirs = {row["m"]: row["seconds"] for row in found["speed"] if row["side"] == TRL}
        for row in found["speed"]:
            peak = "" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}"
            ratio = theirs[row["m"]] / row["seconds"]
            lines.append(f"| {row['m']} | {row['side']} | {row['seconds']:.4f} | {ratio:.2f} | {peak} |")
        lines.append("")
    if "quickstart" in found:
        lines += [
            f"The quickstart took {found['quickstart']['seconds']:.0f} s; failed: {found['quickstart']['failed'] or 'nothing'}."
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
