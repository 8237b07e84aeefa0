"""A backend that needs no model."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import ClassVar

from harness import Backend, Policy, Prompt, Response, Sampling


class Parrot(Backend):
    """Says some of the prompt's own words, drawn with the request's seed."""

    name: ClassVar[str] = "tp_parrot"

    def generate(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        report: Callable[[int, int], None] | None = None,
    ) -> list[list[Response]]:
        answers = []
        for number, prompt in enumerate(prompts, start=1):
            rng = random.Random(f"{sampling} {prompt.text}")
            answers.append([self._said(rng, prompt, sampling.max_tokens) for _ in range(sampling.n)])
            if report is not None:
                report(number * sampling.n, len(prompts) * sampling.n)
        return answers

    def _said(self, rng: random.Random, prompt: Prompt, most: int) -> Response:
        words = [rng.choice(prompt.text.split()) for _ in range(min(4, most - 1))]
        return Response(" ".join(words), tokens=len(words) + 1)
