"""Folders of runs as the journal writes them, made up: one that runs, with curves, means, samples and failures."""

from __future__ import annotations

import math
from pathlib import Path

from harness.run.executors.journal import Journal
from harness.run.graph import Graph, RowPlan, Stage

LABELS = ("sft", "dpo", "simpo", "self_contrast")
SEEDS = (0, 1)


def graph_of_rows(labels: tuple[str, ...] = LABELS, seeds: tuple[int, ...] = SEEDS) -> Graph:
    """A training and two evaluations for each row and seed; the first row is evaluated only."""
    graph = Graph()
    for seed in seeds:
        sft = graph.add("sft", f"SFT · seed {seed}", {"seed": seed}, {}, weight=30)
        for label in labels:
            named = {"label": label, "seed": seed}
            trained = label != labels[0]
            model = graph.add("train", f"train {label} · seed {seed}", named, {"model": sft}, weight=20) if trained else sft
            scored = {
                name: (graph.add("evaluate", f"{name} of {label} · seed {seed}", named | {"name": name}, {"model": model}),)
                for name in ("gold", "stats")
            }
            graph.rows.append(RowPlan(label, seed, model, (), (model,) if trained else (), scored))
    return graph


def run_stage(journal: Journal, stage: Stage, error: str | None = None, sample: str | None = None) -> None:
    """Start a stage, show its intermediate results, and end it."""
    journal.started(stage)
    place = sum(map(ord, stage.title)) % 7
    if stage.kind in ("sft", "train"):
        points = [
            {
                "step": step,
                "loss": 0.69 * math.exp(-step / (18 + place)) + 0.02 * math.sin(step * (1 + place)),
                "margin": step / 40,
            }
            for step in range(1, 41)
        ]
        journal.measured(stage.key, {"points": points})
    else:
        means = {"reward": 6.2 + place / 5} if stage.title.startswith("gold") else {"length": 41.0 + place, "repeated": 0.02}
        answer = sample or "A short walk after lunch helps most people: the light and the movement wake you up."
        text = {"prompt": "How do I stay awake in the afternoon?", "response": answer}
        journal.measured(stage.key, {"scores": means, "scored": 64, "sample": text})  # type: ignore[typeddict-item]
    journal.finished(stage, 12.5, error)


def write_running(folder: Path, name: str = "a run", **texts: str) -> Journal:
    """Write a run that has come half-way, by this process: `texts` may replace `sample` and `error`."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = graph_of_rows()
    journal = Journal(folder, name)
    journal.begin(graph, set())
    half = [stage for stage in graph if stage.title.endswith("seed 0")]
    for stage in half[:-2]:
        error = texts.get("error") if stage.title == "train self_contrast · seed 0" else None
        run_stage(journal, stage, error, texts.get("sample"))
    for number, stage in enumerate(stage for stage in graph if stage.title.endswith("seed 1") and stage.kind == "train"):
        if number < 2:
            journal.started(stage)
            journal.progress(stage.key, 11 + 17 * number, 40, "loss 0.412")
            points = [
                {"step": step, "loss": 0.7 * math.exp(-step / 25), "margin": step / 40} for step in range(1, 12 + 17 * number)
            ]
            journal.measured(stage.key, {"points": points})
    return journal
