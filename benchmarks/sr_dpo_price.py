"""What Sr-DPO's refinement costs: one step of it against one step of DPO, side by side in one run.

    python benchmarks/sr_dpo_price.py            # 146/256 tokens, the prompt augmented by 96, 7 interleaved rounds
    python benchmarks/sr_dpo_price.py --quick    # short sequences, two rounds, to see that it works

A step is collation, loss, backward and AdamW on the same groups, of one model. The price is seconds over those of DPO with
padded rows and a stored reference (1.00), within a round. Variants:

    dpo                padded rows, reference stored: the unit
    dpo shared         the shared-prefix layout, reference stored
    naive              Sr-DPO on padded rows, the augmented prompt by a second policy pass, both references in the loop
    stored             the same with both references stored
    shared             ours: the shared-prefix layout for both passes, references stored

The three variants of Sr-DPO give one loss and one gradient, which is checked before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import cast

import torch
from sides import VOCABULARY, Case, Side, build_model, relative_difference

from harness.api.interfaces import Objective
from harness.training.batch import PLAIN, TokenGroup, cut_groups, group_logps
from harness.training.layouts.choose import LayoutName, choose_layout
from harness.training.layouts.layout import score_bundles
from harness.training.reduction import Totals, reduce_loss
from harness_plugins.baselines.dpo import DPO
from harness_plugins.self_refined.refinement import AUGMENTED
from harness_plugins.self_refined.sr_dpo import SrDPO

RESULTS = Path(__file__).parent / "results"
UNIT = "dpo"
MARGIN = 1e-4  # relative; more than this apart, and the variants compute different things


@dataclass(frozen=True)
class Variant:
    """An objective, a layout, and whether the reference is stored."""

    objective: Objective
    layout: LayoutName
    stored: bool = True


VARIANTS = {
    UNIT: Variant(DPO(), "unique"),
    "dpo shared": Variant(DPO(), "shared_prefix"),
    "naive": Variant(SrDPO(), "unique", stored=False),
    "stored": Variant(SrDPO(), "unique"),
    "shared": Variant(SrDPO(), "shared_prefix"),
}


class Step(Side):
    """One variant's step, by the trainer's own functions."""

    def __init__(self, case: Case, augmented: int, variant: Variant) -> None:
        super().__init__(case)
        words = random.Random(1).choices(range(10, VOCABULARY), k=augmented)
        self.groups = [
            replace(group, prompts={**group.prompts, AUGMENTED: (*words, *group.prompts[PLAIN])}) for group in self.groups
        ]
        self.variant = variant
        self.model = build_model().train()
        self.reference = build_model(1).eval()
        self.layout = choose_layout(self.model, variant.layout)
        choose_layout(self.reference, variant.layout)
        self.views = (PLAIN, *variant.objective.views())
        self.tokens = sum(self.layout.tokens([group.bundle(view) for group in self.groups]) for view in self.views)
        if variant.stored:
            self.groups = self._referred()

    def _referred(self) -> list[TokenGroup]:
        scores = {
            view: score_bundles(self.reference, [group.bundle(view) for group in self.groups], self.layout)
            for view in self.views
        }
        return [
            replace(group, reference={view: tuple(rows[index]) for view, rows in scores.items()})
            for index, group in enumerate(self.groups)
        ]

    def loss_and_backward(self) -> float:
        groups = self.groups if self.variant.stored else self._referred()
        objective, totals, value = self.variant.objective, Totals.of(groups), 0.0
        for micro in cut_groups(groups, 8192, self.layout):
            logps = group_logps(self.model, micro, objective, layout=self.layout)
            share = reduce_loss(objective.loss(logps), logps, objective, totals)
            share.backward()  # type: ignore[no-untyped-call]
            value += float(share.detach())
        return value


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    prompt, response = map(int, options.lengths.split("/"))
    case = Case(options.m, prompt, response, prompts=options.prompts)
    steps = {name: Step(case, options.augmented, variant) for name, variant in VARIANTS.items()}
    equality = compare(steps)
    for step in steps.values():
        step.step()  # warm-up: the optimiser's state, allocations
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(options.rounds):
        for name in list(steps)[:: -1 if number % 2 else 1]:
            seconds[name].append(steps[name].step())
    write(case, options, {name: step.tokens for name, step in steps.items()}, seconds, equality)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--m", type=int, default=1, help="negatives per prompt")
    parser.add_argument("--lengths", default="146/256", help="tokens of prompt/response")
    parser.add_argument("--augmented", type=int, default=96, help="tokens that the view puts before the prompt")
    parser.add_argument("--prompts", type=int, default=2, help="per step")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="16/24 tokens, two rounds; writes sr_dpo_price-quick")
    options = parser.parse_args()
    if options.quick:
        options.lengths, options.augmented, options.rounds = "16/24", 8, 2
    return options


def compare(steps: dict[str, Step]) -> dict[str, dict[str, float]]:
    """Relative differences in loss and gradient of the variants of one objective from its first."""
    differences: dict[str, dict[str, float]] = {}
    for first, *rest in (["dpo", "dpo shared"], ["naive", "stored", "shared"]):
        loss, gradient = steps[first].gradient()
        for name in rest:
            other_loss, other = steps[name].gradient()
            found = {"loss": abs(other_loss - loss) / abs(loss), "gradient": relative_difference(other, gradient)}
            if max(found.values()) > MARGIN:
                sys.exit(f"{name} and {first} do not compute the same: {found}")
            differences[name] = found
    return differences


def write(
    case: Case,
    options: argparse.Namespace,
    tokens: dict[str, int],
    seconds: dict[str, list[float]],
    equality: dict[str, dict[str, float]],
) -> None:
    """The numbers as JSON, and a table of them as Markdown."""
    import transformers

    name = "sr_dpo_price-quick" if options.quick else "sr_dpo_price"
    about = {
        "model": "Llama, 8.4 M parameters, float32, vocabulary 4096, no gradient checkpointing",
        "case": asdict(case),
        "augmented": options.augmented,
        "threads": options.threads,
        "rounds": options.rounds,
        "torch": cast(str, torch.__version__),
        "transformers": transformers.__version__,
    }
    RESULTS.mkdir(exist_ok=True)
    found = {**about, "tokens": tokens, "equality": equality, "seconds": seconds}
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    lines = [
        "# What Sr-DPO's refinement costs",
        "",
        f"Prompt {case.prompt}, response {case.response}, the view {options.augmented} tokens longer, m = {case.m}, "
        f"{case.prompts} prompts a step; {about['model']}; {options.threads} thread, {options.rounds} interleaved rounds.",
        "Price: seconds over those of DPO with padded rows and a stored reference, within a round, median [range].",
        "",
        "| variant | tokens of policy passes | seconds | price |",
        "|---|---|---|---|",
    ]
    for variant, own in seconds.items():
        prices = [one / unit for one, unit in zip(own, seconds[UNIT], strict=True)]
        price = f"{median(prices):.2f} [{min(prices):.2f}, {max(prices):.2f}]"
        lines.append(f"| {variant} | {tokens[variant]} | {median(own):.3f} | {price} |")
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
