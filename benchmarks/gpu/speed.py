"""Seconds, peak memory and utilisation of a training step at 1.14 B parameters: TRL's DPOTrainer against ours.

A step holds 16 pairs: 16 / m prompts with m rejected responses each, so that TRL computes as much at every m. All sides
multiply in bfloat16, read the reference from the batch, keep all activations and have a fused AdamW. Medians of --steps.

Ours attends by sdpa, and by every other `training.attention`, of which the fastest should become the default.

TRL takes expanded pairs, SDPA and its own fused head; beside that, Liger and FlashAttention 2 where they are installed,
and weights in bfloat16, which rounds updates (ours has such a row, too). TRL 1.16 has no padding-free DPO.

Utilisation: the floating-point operations that a side's tokens need, without padding, a second, over the rate of a large matrix
product. Of memory, what was allocated before is left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpu.models import Side
    from harness.training.batch import TokenGroup

PAIRS = 16  # of a step, at every m
WARM_UP = 2  # steps that are not timed


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    import torch

    from gpu.models import SHARED, TRL, UNIQUE, Side, Step, attempt, case, free, kernel_sides, model_config, referred

    cuda, config = options.device == "cuda", model_config(options)
    half = [Side("TRL, bfloat16 weights", weights=torch.bfloat16)]
    half.append(Side("shared_prefix, bfloat16 weights", "shared_prefix", torch.bfloat16))
    last = []
    if cuda and find_spec("flash_attn"):
        last.append(Side("TRL, FlashAttention 2", attention="flash_attention_2"))
    if cuda and find_spec("liger_kernel"):  # last of all: it replaces functions for the whole process
        last += [Side("TRL, Liger", liger=True), Side("shared_prefix, Liger", "shared_prefix", liger=True)]

    def measure(side: Side, groups: list[TokenGroup]) -> dict[str, Any]:
        free()
        before = torch.cuda.memory_allocated() if cuda else 0
        step = Step(options, side, groups)
        seconds = [step.take() for _ in range(WARM_UP + options.steps)][WARM_UP:]
        peak = round((torch.cuda.max_memory_allocated() - before) / 2**30, 2) if cuda else None
        work = work_of(groups, side.layout)
        return {"seconds": median(seconds), "peak_gib": peak, "tokens": work.tokens, "flops": work.flops(config)}

    cases = {m: referred(options, case(options, m, 1 if options.small else max(1, PAIRS // m)), "bfloat16") for m in options.m}
    for sides in (
        (TRL, UNIQUE, SHARED),
        kernel_sides(options),
        half,
        last,
    ):  # the pairs of figures that matter most, at every m, come first
        for m, groups in cases.items():
            for side in sides:
                yield attempt({"m": m, "side": side.name}, lambda side=side, groups=groups: measure(side, groups))


@dataclass(frozen=True)
class Work:
    """Tokens that a forward pass reads, pairs of a query and a key that it sees, and tokens whose logits it computes."""

    tokens: int
    seen: int
    scored: int

    def flops(self, config: Any) -> int:
        """Operations of forward and backward: 2 a weight and token, 4 a seen pair and channel; backward is twice forward."""
        width = config.hidden_size
        body = config.num_hidden_layers * (4 * width**2 + 3 * width * config.intermediate_size)
        attention = 4 * width * config.num_hidden_layers * self.seen
        return 3 * (2 * body * self.tokens + attention + 2 * width * config.vocab_size * self.scored)


def work_of(groups: list[TokenGroup], layout: str | None) -> Work:
    """The work of a layout, or of TRL (None), which takes the chosen response again for every rejected one."""
    tokens = seen = scored = 0
    for group in groups:
        prompt = len(group.prompts[""])
        chosen, *rejected = map(len, group.responses)
        responses = [chosen, *rejected] if layout in ("unique", "shared_prefix") else [chosen] * len(rejected) + rejected
        prompts = 1 if layout == "shared_prefix" else len(responses)
        tokens += prompts * prompt + sum(responses)
        seen += prompts * triangle(prompt) + sum(prompt * length + triangle(length) for length in responses)
        scored += sum(responses)
    return Work(tokens, seen, scored)


def triangle(length: int) -> int:
    """Pairs of a query and a key that is not after it."""
    return length * (length + 1) // 2


def report(rows: list[dict[str, Any]], machine: dict[str, Any]) -> list[str]:
    rate = machine.get("products_per_second")
    theirs: dict[int, float] = {}
    for row in rows:
        if row["side"].startswith("TRL") and "bfloat16" not in row["side"] and "seconds" in row:
            theirs[row["m"]] = min(row["seconds"], theirs.get(row["m"], row["seconds"]))
    lines = ["| m | side | tokens | seconds a step | TRL's fastest in float32 weights over it | peak GiB | utilisation |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: row["m"]):
        if "seconds" not in row:
            outcome = "out of memory" if row.get("out_of_memory") else "failed"
            lines.append(f"| {row['m']} | {row['side']} | | {outcome} | | | |")
            continue
        ratio = f"{theirs[row['m']] / row['seconds']:.2f}" if row["m"] in theirs else ""
        used = f"{row['flops'] / row['seconds'] / rate:.0%}" if rate else ""
        peak = "" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}"
        lines.append(f"| {row['m']} | {row['side']} | {row['tokens']} | {row['seconds']:.4f} | {ratio} | {peak} | {used} |")
    return lines
