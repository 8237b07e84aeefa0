"""`harness sandbox`: the embedded world, to look at and to make again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import JsonOption

app = typer.Typer(help="The embedded world: look at it, mark an answer, train its base model again.", no_args_is_help=True)


@app.command(epilog="Example: harness sandbox show --count 3 --split heldout")
def show(
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many examples.")] = 3,
    split: Annotated[str, typer.Option(help="sft, train, tuning or heldout.")] = "train",
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    json_: JsonOption = False,
) -> None:
    """Show questions with target, preference pair and gold reward."""
    from harness.errors import HarnessError, did_you_mean
    from harness.sandbox import build_dataset, marks
    from harness.types import Response

    splits = ("sft", "train", "tuning", "heldout")
    if split not in splits:
        raise HarnessError(f"--split {split!r}: {did_you_mean(split, splits)}")
    examples = build_dataset({split: count}, 0.12, seed)[split]  # type: ignore[dict-item, index]
    for example in examples:
        answers = {"target": example.target or "", "preferred": example.ranked[0], "other": example.ranked[1]}
        golds = {name: round(marks(example, Response(text))["total"], 2) for name, text in answers.items()}
        if json_:
            typer.echo(json.dumps({"prompt": example.prompt.text, "answers": answers, "gold": golds}))
            continue
        typer.echo(example.prompt.text)
        for name, text in answers.items():
            typer.echo(f"  {name:<10}{golds[name]:>5.2f}  {text}")
        typer.echo("")


@app.command(epilog='Example: harness sandbox mark "name two fruits but not apple . answer separated by commas ." "sure ! pear , plum"')
def mark(question: Annotated[str, typer.Argument(help="A question of the sandbox, as `show` prints it.")], answer: str, json_: JsonOption = False) -> None:
    """Mark an answer to one of the questions that `show` prints."""
    from dataclasses import asdict

    from harness.errors import HarnessError
    from harness.sandbox import gold, tasks

    task = tasks.find_task(question)
    if task is None:
        raise HarnessError(f"no question of the sandbox reads {question!r}: take one from `harness sandbox show`")
    result = gold.mark(task, answer)
    if json_:
        typer.echo(json.dumps(asdict(result)))
        return
    typer.echo(f"gold {result.total:.2f} of 10: chosen {result.chosen:.2f}, known {result.known:.2f}")
    for name, share in result.shares.items():
        typer.echo(f"  {name:<15}{share:.2f}")


@app.command(epilog="Example: harness sandbox train --out /tmp/base --steps 2000")
def train(
    out: Annotated[Path, typer.Option(help="Where to write the checkpoint.")] = Path("runs/sandbox-base"),
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps; the shipped recipe's if absent.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Of data and weights; the shipped recipe's if absent.", show_default=False)] = None,
) -> None:
    """Train the sandbox's base model again, by the shipped recipe (about an hour on one core)."""
    import sys
    from dataclasses import replace

    from harness.sandbox.pretrain import Recipe, train_base

    recipe = Recipe()
    recipe = replace(recipe, steps=steps or recipe.steps, seed=recipe.seed if seed is None else seed)
    watching = sys.stderr.isatty()

    def report(step: int, loss: float, seconds: float) -> None:
        left = seconds / step * (recipe.steps - step) / 60
        if watching:
            typer.echo(f"\rstep {step:,} of {recipe.steps:,} · loss {loss:.3f} · about {left:.0f} min left ", nl=False, err=True)

    import torch

    torch.set_num_threads(1)
    train_base(recipe, out, report)
    typer.echo(f"\nwritten to {out}; use it with: harness compare --set model.path={out}")
