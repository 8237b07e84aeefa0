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
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
from sides import BETA, Case, pairs_of, relative_difference, trl_trainer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from harness.training.batch import PLAIN, TokenGroup, cut_groups, group_logps
from harness.training.layouts.choose import LayoutName, choose_layout
from harness.training.layouts.layout import score_bundles
from harness.training.layouts.padded import UniqueRows
from harness.training.precision import autocast
from harness.training.reduction import Totals, reduce_loss
from harness_plugins.baselines.dpo import DPO

RESULTS = Path(__file__).parent / "results"
LAYOUTS: tuple[LayoutName, ...] = ("expanded", "unique", "shared_prefix")
TRL = "trl"
WORSE = 1.5  # a layout's rounding error over that of expanded pairs, at most
SIZES = {
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
    "small": {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "num_attention_heads": 4},
}
Gradient = dict[str, Tensor]


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
        parameters = LlamaForCausalLM(_config(options)).num_parameters()
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "trl": trl.__version__}
    return {"device": device, "parameters": parameters, **versions}


def cases(options: argparse.Namespace) -> list[Case]:
    prompt, response = (20, 24) if options.small else (146, 256)
    return [Case(m, prompt, response, spread=0.3, prompts=2 if m == 1 else 1) for m in options.m]


def build(options: argparse.Namespace, seed: int) -> PreTrainedModel:
    """The policy (seed 0) or its reference (seed 1): weights in float32, on the device."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(_config(options)).to(options.device)


def _config(options: argparse.Namespace) -> LlamaConfig:
    sizes = SIZES["small" if options.small else "1b"]
    words = 4096 if options.small else 32768
    return LlamaConfig(vocab_size=words, num_key_value_heads=sizes["num_attention_heads"], tie_word_embeddings=True, **sizes)


class Step:
    """One side's batch and model.

    Args:
        side: a layout, or TRL.
        reference: the groups' responses under the reference, one row each; TRL computes its own.
    """

    def __init__(
        self, options: argparse.Namespace, case: Case, side: str, precision: str, reference: list[list[float]]
    ) -> None:
        self.precision, self.groups, self.trainer = precision, referred(case.groups(), reference), None
        self.model = build(options, 0)
        if side == TRL:
            self.pairs, cpu = pairs_of(self.groups), options.device == "cpu"
            with tempfile.TemporaryDirectory() as folder:
                self.trainer = trl_trainer(self.pairs, folder, self.model, build(options, 1), cpu=cpu)
            self.model = self.trainer.model
        else:
            self.layout = choose_layout(self.model, cast(LayoutName, side))
        self.model.train()
        self.optimizer: torch.optim.Optimizer | None = None

    def backward(self) -> float:
        """Loss and backward, as the trainers do them; the loss."""
        if self.trainer is not None:
            batch = {name: value.to(self.model.device) for name, value in self.trainer.data_collator(self.pairs).items()}
            with autocast(self.model, self.precision):
                loss = self.trainer.compute_loss(self.model, batch)
            loss.backward()
            return float(loss.detach())
        objective, totals, value = DPO(beta=BETA), Totals.of(self.groups), 0.0
        for micro in cut_groups(self.groups, 16384, self.layout):
            with autocast(self.model, self.precision):
                logps = group_logps(self.model, micro, objective, layout=self.layout)
            share = reduce_loss(objective.loss(logps), logps, objective, totals)
            share.backward()  # type: ignore[no-untyped-call]
            value += float(share.detach())
        return value

    def gradient(self) -> tuple[float, Gradient]:
        loss = self.backward()
        return loss, {name: p.grad.detach().cpu() for name, p in self.model.named_parameters() if p.grad is not None}

    def seconds(self) -> float:
        """Of one whole step; what the device still has to do is waited for."""
        self.optimizer = self.optimizer or torch.optim.AdamW(self.model.parameters(), lr=1e-6)
        wait(self.model)
        began = time.perf_counter()
        self.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        wait(self.model)
        return time.perf_counter() - began


def referred(groups: list[TokenGroup], reference: list[list[float]]) -> list[TokenGroup]:
    return [replace(group, reference={PLAIN: tuple(row)}) for group, row in zip(groups, reference, strict=True)]


def reference_of(options: argparse.Namespace, case: Case, precision: str) -> list[list[float]]:
    model = build(options, 1).eval()
    with autocast(model, precision):
        return [list(row) for row in score_bundles(model, [group.bundle() for group in case.groups()], UniqueRows())]


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


def wait(model: PreTrainedModel) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize()


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
