"""A resolved comparison -> the graph of its stages. Nothing runs here; every key is fixed here."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from typing import Any

from harness.environment import environment
from harness.graph import CHECKPOINT, Graph, RowPlan
from harness.interfaces import Evaluator
from harness.models.load import checkpoint_folder, checkpoint_hash
from harness.resolve import Comparison, RoundPlan, Variant, describe
from harness.training.batch import MISMATCHED
from harness.types import Sampling

PLAIN_VIEW = ""


def plan(comparison: Comparison) -> Graph:
    """The graph: source → (base →) SFT → per method, seed and round: groups → reference → training → answers → evaluation."""
    return _Planner(comparison).build()


def run_sampling(sampling: Sampling, seed: int) -> Sampling:
    """An evaluator's sampling with the run's seed put in."""
    digest = hashlib.sha256(f"{seed} {sampling}".encode()).digest()
    return replace(sampling, seed=int.from_bytes(digest[:6], "big"))


class _Planner:
    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.config = comparison.config
        self.graph = Graph(environment())
        source = {**describe(comparison.source), "fingerprint": comparison.source.fingerprint()}
        self.source = self.graph.add("source", f"data from {comparison.source.name}", {"source": source}, {}, weight=2)
        self.base = self._base()

    def build(self) -> Graph:
        for seed in self.config.seeds:
            for variant in self.comparison.variants:
                self._row(variant, seed)
        return self.graph

    def _base(self) -> str:
        """The starting checkpoint: a folder by its hash, or a stage that makes one from the source's text."""
        if self.config.model.scratch is not None:
            recipe = self.config.model.scratch.model_dump(mode="json")
            return self.graph.add(
                "scratch", "starting model from the source's text", {"recipe": recipe}, {"source": self.source}, weight=150
            )
        folder = checkpoint_folder(self.config.model.path or "")
        digest = checkpoint_hash(folder)
        self.graph.checkpoints[digest] = str(folder)
        return CHECKPOINT + digest

    def _start(self, seed: int) -> str:
        """The model every method of this seed starts from."""
        if self.config.sft is None:
            return self.base
        payload = {"settings": self.config.sft.model_dump(mode="json"), "seed": seed}
        return self.graph.add("sft", f"SFT · seed {seed}", payload, {"source": self.source, "model": self.base}, weight=30)

    def _row(self, variant: Variant, seed: int) -> None:
        own_seed = seed + variant.seed_offset
        start = model = self._start(own_seed)
        groups, training = [], []
        for number, round_ in enumerate(variant.rounds):
            built = self._groups(variant, round_, number, own_seed, start, model)
            model = self._train(variant, round_, number, own_seed, built, model)
            groups.append(built)
            training.append(model)
        evaluations = {
            evaluator.name: self._evaluation(evaluator, variant, own_seed, seed, start, model)
            for evaluator in self.comparison.evaluators
        }
        self.graph.rows.append(RowPlan(variant.label, seed, model, tuple(groups), tuple(training), evaluations))

    def _groups(self, variant: Variant, round_: RoundPlan, number: int, seed: int, start: str, model: str) -> str:
        budget, rounds = self.config.budget.prompts, len(variant.rounds)
        first, last = (budget * number) // rounds, (budget * (number + 1)) // rounds
        payload = {
            "builder": describe(round_.builder),
            "backend": describe(self.comparison.backend),
            "max_tokens": self.config.generation.max_tokens,
            "examples": [first, last],
            "round": number,
            "seed": seed,
        }
        inputs = {"source": self.source, "start": start, "policy": model}
        title = f"data {round_.builder.name}{_round(variant, number)} · seed {seed}"
        return self.graph.add("groups", title, payload, inputs, shares=f"samples {model}", weight=15)

    def _train(self, variant: Variant, round_: RoundPlan, number: int, seed: int, groups: str, model: str) -> str:
        objective = round_.objective
        inputs = {"groups": groups, "model": model}
        if objective.needs_reference:
            inputs[f"reference:{PLAIN_VIEW}"] = self._reference(groups, model, PLAIN_VIEW, None, seed)
        if objective.needs_mismatched:
            inputs[f"reference:{MISMATCHED}"] = self._reference(groups, model, MISMATCHED, None, seed)
        for view in objective.views():
            inputs[f"reference:{view}"] = self._reference(groups, model, view, describe(objective), seed)
        payload = {"objective": describe(objective), "settings": round_.training.model_dump(mode="json"), "seed": seed}
        return self.graph.add(
            "train", f"train {variant.label}{_round(variant, number)} · seed {seed}", payload, inputs, weight=12
        )

    def _reference(self, groups: str, model: str, view: str, objective: dict[str, Any] | None, seed: int) -> str:
        builder = self.graph.stages[groups].payload["builder"]["name"]
        title = f"reference of {builder}{' ' + view if view else ''} · seed {seed}"
        payload = {"view": view, "objective": objective}
        return self.graph.add("reference", title, payload, {"groups": groups, "model": model}, weight=2)

    def _evaluation(self, evaluator: Evaluator, variant: Variant, own_seed: int, seed: int, start: str, model: str) -> str:
        asked = {"split": self.config.evaluation.split, "prompts": self.config.evaluation.prompts}
        inputs = {"source": self.source, "model": model, "start": start}
        for number, sampling in enumerate(evaluator.samplings()):
            payload = {
                **asked,
                "sampling": asdict(run_sampling(sampling, own_seed)),
                "backend": describe(self.comparison.backend),
            }
            title = f"answers of {variant.label} ({sampling.label}) · seed {seed}"
            inputs[f"answers:{number}"] = self.graph.add(
                "answers", title, payload, {"source": self.source, "model": model}, weight=5
            )
        payload = {**asked, "evaluator": describe(evaluator), "backend": describe(self.comparison.backend), "seed": own_seed}
        return self.graph.add("evaluate", f"{evaluator.name} of {variant.label} · seed {seed}", payload, inputs, weight=3)


def _round(variant: Variant, number: int) -> str:
    return f" round {number + 1}" if len(variant.rounds) > 1 else ""
