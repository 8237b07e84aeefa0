"""Self-Contrast's data: filtered self-generated negatives (§2.2, §2.4)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from harness import BuildTask, DataBuilder, Group, Paper, Response, SentenceEmbedder

PAPER = Paper("Extensive Self-Contrast Enables Feedback-Free Language Model Alignment", "2404.00604", "§2.2, §2.4")


class SelfContrast(DataBuilder):
    """Sample R responses, drop the 1 − a most similar to the target, draw m distinct negatives from the rest at random.

    The paper samples 32 responses (64 for m = 16) and keeps a = 25 % (75 % on HH-RLHF). A prompt with fewer than m distinct,
    non-empty responses left is dropped and counted.

    In which order equal samples are dropped and the share is taken, the paper leaves open. The default is the authors' order
    (github.com/THUDM/Self-Contrast, commit a21d01d2, src/construct_synthetic_data.py, `lastdedup`): of the distinct samples,
    keep the min(⌊R · a⌋, distinct − 1) least similar; with a = 100 % (`alldedup`) all of them.
    """

    name: ClassVar[str] = "self_contrast"
    version: ClassVar[int] = 2  # 2: equal samples are dropped before the share is taken
    paper: ClassVar[Paper | None] = PAPER
    needs: ClassVar[frozenset[Literal["target", "ranked", "gold"]]] = frozenset({"target"})

    samples: int = Field(32, ge=1, le=1024, description="R, responses sampled per prompt at temperature 1 and top-p 1")
    keep: float = Field(
        0.25, gt=0, le=1, description="a, the least similar share of the samples, from which negatives are drawn"
    )
    negatives: int = Field(1, ge=1, le=64, description="m, negatives per prompt")
    duplicates: Literal["before", "after"] = Field(
        "before",
        description="when equal samples are dropped: before the share a of all R is counted off, as the authors do; or after "
        "it, which leaves fewer to draw from wherever a sample occurs twice",
    )
    embedder: Literal["tfidf", "hidden"] | SentenceEmbedder = Field(
        "tfidf", description="whose cosine tells how like the target a sample is; a section for a sentence-transformers model"
    )

    def problems(self) -> Sequence[tuple[str, str]]:
        return () if isinstance(self.embedder, str) else self.embedder.problems("embedder")

    def fingerprint(self) -> str:
        return "" if isinstance(self.embedder, str) else json.dumps(self.embedder.key(), sort_keys=True)

    @model_validator(mode="after")
    def _enough(self) -> SelfContrast:
        if self._share(self.samples) < self.negatives:
            left = f"{self.samples * self.keep:g}"
            raise ValueError(f"samples x keep = {left} leaves fewer than negatives = {self.negatives}: raise samples or keep")
        return self

    def responses_per_prompt(self) -> int:
        return self.samples

    def build(self, task: BuildTask) -> Iterable[Group]:
        samples = task.sample(self.samples, policy="start")
        similarities = task.similarity(self.embedder, samples)
        for example, responses, cosines in zip(task.examples, samples, similarities, strict=True):
            if example.target is None:
                task.count("no target")
                continue
            kept = self._kept([response.text for response in responses], cosines)
            usable = [index for index in kept if self._usable(responses[index], example.target)]
            if len(usable) < self.negatives:
                task.count(f"fewer than {self.negatives} distinct negatives left")
                continue
            drawn = task.rng.sample(sorted(usable), self.negatives)
            similarity = sum(float(cosines[index]) for index in drawn) / len(drawn)
            rejected = tuple(responses[index] for index in drawn)
            yield Group(example.prompt, Response(example.target), rejected, {"negative_similarity": similarity})

    def _kept(self, texts: Sequence[str], cosines: Sequence[float]) -> list[int]:
        """Return indices of distinct samples that the filter keeps, least similar first; ties by the order of sampling."""
        order = sorted(range(len(texts)), key=lambda index: (float(cosines[index]), index))
        if self.duplicates == "after":
            return list({texts[index]: index for index in reversed(order[: self._share(len(texts))])}.values())
        first = {text: index for index, text in reversed(list(enumerate(texts)))}
        distinct = [index for index in order if first[texts[index]] == index]
        # ⌊R · a⌋ of R as sampled, not of the distinct ones, so that duplicates cost similar samples and no prompt; and with any
        # filter the sample most like the target goes.
        return distinct if self.keep == 1 else distinct[: min(self._share(len(texts)), len(distinct) - 1)]

    def _share(self, count: int) -> int:
        """Return a of so many samples, rounded down; 0.57 of 100 is 57, although 100 * 0.57 is a little less."""
        return math.floor(count * self.keep + 1e-9)

    @staticmethod
    def _usable(response: Response, target: str) -> bool:
        return bool(response.text.lstrip(" ")) and response.text != target
