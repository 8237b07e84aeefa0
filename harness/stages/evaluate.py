"""One evaluator on one policy: scores per example."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import StageError
from harness.graph import Stage
from harness.interfaces import Evaluator, Source
from harness.plan import run_sampling
from harness.stages.answers import evaluated_examples
from harness.stages.context import Context, read_answers
from harness.stages.groups import source_of
from harness.stages.services import PolicyServices, Services
from harness.store import Draft
from harness.types import Example, Response, Sampling, Score

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def run_evaluate(stage: Stage, context: Context, draft: Draft) -> None:
    """Evaluate; every score must be a number of a declared metric."""
    evaluator: Evaluator = context.component("evaluator", stage.payload["evaluator"])
    backend = context.component("backend", stage.payload["backend"])
    services, seed = Services(context), stage.payload["seed"]
    prepared = {
        run_sampling(sampling, seed): read_answers(context.store.open(stage.inputs[f"answers:{number}"]))
        for number, sampling in enumerate(evaluator.samplings())
    }
    with context.scratch() as folder:
        task = EvaluatorServices(
            examples=evaluated_examples(stage, context),
            seed=seed,
            folder=folder,
            source=source_of(stage, context),
            model=PolicyServices(services, stage.inputs["model"], backend),
            start=PolicyServices(services, stage.inputs["start"], backend),
            prepared=prepared,
        )
        scores = list(evaluator.evaluate(task))
    _check(scores, evaluator)
    draft.write_lines("scores.jsonl", [[score.example, score.metric, score.value, score.sample] for score in scores])
    draft.facts.update(services.ledger.facts())


def _check(scores: Sequence[Score], evaluator: Evaluator) -> None:
    declared = {metric.name for metric in evaluator.metrics()}
    for score in scores:
        if score.metric not in declared:
            raise StageError(
                f"evaluator {evaluator.name!r} gave a score of {score.metric!r}, which its metrics() does not name"
            )
        if not math.isfinite(score.value):
            raise StageError(
                f"evaluator {evaluator.name!r} gave {score.value} for {score.metric!r} of example {score.example!r}"
            )


@dataclass
class EvaluatorServices:
    """`EvaluationTask` for evaluators."""

    examples: Sequence[Example]
    seed: int
    folder: Path
    source: Source
    model: PolicyServices
    start: PolicyServices
    prepared: Mapping[Sampling, list[list[Response]]]

    def respond(self, sampling: Sampling) -> list[list[Response]]:
        asked = run_sampling(sampling, self.seed)
        if asked in self.prepared:
            return self.prepared[asked]
        return self.model.respond([example.prompt for example in self.examples], asked)

    def logps(self, responses: Sequence[Sequence[Response]], *, reference: bool = False) -> list[list[float]]:
        prompts = [example.prompt for example in self.examples]
        return (self.start if reference else self.model).logps(prompts, responses)

    def gold(self, example: Example, response: Response) -> Mapping[str, float]:
        return self.source.gold(example, response)

    def benchmarks(self) -> Path:
        folder = self.folder / "benchmarks"
        folder.mkdir(exist_ok=True)
        self.source.write_benchmarks(folder)
        return folder

    def policy(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        return self.model.loaded
