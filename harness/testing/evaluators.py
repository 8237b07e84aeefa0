"""Checks of an evaluator: declared metrics, finite scores, one per example, metric and sample, the same each time."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from harness.api.interfaces import Evaluator
from harness.api.types import Metric, Sampling, Score
from harness.sandbox.scripted import ScriptedEvaluation
from harness.testing.verdict import Advice, Fault, Finding, run

ROUNDING = 1e-9
WHOLE = slice(None)


def check_evaluator(evaluator: Evaluator) -> Iterator[Finding]:
    """Every check of an evaluator, on a scripted policy and the sandbox's prompts; it is run twice."""
    runs: list[tuple[ScriptedEvaluation, list[Score]]] = []
    passed = True
    for name, check in {"metrics": _metrics, "scores": _scores, "determinism": _repeats, "samplings": _samplings}.items():
        if passed:
            yield (finding := run(name, partial(check, evaluator, runs)))
        else:
            yield Finding(name, "not run", "there are no scores", "see above")
        passed = passed and (finding.status == "passed" or name == "determinism")
    if passed and evaluator.divisible:
        yield run("parts", partial(_parts, evaluator, runs))


def _metrics(evaluator: Evaluator, runs: object) -> None:
    metrics: Any = evaluator.metrics()
    if not metrics or not isinstance(metrics, list | tuple) or not all(isinstance(metric, Metric) for metric in metrics):
        raise Fault(f"metrics() returned {metrics!r}", "return a list of harness.Metric, one for each name that scores use")
    names = [metric.name for metric in metrics]
    if len(set(names)) < len(names):
        raise Fault(f"metrics() names {', '.join(sorted(names))}", "give every metric a name of its own")
    if odd := [metric for metric in metrics if metric.fit not in (None, "run")]:
        fix = 'set fit="run" where scores are pseudo-values of harness.pseudo_values; "rows" is for the board\'s own strengths'
        raise Fault(f"the metric {odd[0].name!r} has fit = {odd[0].fit!r}", fix)
    if bare := [metric.name for metric in metrics if not metric.description.strip()]:
        raise Fault(f"no description of the metric {bare[0]!r}", "say what it is and its unit: the board shows it")


def _evaluate(evaluator: Evaluator, part: slice = WHOLE) -> tuple[ScriptedEvaluation, list[Score]]:
    with tempfile.TemporaryDirectory() as folder:
        task = ScriptedEvaluation(evaluator.required(), folder=Path(folder), judged=evaluator.asks_judge())
        task.examples = task.examples[part]
        scores: Any = evaluator.evaluate(task)
        if isinstance(scores, Score) or not hasattr(scores, "__iter__"):
            said = f"evaluate() returned {type(scores).__name__}"
            raise Fault(said, "yield harness.Score(example.prompt.id, metric, value), or return a list of them")
        return task, list(scores)


def _scores(evaluator: Evaluator, runs: list[tuple[ScriptedEvaluation, list[Score]]]) -> None:
    task, scores = _evaluate(evaluator)
    runs.append((task, scores))
    declared = {metric.name for metric in evaluator.metrics()}
    if not scores:
        raise Fault(f"it gives no score for {len(task.examples)} prompts", "yield one harness.Score per example and metric")
    for score in scores:
        if not isinstance(score, Score):
            raise Fault(f"it yields {type(score).__name__}", "yield harness.Score(example.prompt.id, metric, value)")
        if not isinstance(score.example, str):
            raise Fault(f"a score's example is {type(score.example).__name__}", "give its name: example.prompt.id")
        if score.metric not in declared:
            raise Fault(f"it scores {score.metric!r}", f"name it in metrics(), which has {', '.join(sorted(declared))}")
        if not isinstance(score.value, int | float) or not math.isfinite(score.value):
            raise Fault(
                f"the {score.metric!r} of {score.example!r} is {score.value!r}", "give a finite number, or no score for it"
            )
    for metric in evaluator.metrics():
        values = [score.value for score in scores if score.metric == metric.name]
        mean = sum(values) / len(values) if values else None
        least, largest = metric.bounds
        if mean is not None and (
            (least is not None and mean < least - ROUNDING) or (largest is not None and mean > largest + ROUNDING)
        ):
            raise Fault(f"the mean of {metric.name!r} is {mean:.4g}, and its bounds are {metric.bounds}", "correct its bounds")
    fitted = {metric.name for metric in evaluator.metrics() if metric.fit}
    if numbered := next((score for score in scores if score.metric in fitted and score.sample), None):
        fault = f"sample {numbered.sample} of {numbered.example!r} has a {numbered.metric!r}, which is a function of a fit"
        raise Fault(fault, "give one pseudo-value for each example, with its samples fitted together")
    places = [(score.example, score.metric, score.sample) for score in scores]
    if len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise Fault(f"it scores {twice} twice (example, metric, sample)", "number the answers to one prompt with Score.sample")


def _repeats(evaluator: Evaluator, runs: list[tuple[ScriptedEvaluation, list[Score]]]) -> None:
    if _evaluate(evaluator)[1] != runs[0][1]:
        raise Fault("two evaluations of one policy differ", "seed what is drawn with task.seed, and keep the order of examples")


def _parts(evaluator: Evaluator, runs: list[tuple[ScriptedEvaluation, list[Score]]]) -> None:
    """Evaluated in two parts, every example has the scores that it has among all."""
    names = {example.prompt.id for example in runs[0][0].examples}
    if odd := next((score for score in runs[0][1] if (score.question or score.example) not in names), None):
        raise Fault(f"a score is of {odd.example!r}, which is no prompt's id", "name it by example.prompt.id")
    half = len(runs[0][0].examples) // 2
    scores = [score for part in (slice(half), slice(half, None)) for score in _evaluate(evaluator, part)[1]]

    def ordered(listed: list[Score]) -> list[Score]:
        return sorted(listed, key=lambda score: (score.example, score.metric, score.sample))

    if ordered(scores) != ordered(runs[0][1]):
        said = "the scores of an example change with the examples beside it"
        raise Fault(said, "leave `divisible` out, so that prompts are never evaluated in parts")


def _samplings(evaluator: Evaluator, runs: list[tuple[ScriptedEvaluation, list[Score]]]) -> None:
    """Answers that are declared are drawn once for all evaluators, as a stage of their own."""
    declared: Any = evaluator.samplings()
    if not isinstance(declared, list | tuple) or not all(isinstance(sampling, Sampling) for sampling in declared):
        raise Fault(f"samplings() returned {declared!r}", "return a list of harness.Sampling")
    if any(sampling.seed for sampling in declared):
        raise Fault("samplings() sets a seed", "leave Sampling.seed at 0: the run adds its own")
    if missing := [sampling for sampling in runs[0][0].asked if sampling not in declared]:
        raise Advice(
            f"it asks for answers that samplings() does not name ({missing[0]})", "name them: all evaluators then share"
        )
