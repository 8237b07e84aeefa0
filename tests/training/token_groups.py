"""Groups as ids, made up, for tests of the trainer."""

from __future__ import annotations

import random
from dataclasses import replace

from harness.models.logps import score
from harness.training.batch import MISMATCHED, PLAIN, TokenGroup, partners
from harness_plugins.self_refined.refinement import AUGMENTED

VIEWS = (PLAIN, AUGMENTED, MISMATCHED)


def ids(rng: random.Random, longest: int, vocabulary: int) -> tuple[int, ...]:
    return tuple(rng.choices(range(6, vocabulary), k=rng.randint(2, longest)))


def groups(model, count: int = 8, most: int = 4, seed: int = 0) -> list[TokenGroup]:
    """Groups of unequal length and number of negatives, the reference being the model itself plus noise."""
    rng, vocabulary = random.Random(seed), min(400, model.config.vocab_size)
    plain = []
    for number in range(count):
        prompt = ids(rng, 8, vocabulary)
        responses = tuple(ids(rng, 6, vocabulary) for _ in range(rng.randint(2, most + 1)))
        plain.append(TokenGroup({PLAIN: prompt, AUGMENTED: (7, 8, 9, *prompt)}, responses, id=f"prompt-{number}"))
    made = []
    for group, other in zip(plain, partners(plain) if count > 1 else plain, strict=True):
        group = replace(group, mismatched=other.responses)
        reference = {view: tuple(value + rng.gauss(0, 1) for value in score(model, group.rows(view))) for view in VIEWS}
        made.append(replace(group, reference=reference))
    return made
