"""Compare gradients of all layouts in bfloat16, and the precisions of scores by a small update.

Gradients: of one batch by each layout and by TRL, with products in bfloat16 and weights in float32, against expanded pairs in
float32. Rounding makes each differ from that; a layout may differ 1.5 times as much as expanded pairs do.

Scores: how log-probabilities of 16 responses change by one step of DPO at a learning rate of 1e-6, by float64, against the same
change as other precisions see it. The harness scores in float32 without TF32: its error must stay below a tenth of the change.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from gpu.models import Side

WORSE = 1.5  # a layout's rounding error over that of expanded pairs, at most
SCORED = 0.1  # error of the harness's scores over the change, at most


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for m in (options.m[0], 8) if len(options.m) > 1 else options.m:
        yield from gradients(options, m)
    yield from scores(options)


def gradients(options: argparse.Namespace, m: int) -> Iterator[dict[str, Any]]:
    from sides import relative_difference

    from gpu.models import EXPANDED, SHARED, TRL, UNIQUE, Step, attempt, case, kernel_sides, referred

    batch = case(options, m, prompts=2 if m == 1 else 1)
    _, exact = Step(options, EXPANDED, referred(options, batch, "float32"), "float32").gradient()
    groups = referred(options, batch, "bfloat16")

    def measure(side: Side) -> dict[str, Any]:
        loss, gradient = Step(options, side, groups).gradient()
        return {"loss": loss, "error": relative_difference(gradient, exact)}

    bound = None
    for side in (EXPANDED, UNIQUE, SHARED, *kernel_sides(options), TRL):
        row = attempt({"m": m, "side": side.name}, lambda side=side: measure(side))
        if side is EXPANDED:
            bound = WORSE * row.get("error", 0.0) + 1e-6
        # Not `>`, so that a NaN is seen.
        elif side is not TRL and "error" in row and not row["error"] <= bound:
            row["failed"] = (
                f"m = {m}: the gradient of {side.name} is {row['error']:.2e} from the exact one; at most {bound:.2e}"
            )
        yield row


def scores(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from gpu.models import SHARED, Step, attempt, case, referred
    from harness.models.logps import TokenRow

    groups = referred(options, case(options, m=1, prompts=8), "bfloat16")
    responses = [TokenRow(row.prompt, row.response) for group in groups for row in group.rows()]
    ways = precisions(options.device)
    step = Step(options, SHARED, groups)
    before = {name: attempt({}, lambda way=way: {"values": way(step.model, responses)}) for name, way in ways.items()}
    step.take()
    step.optimizer = None  # two thirds of the memory of a training
    exact = None
    for name, way in ways.items():
        row = attempt(
            {"scored in": name}, lambda name=name, way=way: {"change": way(step.model, responses) - before[name]["values"]}
        )
        change = row.pop("change", None)
        if exact is None:
            if change is None:  # nothing to compare with
                yield row
                return
            exact, row["root mean square"] = change, float(change.square().mean().sqrt())
        if change is not None:
            row["error"] = float((change - exact).norm() / exact.norm())
            row["right signs"] = float((change.sign() == exact.sign()).double().mean())
        # Not `>`, so that a NaN is seen.
        if name == "float32" and "error" in row and not row["error"] <= SCORED:
            row["failed"] = f"scores in float32 are off by {row['error']:.2f} of the change that a step makes; at most {SCORED}"
        yield row


def precisions(device: str) -> dict[str, Callable[..., Any]]:
    """Ways to score rows with a model: log-probabilities [N], float64, on the CPU. The exact one first."""
    from copy import deepcopy

    import torch

    from harness.models.logps import response_logps, score

    def plain(model: Any, rows: Any) -> Tensor:
        with torch.inference_mode():
            return response_logps(model.eval(), rows).double().cpu()

    def double(model: Any, rows: Any) -> Tensor:
        return plain(exact_norms(deepcopy(model).double()), rows)

    def single(model: Any, rows: Any) -> Tensor:
        return torch.tensor(score(model.eval(), rows), dtype=torch.float64)

    def tf32(model: Any, rows: Any) -> Tensor:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            return plain(model, rows)
        finally:
            torch.set_float32_matmul_precision(before)

    def mixed(model: Any, rows: Any) -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16):
            return plain(model, rows)

    def rounded(model: Any, rows: Any) -> Tensor:
        return plain(deepcopy(model).bfloat16(), rows)

    ways = {"float64": double, "float32": single, "bfloat16 products": mixed, "bfloat16 weights": rounded}
    return {**ways, "TF32": tf32} if device == "cuda" else ways


def exact_norms(model: Any) -> Any:
    """The model with RMS norms in its own type: transformers computes them in float32, whatever the weights are."""
    import torch

    def forward(module: Any, hidden: Tensor) -> Tensor:
        return module.weight * hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + module.variance_epsilon)

    for module in model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = forward.__get__(module)
    return model


def report(rows: list[dict[str, Any]], machine: dict[str, Any]) -> list[str]:
    lines = ["| m | side | loss | gradient from the exact one |", "|---|---|---|---|"]
    for row in rows:
        if "side" in row:
            numbers = f"{row['loss']:.5f} | {row['error']:.2e}" if "error" in row else "failed | "
            lines.append(f"| {row['m']} | {row['side']} | {numbers} |")
    lines += ["", "| scored in | error over the change | signs that are right |", "|---|---|---|"]
    for row in rows:
        if "scored in" in row:
            numbers = f"{row['error']:.2e} | {row['right signs']:.0%}" if "error" in row else "failed | "
            lines.append(f"| {row['scored in']} | {numbers} |")
    return lines
