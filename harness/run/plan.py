"""A resolved comparison -> the graph of its stages. Nothing runs here; every key is fixed here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from typing import Any

from harness.api.interfaces import Evaluator
from harness.api.types import Sampling
from harness.config import Comparison, RoundPlan, Variant, describe
from harness.models.judge.settings import judge_of
from harness.run.graph import CHECKPOINT, Graph, RowPlan
from harness.store.environment import environment
from harness.training.batch import MISMATCHED
from harness.training.settings import SftSettings, TrainingSettings

PLAIN_VIEW = ""
OPPONENT = "opponent:"  # an evaluation's input: the answers of the row of that label, or its model


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
        self.graph.judges = {name: judge.model_dump(mode="json") for name, judge in comparison.judges.items()}
        self.source = self._source()
        self.base = self._base()

    def build(self) -> Graph:
        for seed in self.config.seeds:
            trained = [self._row(variant, seed) for variant in self.comparison.variants]
            for row in trained:
                found = {item.name: self._evaluation(item, row, trained) for item in self.comparison.evaluators}
                self.graph.rows.append(
                    RowPlan(row.variant.label, seed, row.model, tuple(row.groups), tuple(row.training), found)
                )
        return self.graph

    def _source(self) -> str:
        """The rows; with limits, they hang on the model whose tokens are counted."""
        source = self.comparison.source
        if "source" in self.comparison.unreachable:
            described = {"name": source.name, "fields": source.model_dump(mode="json"), "fingerprint": "unknown"}
        else:
            described = {**describe(source), "fingerprint": source.fingerprint()}
        payload: dict[str, Any] = {"source": described}
        inputs = {}
        if self.config.evaluation.contaminated == "drop":
            bringing = [evaluator for evaluator in self.comparison.evaluators if evaluator.brings_questions()]
            payload["benchmarks"] = [describe(evaluator) for evaluator in bringing]
        if self.config.limits is not None:
            payload["limits"] = self.config.limits.model_dump()
            inputs["model"] = self._base()
        return self.graph.add("source", f"data from {source.name}", payload, inputs, weight=2)

    def _base(self) -> str:
        """The starting checkpoint: a folder by its hash, or a stage that makes one from the source's text."""
        if self.config.model.scratch is not None:
            recipe = self.config.model.scratch.model_dump(mode="json")
            return self.graph.add(
                "scratch", "starting model from the source's text", {"recipe": recipe}, {"source": self.source}, weight=150
            )
        checkpoint = self.comparison.checkpoint
        assert checkpoint is not None
        digest = checkpoint.digest
        self.graph.checkpoints[digest] = checkpoint.as_dict()
        return CHECKPOINT + digest

    def _start(self, seed: int) -> str:
        """The model every method of this seed starts from."""
        if self.config.sft is None:
            return self.base
        payload = {**self._settings(self.config.sft), "seed": seed}
        inputs = {"source": self.source, "model": self.base}
        return self.graph.add("sft", f"SFT · seed {seed}", payload, inputs, shares=_devices(self.config.sft), weight=30)

    def _row(self, variant: Variant, seed: int) -> _Trained:
        own_seed = seed + variant.seed_offset
        start = model = self._start(own_seed)
        groups, training = [], []
        for number, round_ in enumerate(variant.rounds):
            built = self._groups(variant, round_, number, own_seed, start, model)
            model = self._train(variant, number, own_seed, built, {"policy": model, "start": start})
            groups.append(built)
            training.append(model)
        return _Trained(variant, seed, own_seed, start, model, groups, training)

    def _groups(self, variant: Variant, round_: RoundPlan, number: int, seed: int, start: str, model: str) -> str:
        first, last = _share(self.config.budget.prompts, number, len(variant.rounds))
        payload: dict[str, Any] = {
            "builder": describe(round_.builder),
            "backend": describe(self.comparison.backend),
            "max_tokens": self.config.generation.max_tokens,
            "examples": [first, last],
            "round": number,
            "seed": seed,
        }
        payload |= self._rounding
        if round_.builder.judged:
            judge = judge_of(self.graph.judges, payload)
            payload |= {"judge": judge.identity, "reading": judge.reading}
        inputs = {"source": self.source, "start": start, "policy": model}
        title = f"data {round_.builder.name}{_round(variant, number)} · seed {seed}"
        return self.graph.add("groups", title, payload, inputs, shares=f"samples {model}", weight=15)

    def _train(self, variant: Variant, number: int, seed: int, groups: str, models: Mapping[str, str]) -> str:
        round_ = variant.rounds[number]
        objective, reference = round_.objective, models["start" if round_.reference == "start" else "policy"]
        inputs = {"groups": groups, "model": models["policy"]}
        if objective.needs_reference:
            inputs[f"reference:{PLAIN_VIEW}"] = self._reference(round_, groups, reference, PLAIN_VIEW, seed)
        if objective.needs_mismatched:
            inputs[f"reference:{MISMATCHED}"] = self._reference(round_, groups, reference, MISMATCHED, seed)
        for view in objective.views():
            inputs[f"reference:{view}"] = self._reference(round_, groups, reference, view, seed)
        payload = {"objective": describe(objective), **self._settings(round_.training), "seed": seed}
        if objective.ranks_rejected and not round_.builder.ranks_rejected:
            payload["unranked"] = True
        if limit := self.config.budget.limit:
            first, last = _share(limit.amount, number, len(variant.rounds))
            payload["spending"] = {"unit": limit.unit, "amount": last - first}
        title = f"train {variant.label}{_round(variant, number)} · seed {seed}"
        return self.graph.add("train", title, payload, inputs, shares=_devices(round_.training), weight=12)

    def _reference(self, round_: RoundPlan, groups: str, model: str, view: str, seed: int) -> str:
        """The reference under a view; only a view of an objective's own depends on the objective. Such are shared by what they
        ask (`stages/reference.py`), so that those of the same responses would wait for each other."""
        title = f"reference of {round_.builder.name}{' ' + view if view else ''} · seed {seed}"
        objective = None if view in (PLAIN_VIEW, MISMATCHED) else describe(round_.objective)
        payload = {"view": view, "objective": objective, **round_.training.precision_payload(self._device)}
        if round_.training.layout != "auto":
            payload["layout"] = round_.training.layout
        shares = f"views {groups} {model}" if objective else None
        return self.graph.add("reference", title, payload, {"groups": groups, "model": model}, shares=shares, weight=2)

    @property
    def _device(self) -> str:
        return self.graph.environment["device"]

    def _settings(self, settings: SftSettings | TrainingSettings) -> dict[str, Any]:
        """Settings as part of a payload, with the versions of the libraries that only some of them use."""
        used = [*(["peft"] if settings.lora else []), *(settings.devices.libraries if settings.devices else [])]
        # Adapters on named layers may lie on tied embeddings, and rounded weights are merged in float32: both once were not.
        merging = settings.lora is not None and (settings.lora.target_modules != "all-linear" or bool(self._rounding))
        payload = {"settings": settings.payload(self._device), **{name: metadata.version(name) for name in used}}
        return payload | ({"merging": 2} if merging else {})

    @property
    def _rounding(self) -> dict[str, str]:
        """Return the marker of a score's key for weights of fewer digits than float32, which were once scored as they are."""
        checkpoint = self.comparison.checkpoint
        return {"scoring": "float32"} if checkpoint and checkpoint.options.rounds else {}

    def _evaluation(self, evaluator: Evaluator, row: _Trained, trained: Sequence[_Trained]) -> str:
        """A row's evaluation. A judged one also hangs on what decides its judge's answers, and on its opponents' answers."""
        inputs = {"source": self.source, "model": row.model, "start": row.start}
        for number, sampling in enumerate(evaluator.samplings()):
            inputs[f"answers:{number}"] = self._answers(row, sampling)
        for other in self._opponents(evaluator, row, trained):
            samplings = evaluator.samplings()
            inputs[f"{OPPONENT}{other.variant.label}"] = self._answers(other, samplings[0]) if samplings else other.model
        payload = {
            **self._asked,
            "evaluator": describe(evaluator),
            "backend": describe(self.comparison.backend),
            "seed": row.own_seed,
        }
        payload |= self._rounding
        if fingerprint := evaluator.fingerprint():
            payload["fingerprint"] = fingerprint
        if evaluator.judged:
            judge = self.comparison.judges[evaluator.name]
            payload |= {"judge": judge.identity, "reading": judge.reading, "label": row.variant.label}
        if self.config.evaluation.response is not None:
            payload["response"] = self.config.evaluation.response.model_dump(mode="json")
        title = f"{evaluator.name} of {row.variant.label} · seed {row.seed}"
        return self.graph.add("evaluate", title, payload, inputs, weight=3)

    def _answers(self, row: _Trained, sampling: Sampling) -> str:
        payload = {
            **self._asked,
            "sampling": asdict(run_sampling(sampling, row.own_seed)),
            "backend": describe(self.comparison.backend),
        }
        title = f"answers of {row.variant.label} ({sampling.label}) · seed {row.seed}"
        return self.graph.add("answers", title, payload, {"source": self.source, "model": row.model}, weight=5)

    def _opponents(self, evaluator: Evaluator, row: _Trained, trained: Sequence[_Trained]) -> list[_Trained]:
        """The rows an evaluation compares with: `all` are all others; the baseline's own opponent is itself."""
        named = [self.config.baseline if label == "baseline" else label for label in evaluator.opponents()]
        if "all" in named:
            return [other for other in trained if other is not row]
        return [other for other in trained if other.variant.label in named]

    @property
    def _asked(self) -> dict[str, Any]:
        return {"split": self.config.evaluation.split, "prompts": self.config.evaluation.prompts}


@dataclass(frozen=True)
class _Trained:
    """A row at one seed before it is evaluated; `own_seed` is the seed with the row's offset."""

    variant: Variant
    seed: int
    own_seed: int
    start: str
    model: str
    groups: list[str]
    training: list[str]


def _devices(settings: SftSettings | TrainingSettings) -> str | None:
    """What a training on several devices shares with the others: the devices, so that one runs at a time."""
    return "devices" if settings.devices else None


def _share(amount: int, number: int, rounds: int) -> tuple[int, int]:
    """A round's part of a budget that all rounds split: from, to."""
    return (amount * number) // rounds, (amount * (number + 1)) // rounds


def _round(variant: Variant, number: int) -> str:
    return f" round {number + 1}" if len(variant.rounds) > 1 else ""
