"""Whether a component asks for numbers that shards can compute: found by running it on a scripted task."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from harness.api.interfaces import DataBuilder, Evaluator
from harness.api.types import Response
from harness.models.reward import Reward, RewardModel
from harness.models.sentence import SentenceEmbedder
from harness.run.stages.parts import ShardEndsError, unknown
from harness.sandbox.scripted import ScriptedBuild, ScriptedEvaluation


def asks_for_numbers(component: DataBuilder | Evaluator) -> bool:
    """Return whether a component scores or embeds before it looks at a number, as `harness.run.stages.parts` explains."""
    with tempfile.TemporaryDirectory() as folder:
        task: _Build | _Evaluation
        outputs: Iterable[object]
        if isinstance(component, DataBuilder):
            task, outputs = (build := _Build(component.required())), component.build(build)
        elif component.brings_questions():
            return False  # it reads its own files first
        else:
            evaluation = _Evaluation(component.required(), folder=Path(folder), judged=component.judged)
            task, outputs = evaluation, component.evaluate(evaluation)
        try:
            for _ in outputs:
                pass
        except Exception:  # it looked at a number, asked a judge, or cannot use a script
            pass
    return task.asked_numbers


class _Shard:
    """A scripted task that answers as a shard's does, and remembers whether numbers were asked for."""

    asked_numbers = False

    def logps(self, responses: Sequence[Sequence[Response]], **asked: Any) -> list[list[float]]:
        self.asked_numbers = True
        return unknown(responses)

    def reward(self, model: Reward, responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        if not isinstance(model, RewardModel):
            self._end()
        self.asked_numbers = True
        return unknown(responses)

    def judge(self, *asked: Any, **parameters: Any) -> NoReturn:
        self._end()

    def _end(self) -> NoReturn:
        raise ShardEndsError("a shard ends here")


class _Build(_Shard, ScriptedBuild):
    def similarity(self, embedder: str | SentenceEmbedder, responses: Sequence[Sequence[Response]]) -> list[np.ndarray]:
        if embedder == "tfidf":
            self._end()
        self.asked_numbers = True
        return [np.array(row, dtype=object) for row in unknown(responses)]

    def respond(self, *asked: Any, **named: Any) -> NoReturn:
        self._end()


class _Evaluation(_Shard, ScriptedEvaluation):
    def respond_to(self, *asked: Any, **named: Any) -> NoReturn:
        self._end()

    def policy(self) -> NoReturn:
        self._end()
