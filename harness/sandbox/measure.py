"""Measure the sandbox's world and a model in it, as the sandbox's page reports: `harness sandbox measure`."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.api.types import Example, Prompt, Sampling
from harness.models.generate import generate
from harness.models.load import load
from harness.sandbox.annotators import ANNOTATORS, TARGET_AUTHOR, answer
from harness.sandbox.gold import mark
from harness.sandbox.language import SCORE_REQUESTS, USEFULNESS_REQUESTS
from harness.sandbox.tasks import FAMILIES, draw_task
from harness.sandbox.world import build_dataset, marks

SCORES, RATINGS = range(1, 11), range(10, 101, 10)
MARKS = ("total", "chosen", "known", "degenerate")


def measure_world(draws: int = 4000) -> Mapping[str, object]:
    """Mean gold by annotator, and of the rule by which raters rate; no model is needed."""
    rows: list[Mapping[str, str | float]] = []
    pairs: list[tuple[float, float]] = []
    for author in (*ANNOTATORS, TARGET_AUTHOR):
        rng = random.Random(f"measure {author.name}")
        results = []
        for _ in range(draws):
            task = draw_task(rng)
            results.append(mark(task, answer(task, author, rng)))
        pairs += [(result.total, result.rating) for result in results]
        rows.append(
            {
                "author": author.name,
                **{
                    name: statistics.fmean(getattr(r, name) for r in results) for name in ("total", "chosen", "known", "rating")
                },
                "sd": statistics.pstdev(r.total for r in results),
            }
        )
    return {"annotators": rows, "rating_correlation": statistics.correlation(*zip(*pairs, strict=True))}


def measure_model(folder: Path, prompts: int = 300, samples: int = 4) -> Mapping[str, object]:
    """Gold of a model's answers on held-out prompts: plain, greedy, by family, and by the score and the rating asked for.

    The prompts are the first of the `heldout` split with the default seed.
    """
    model, tokenizer = load(folder)
    examples = build_dataset({"heldout": prompts}, 0.0, 0)["heldout"]

    def gold(changed: Sequence[Prompt], sampling: Sampling) -> list[tuple[Example, dict[str, float]]]:
        drawn = generate(model, tokenizer, changed, sampling, rows_per_batch=512)
        return [(example, marks(example, response)) for example, row in zip(examples, drawn, strict=True) for response in row]

    plain = [example.prompt for example in examples]
    sampled, greedy = gold(plain, Sampling(n=samples)), gold(plain, Sampling(temperature=0))
    families: dict[str, list[dict[str, float]]] = {family: [] for family in FAMILIES}
    for example, marked in sampled:
        families[example.metadata["task"]["family"]].append(marked)

    def asked(request: str) -> dict[str, float]:
        return _means([marked for _, marked in gold([prompt.prefixed(request) for prompt in plain], Sampling(n=1))])

    return {
        "prompts": len(examples),
        "sampled": _means([marked for _, marked in sampled]),
        "greedy": _means([marked for _, marked in greedy]),
        "by_family": {family: _means(rows) for family, rows in families.items()},
        "by_score": {score: asked(_score_request(score)) for score in SCORES},
        "by_rating": {rating: asked(USEFULNESS_REQUESTS[0].format(rating=rating)) for rating in RATINGS},
    }


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.fmean(row[name] for row in rows) for name in MARKS} if rows else {}


def _score_request(score: int) -> str:
    """Only-prompting's own wording: 'top-notch' with the best score, 'good' with any other."""
    top_notch, good, *_ = SCORE_REQUESTS
    return (top_notch if score == max(SCORES) else good).format(score=score)
