"""Similarity to a target."""

from __future__ import annotations

import numpy as np
import pytest

from harness.api.types import Prompt
from harness.models.embed import hidden_similarity, tfidf_similarity

TARGETS = ["pear , fig , plum", "boil the water"]
RESPONSES = [["pear , fig , plum", "pear , fig , cat", "dog - cat"], ["boil the water"]]


@pytest.mark.parametrize("embedder", ["tfidf", "hidden"])
def test_likeness_orders_as_words_do(tiny, embedder: str) -> None:
    if embedder == "tfidf":
        cosines = tfidf_similarity(TARGETS, RESPONSES)
    else:
        cosines = hidden_similarity(*tiny, [Prompt.of("a", "name fruits ."), Prompt.of("b", "tea ?")], TARGETS, RESPONSES)
    assert [len(row) for row in cosines] == [3, 1]
    assert cosines[0][0] == pytest.approx(1) and cosines[1][0] == pytest.approx(1)
    assert cosines[0][0] > cosines[0][1] > cosines[0][2]
    assert all(np.all((row <= 1 + 1e-9) & (row >= -1 - 1e-9)) for row in cosines)


def test_an_empty_response_is_unlike_anything() -> None:
    assert tfidf_similarity(["pear"], [["", "pear"]])[0].tolist() == pytest.approx([0.0, 1.0])
