"""Data builders on a scripted task: which responses become negatives, what is dropped, and that it is counted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from pydantic import ValidationError

from harness import Example, Prompt, Response
from harness_plugins.baselines.preference import Preference
from harness_plugins.baselines.sft import Targets
from harness_plugins.baselines.spin import Spin
from harness_plugins.controls.best_of_n import BestOfN
from harness_plugins.self_contrast.builder import SelfContrast


@dataclass
class ScriptedTask:
    """A `BuildTask` whose samples, similarities and golds are given."""

    examples: Sequence[Example]
    samples: Sequence[Sequence[Response]] = ()
    similarities: Sequence[Sequence[float]] = ()
    golds: Sequence[Sequence[float]] = ()
    by_prefix: dict[str, Sequence[str]] = field(default_factory=dict)
    round: int = 0
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    counted: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[int, str, str]] = field(default_factory=list)

    def sample(self, n, *, prefix="", temperature=1.0, top_p=1.0, policy="current"):
        self.asked.append((n, prefix, policy))
        if prefix:
            return [[Response(text)] for text in self.by_prefix[prefix]]
        return [list(row[:n]) for row in self.samples]

    def similarity(self, embedder, responses):
        return [np.asarray(row) for row in self.similarities]

    def gold(self, responses):
        return [list(row) for row in self.golds]

    def count(self, reason, examples=1):
        self.counted[reason] = self.counted.get(reason, 0) + examples


def example(name: str = "x", target: str | None = "target", ranked: tuple[str, ...] = ()) -> Example:
    return Example(Prompt.of(name, f"question {name}"), target, ranked)


def responses(*texts: str) -> list[Response]:
    return [Response(text) for text in texts]


def test_preference_takes_the_best_and_draws_from_the_rest() -> None:
    task = ScriptedTask([example(ranked=("best", "b", "c", "d")), example("y", ranked=("only",))])
    (group,) = Preference(negatives=2).build(task)
    assert group.chosen.text == "best"
    assert len(group.rejected) == 2 and {r.text for r in group.rejected} < {"b", "c", "d"}
    assert task.counted == {"fewer than two ranked responses": 1}


def test_preference_keeps_the_sources_order_among_the_rejected() -> None:
    ranked = ("best", "b", "c", "d", "e", "f")
    for seed in range(20):
        (group,) = Preference(negatives=3).build(ScriptedTask([example(ranked=ranked)], rng=random.Random(seed)))
        texts = [response.text for response in group.rejected]
        assert len(set(texts)) == 3 and texts == sorted(texts)


def test_preference_gives_what_there_is_of_a_short_ranking() -> None:
    (group,) = Preference(negatives=5).build(ScriptedTask([example(ranked=("best", "b", "c"))]))
    assert [response.text for response in group.rejected] == ["b", "c"]


def test_spin_pairs_the_target_with_one_own_sample() -> None:
    task = ScriptedTask(
        [example("a"), example("b"), example("c"), example("d", target=None)],
        [responses("own"), responses("target"), responses(""), responses("z")],
    )
    (group,) = Spin().build(task)
    assert (group.chosen.text, group.rejected[0].text) == ("target", "own")
    assert task.counted == {"sample equal to the target": 1, "empty sample": 1, "no target": 1}


def test_targets_have_nothing_rejected() -> None:
    (group,) = Targets().build(ScriptedTask([example()]))
    assert group.chosen.text == "target" and group.rejected == ()


def test_self_contrast_draws_only_from_the_least_similar() -> None:
    texts = [f"t{index}" for index in range(8)]
    task = ScriptedTask([example()], [responses(*texts)], [[0.9, 0.1, 0.8, 0.2, 0.7, 0.3, 0.6, 0.4]])
    builder = SelfContrast(samples=8, keep=0.5, negatives=2)
    drawn = set()
    for seed in range(40):
        task.rng = random.Random(seed)
        (group,) = builder.build(task)
        drawn |= {response.text for response in group.rejected}
        assert len({response.text for response in group.rejected}) == 2
    assert drawn == {"t1", "t3", "t5", "t7"}  # the four least similar, each of them sometimes
    assert task.asked[0] == (8, "", "start")


def test_of_equally_similar_samples_self_contrast_keeps_the_first() -> None:
    task = ScriptedTask([example()], [responses("t0", "t1", "t2", "t3", "t4", "t5")], [[0.5] * 4 + [0.4, 0.5]])
    (group,) = SelfContrast(samples=6, keep=0.5, negatives=3).build(task)
    assert {response.text for response in group.rejected} == {"t4", "t0", "t1"}


class RecordingRandom(random.Random):
    """A generator that notes what it was asked to draw from."""

    def sample(self, population, k, **_):
        self.population = list(population)
        return super().sample(population, k)


def authors_negatives(texts: Sequence[str], similarities: Sequence[float], share: float) -> set[str]:
    """Return what the authors' rule leaves, by counting: a text stays if few enough distinct ones are less similar.

    Written from mode `lastdedup` of THUDM/Self-Contrast, src/construct_synthetic_data.py, commit a21d01d2.
    """
    distinct = [place for place, text in enumerate(texts) if text not in texts[:place]]
    most = min(int(len(texts) * share), len(distinct) - 1)

    def less_similar(place: int) -> int:
        return sum((similarities[other], other) < (similarities[place], place) for other in distinct)

    return {texts[place] for place in distinct if less_similar(place) < most and texts[place].lstrip(" ")}


@pytest.mark.parametrize("seed", range(60))
def test_the_filter_is_the_authors_rule(seed: int) -> None:
    """Random similarities with ties, of texts with duplicates, empty ones and the target's own."""
    rng = random.Random(seed)
    samples = rng.choice([4, 8, 32, 64])
    pool = ["", " ", "target", *(f"t{index}" for index in range(rng.choice([2, samples // 2, 4 * samples])))]
    similarity = {text: rng.choice([rng.uniform(-1, 0.99), 0.5]) for text in pool} | {"target": 1.0}
    texts = [rng.choice(pool) for _ in range(samples)]
    cosines = [similarity[text] for text in texts]
    share = rng.choice([0.75, 0.5, 0.25])
    expected = authors_negatives(texts, cosines, share)
    task = ScriptedTask([example()], [responses(*texts)], [cosines], rng=RecordingRandom(0))
    groups = list(SelfContrast(samples=samples, keep=share, negatives=1).build(task))
    if expected:
        assert len(groups) == 1
        assert sorted(texts[place] for place in task.rng.population) == sorted(expected)
    else:
        assert not groups and task.counted == {"fewer than 1 distinct negatives left": 1}


def test_a_duplicate_costs_a_prompt_only_if_the_share_is_taken_first() -> None:
    """The paper's own m = a · R: 8 of 32, one of them twice among the least similar."""
    texts = ["t0", *(f"t{index}" for index in range(31))]
    task = ScriptedTask([example()], [responses(*texts)], [[index / 32 for index in range(32)]])
    (group,) = SelfContrast(samples=32, negatives=8).build(task)
    assert {response.text for response in group.rejected} == {f"t{index}" for index in range(8)}
    assert list(SelfContrast(samples=32, negatives=8, duplicates="after").build(task)) == []
    assert task.counted == {"fewer than 8 distinct negatives left": 1}


@pytest.mark.parametrize(
    ("samples", "keep", "kept"),
    [
        (32, 1.0, 32), (32, 0.5, 16), (32, 0.25, 8), (32, 0.125, 4), (32, 0.0625, 2),  # a of Figure 5
        (64, 0.25, 16), (32, 0.75, 24),  # m = 16; HH-RLHF
        (100, 0.57, 57), (100, 0.29, 29), (10, 0.7, 7),  # products that floating point makes too small
        (10, 0.25, 2), (6, 0.84, 5),  # no whole number: rounded down
    ],
)  # fmt: skip
def test_self_contrast_drops_exactly_the_most_similar_share(samples: int, keep: float, kept: int) -> None:
    """m as large as the share that is kept takes all of it; one more is refused."""
    cosines = random.Random(samples).sample(range(samples), samples)
    texts = [f"t{cosine}" for cosine in cosines]
    task = ScriptedTask([example()], [responses(*texts)], [[cosine / samples for cosine in cosines]])
    (group,) = SelfContrast(samples=samples, keep=keep, negatives=kept).build(task)
    assert {response.text for response in group.rejected} == {f"t{cosine}" for cosine in range(kept)}
    with pytest.raises(ValidationError, match="raise samples or keep"):
        SelfContrast(samples=samples, keep=keep, negatives=kept + 1)


def test_self_contrast_draws_among_distinct_texts_that_are_neither_empty_nor_the_target() -> None:
    """m = 16 of 64 samples, as in the paper."""
    texts = [*(f"t{index // 2}" for index in range(60)), "", "target", "", "target"]
    task = ScriptedTask([example()], [responses(*texts)], [[index / 100 for index in range(64)]])
    for seed in range(20):
        task.rng = random.Random(seed)
        (group,) = SelfContrast(samples=64, keep=0.5, negatives=16, duplicates="after").build(task)
        assert sorted(response.text for response in group.rejected) == sorted(f"t{index}" for index in range(16))
    (group,) = SelfContrast(samples=64, keep=1.0, negatives=30).build(task)
    assert {response.text for response in group.rejected} == {f"t{index}" for index in range(30)}
    assert list(SelfContrast(samples=64, keep=1.0, negatives=31).build(task)) == []
    assert task.counted == {"fewer than 31 distinct negatives left": 1}


def test_of_equal_texts_self_contrast_takes_the_least_similar() -> None:
    """An embedder that is not exact may give one text two similarities."""
    texts, cosines = ["again", "other", "again", "far"], [0.5, 0.25, 0.125, 0.875]
    task = ScriptedTask([example()], [responses(*texts)], [cosines])
    (group,) = SelfContrast(samples=4, keep=0.75, negatives=2, duplicates="after").build(task)
    assert {response.text for response in group.rejected} == {"again", "other"}
    assert group.info["negative_similarity"] == (0.125 + 0.25) / 2
    assert any(response is task.samples[0][2] for response in group.rejected)


def test_self_contrast_counts_prompts_without_enough_distinct_negatives() -> None:
    task = ScriptedTask([example()], [responses("same", "same", "same", "", "target", "x")], [[0.1, 0.1, 0.1, 0.0, 0.2, 0.9]])
    assert list(SelfContrast(samples=6, keep=0.84, negatives=2).build(task)) == []
    assert task.counted == {"fewer than 2 distinct negatives left": 1}


def test_self_contrast_refuses_fields_that_cannot_work() -> None:
    with pytest.raises(ValidationError, match="raise samples or keep"):
        SelfContrast(samples=8, keep=0.25, negatives=4)


def test_best_of_n_takes_best_and_worst() -> None:
    task = ScriptedTask(
        [example("a"), example("b"), example("c")],
        [responses("m", "hi", "lo"), responses("p", "q", "r"), responses("", "", "")],
        golds=[[5.0, 9.0, 1.0], [4.0, 4.0, 4.0], [0.0, 0.0, 0.0]],
    )
    (group,) = BestOfN(samples=3).build(task)
    assert (group.chosen.text, [r.text for r in group.rejected]) == ("hi", ["lo"])
    assert group.info == {"chosen_gold": 9.0, "rejected_gold": 1.0}
    assert task.counted == {"all samples tie": 1, "all samples empty": 1}


def test_best_of_n_without_negatives_keeps_ties() -> None:
    task = ScriptedTask([example("a")], [responses("p", "q")], golds=[[4.0, 4.0]])
    (group,) = BestOfN(samples=2, negatives=0).build(task)
    assert group.chosen.text == "p" and group.rejected == ()
