"""`harness sandbox`: show the embedded world, mark answers, train and measure its models, serve its judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import JsonOption

if TYPE_CHECKING:
    from harness.sandbox.tasks import Task

LABEL_NOISE = 0.12
MOST_SHOWN = 1000
SPLITS = ("sft", "train", "tuning", "heldout")

app = typer.Typer(
    help="The embedded world: show it, mark an answer, train its base model again.",
    no_args_is_help=True,
    epilog="Example: harness sandbox show --count 3",
)


@app.command(epilog="Example: harness sandbox show --count 3 --split heldout")
def show(
    count: Annotated[int, typer.Option(min=1, max=MOST_SHOWN, help="Number of examples.")] = 3,
    split: Annotated[str, typer.Option(help="sft, train, tuning or heldout.")] = "train",
    seed: Annotated[int, typer.Option(help="Seed of the data.")] = 0,
    json_: JsonOption = False,
) -> None:
    """Show questions with target, preference pair and gold reward."""
    from harness.api.types import Response
    from harness.errors import HarnessError, did_you_mean
    from harness.sandbox import build_dataset, marks

    if split not in SPLITS:
        raise HarnessError(f"--split {split!r}: {did_you_mean(split, SPLITS)}")
    examples = build_dataset({split: count}, LABEL_NOISE, seed)[split]  # type: ignore[dict-item, index]
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


@app.command(
    epilog='Example: harness sandbox mark "name two fruits but not apple . answer separated by commas ." "sure ! pear , plum"'
)
def mark(
    question: Annotated[str, typer.Argument(help="A question of the sandbox, as `show` prints it.")],
    answer: Annotated[str, typer.Argument(help="The answer to mark, in the sandbox's words.")],
    seed: Annotated[int, typer.Option(help="Seed of the data, as given to `show`.")] = 0,
    json_: JsonOption = False,
) -> None:
    """Mark an answer to one of the questions that `show` prints."""
    from dataclasses import asdict

    from harness.errors import HarnessError
    from harness.sandbox import gold

    task = _find_task(question, seed)
    if task is None:
        raise HarnessError(f"the sandbox has no question {question!r}: take one from `harness sandbox show`")
    result = gold.mark(task, answer)
    if json_:
        typer.echo(json.dumps(asdict(result)))
        return
    typer.echo(f"gold {result.total:.2f} of 10: chosen {result.chosen:.2f}, known {result.known:.2f}")
    for name, share in result.shares.items():
        typer.echo(f"  {name:<15}{share:.2f}")


def _find_task(question: str, seed: int) -> Task | None:
    """Return the task of a question that `show` prints with this seed, or of any other question of the world."""
    from harness.sandbox import build_dataset, tasks

    wanted = " ".join(question.split())
    for split in SPLITS:
        for example in build_dataset({split: MOST_SHOWN}, LABEL_NOISE, seed)[split]:  # type: ignore[dict-item, index]
            if example.prompt.text == wanted:
                return tasks.Task.from_dict(example.metadata["task"])
    return tasks.find_task(question)


@app.command(epilog="Example: harness sandbox train --out /tmp/base --steps 2000")
def train(
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint.")] = Path("runs/sandbox-base"),
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps; default: the shipped recipe's.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of data and weights; default: the shipped recipe's.", show_default=False)
    ] = None,
) -> None:
    """Train the sandbox's base model again, by the shipped recipe (about an hour on one core)."""
    import sys
    from dataclasses import replace

    from harness.errors import StoreError
    from harness.sandbox.pretrain import Recipe, train_base

    recipe = Recipe()
    recipe = replace(recipe, steps=steps or recipe.steps, seed=recipe.seed if seed is None else seed)
    watching = sys.stderr.isatty()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{out} cannot be written ({error.strerror}): choose another folder with --out") from error

    def report(step: int, loss: float, seconds: float) -> None:
        minutes = seconds / step * (recipe.steps - step) / 60
        if watching:
            typer.echo(
                f"\rstep {step:,} of {recipe.steps:,} · loss {loss:.3f} · about {minutes:.0f} min left ", nl=False, err=True
            )

    import torch

    torch.set_num_threads(1)
    train_base(recipe, out, report)
    typer.echo(f"\nwritten to {out}; use it with: harness compare --set model.path={out}")


@app.command(name="train-reward", epilog="Example: harness sandbox train-reward --out /tmp/reward --pairs 480")
def train_reward(
    out: Annotated[Path, typer.Option(help="Folder of the reward model.")] = Path("runs/sandbox-reward"),
    model: Annotated[str, typer.Option(help="The checkpoint folder it starts from; 'sandbox' is the base.")] = "sandbox",
    pairs: Annotated[
        int | None, typer.Option(min=1, help="Preference pairs; default: the shipped recipe's.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of data and weights; default: the shipped recipe's.", show_default=False)
    ] = None,
) -> None:
    """Train the sandbox's reward model again, by the shipped recipe (about a minute on one core)."""
    from dataclasses import replace

    import torch

    from harness.errors import StoreError
    from harness.models.checkpoint import checkpoint_folder
    from harness.sandbox.reward_model import RewardRecipe, train_reward_model

    recipe = RewardRecipe()
    recipe = replace(recipe, pairs=pairs or recipe.pairs, seed=recipe.seed if seed is None else seed)
    folder = checkpoint_folder(model)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{out} cannot be written ({error.strerror}): choose another folder with --out") from error
    torch.set_num_threads(1)
    train_reward_model(recipe, folder, out)
    typer.echo(f"written to {out}; use it as a reward: {{model: {out}}}")


@app.command(epilog="Example: harness sandbox measure --model runs/sandbox-base --json")
def measure(
    model: Annotated[str, typer.Option(help="A checkpoint folder; 'sandbox' is the shipped base.")] = "sandbox",
    prompts: Annotated[int, typer.Option(min=8, max=1000, help="Held-out prompts.")] = 300,
    json_: JsonOption = False,
) -> None:
    """Measure the world and a model in it: gold by author, by task family, by requested score and rating."""
    import torch

    from harness.models.checkpoint import checkpoint_folder
    from harness.sandbox.measure import measure_model, measure_world

    folder = checkpoint_folder(model)
    torch.set_num_threads(1)
    measures = {**measure_world(), **measure_model(folder, prompts)}
    if json_:
        typer.echo(json.dumps(measures))
        return
    _print_measures(measures)


def _print_measures(measures: dict[str, Any]) -> None:
    """Print tables in Markdown, as on the sandbox's page."""
    typer.echo("| author | gold | sd | chosen | known | as rated |\n|---|---|---|---|---|---|")
    for row in measures["annotators"]:
        values = "".join(f" | {row[name]:.2f}" for name in ("total", "sd", "chosen", "known", "rating"))
        typer.echo(f"| {row['author']}{values} |")
    typer.echo(f"\nratings agree with gold at r = {measures['rating_correlation']:.2f}")
    typer.echo(f"\n{measures['prompts']} held-out prompts\n")
    typer.echo("| answers | gold | chosen | known | degenerate |\n|---|---|---|---|---|")
    rows = [("T = 1", measures["sampled"]), ("greedy", measures["greedy"])]
    rows += [(f"{family}, T = 1", row) for family, row in measures["by_family"].items()]
    rows += [(f"asked for {score} out of 10", row) for score, row in measures["by_score"].items()]
    rows += [(f"asked for {rating} out of 100", row) for rating, row in measures["by_rating"].items()]
    for name, row in rows:
        values = "".join(f" | {row[mark]:.2f}" for mark in ("total", "chosen", "known"))
        typer.echo(f"| {name}{values} | {row['degenerate']:.3f} |")


@app.command(name="serve-judge", epilog="Example: harness sandbox serve-judge --port 8765 --bias 1")
def serve_judge(
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port on this machine; 0 for any free one.")] = 8765,
    noise: Annotated[float, typer.Option(min=0, help="Standard deviation of its scores, in points of gold.")] = 1.0,
    bias: Annotated[float, typer.Option(help="Points of gold that it adds to the answer shown first.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Seed of the data, as the source's, and of the noise.")] = 0,
) -> None:
    """Serve a judge whose verdicts come from the gold reward, with noise and a bias for the answer shown first.

    It serves OpenAI's protocol without API keys: `judge: {model: sandbox-judge, base_url: http://127.0.0.1:8765/v1}`.
    """
    from harness.errors import StoreError
    from harness.models.server import HttpReply, completion, judge_server
    from harness.sandbox.judge import MODEL, SandboxJudge

    judge = SandboxJudge(noise=noise, bias=bias, seed=seed)
    version = f"{MODEL}-noise-{noise:g}-bias-{bias:g}-seed-{seed}"

    def answer(request: Any) -> HttpReply:
        prompt = str(request["messages"][-1]["content"])
        return HttpReply(completion(judge(prompt), version, prompt))

    try:
        server = judge_server(answer, MODEL, port)
    except OSError as error:
        raise StoreError(f"--port {port} cannot be opened ({error.strerror}); choose another") from error
    typer.echo(f"judging at {server.url}; stop it with Ctrl-C")
    server.serve_forever()
