"""Files that a board shows beside its examples: an evaluator's own questions with the answers, and its judge's words."""

from __future__ import annotations

import json
from pathlib import Path

QUESTIONS, JUDGMENTS = "questions.jsonl", "judgments.jsonl"


class Shown:
    """The texts of an evaluation that a reader of the board sees; each line's `example` is the one of its scores."""

    def __init__(self) -> None:
        self._questions: dict[str, dict[str, str | None]] = {}
        self._judgments: list[dict[str, str | int]] = []

    def answer(self, example: str, prompt: str, answer: str, target: str | None = None) -> None:
        """Note an answer to a question of the evaluator's own; a second one to it is left out."""
        self._questions.setdefault(example, {"example": example, "prompt": prompt, "target": target, "answer": answer})

    def judgment(self, example: str, verdict: str, words: str, sample: int = 0) -> None:
        """Note what a judge said of an answer; a board shows the first sample's."""
        self._judgments.append({"example": example, "sample": sample, "verdict": verdict, "words": words})

    def write(self, folder: Path) -> None:
        """Write both files as JSON lines."""
        for name, lines in ((QUESTIONS, self._questions.values()), (JUDGMENTS, self._judgments)):
            text = "".join(f"{json.dumps(line, ensure_ascii=True)}\n" for line in lines)
            (folder / name).write_text(text, encoding="utf-8")
