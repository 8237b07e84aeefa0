"""Results of a tool of our own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from harness import DataError, Imported, Importer, Score
from third_party_methods.evaluator import FirstWord


class FirstWords(Importer):
    """What another run of `tp_first_word` wrote: a JSON object of models, each with 0 or 1 by question."""

    name: ClassVar[str] = "tp_first_words"

    def read(self, paths: Sequence[Path]) -> Iterable[Imported]:
        for path in paths:
            try:
                found = {model: dict(scores) for model, scores in json.loads(path.read_text(encoding="utf-8")).items()}
            except (ValueError, AttributeError, TypeError) as error:
                raise DataError(f"{path} holds no results of tp_first_word ({error}): give what it wrote") from error
            for model, scores in found.items():
                marks = tuple(Score(question, "first_word", float(mark)) for question, mark in scores.items())
                yield Imported(model, FirstWord.name, tuple(FirstWord().metrics()), marks)
