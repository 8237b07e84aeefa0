"""The sandbox's promises: held-out is held out, labels are noisy by the stated share, the shipped base is what it says."""

from __future__ import annotations

import json
from itertools import islice, permutations
from pathlib import Path

import pytest

import harness.sandbox
from harness.api.types import Response
from harness.sandbox import build_dataset, marks
from harness.sandbox.corpus import dialogues
from harness.sandbox.pretrain import Recipe, train_base
from harness.sandbox.tasks import Task, find_task, split_of
from harness.sandbox.tokenizer import UNKNOWN, build_tokenizer

COUNTS = {"sft": 800, "train": 800, "tuning": 300, "heldout": 600}
BASE = Path(harness.sandbox.__file__).parent / "base"


@pytest.fixture(scope="module")
def dataset():
    return build_dataset(COUNTS, 0.12, 0)


def identity(example) -> str:
    return Task.from_dict(example.metadata["task"]).identity


def orders(example) -> list[str]:
    """The identities of a question under every order of what it excludes."""
    family, *parts = identity(example).split("|")
    if family != "name":
        return [identity(example)]
    category, count, without, style = parts
    return ["|".join((family, category, count, " or ".join(p), style)) for p in permutations(without.split(" or "))]


def test_splits_are_full_and_distinct(dataset) -> None:
    assert {name: len(examples) for name, examples in dataset.splits.items()} == COUNTS
    questions = [example.prompt.text for examples in dataset.splits.values() for example in examples]
    assert len(set(questions)) == len(questions)


def test_no_held_out_question_is_in_any_training_text(dataset) -> None:
    """By identity, so under no wording either: not in SFT, not in the methods' prompts, not in the pre-training corpus."""
    held_out = {identity(e) for name in ("tuning", "heldout") for e in dataset[name]}
    trained = {identity(e) for name in ("sft", "train") for e in dataset[name]}
    twins = {twin for e in dataset["heldout"] for twin in orders(e)}
    assert held_out and trained and twins
    assert not held_out & trained
    assert not twins & trained
    assert all(split_of(twin) == "heldout" for e in dataset["heldout"] for twin in orders(e))
    questions = {e.prompt.text for name in ("tuning", "heldout") for e in dataset[name]}
    read = list(islice(dialogues(0), 30_000))
    assert len(read) == 30_000
    for dialogue in read:
        words = dialogue.user.split()
        tails = {" ".join(words[start:]) for start in range(len(words))}  # the question may follow a request for a rating
        assert not tails & questions


def test_about_twelve_per_cent_of_pairs_are_labelled_wrongly(dataset) -> None:
    wrong = total = 0
    for example in dataset["train"]:
        first, second = (marks(example, Response(text))["total"] for text in example.ranked)
        wrong += first < second
        total += 1
    assert wrong / total == pytest.approx(0.12, abs=0.035)


def test_targets_are_good_but_imperfect(dataset) -> None:
    golds = [marks(e, Response(e.target))["total"] for e in dataset["sft"]]
    assert 7.0 < sum(golds) / len(golds) < 8.0
    assert min(golds) < 4 and max(golds) == pytest.approx(10)


def test_every_word_of_the_world_is_in_the_vocabulary(dataset) -> None:
    tokenizer = build_tokenizer()
    texts = [text for e in dataset["heldout"] for text in (e.prompt.text, e.target, *e.ranked)]
    texts += [text for d in islice(dialogues(3), 500) for text in (d.user, d.assistant)]
    unknown = tokenizer.convert_tokens_to_ids(UNKNOWN)
    for ids, text in zip(tokenizer(texts)["input_ids"], texts, strict=True):
        assert unknown not in ids, text
        assert tokenizer.decode(ids) == text


def test_a_question_is_found_again(dataset) -> None:
    example = next(e for e in dataset["heldout"] if e.metadata["task"]["family"] == "steps")
    found = find_task(example.prompt.text)
    assert found is not None and found.expected == tuple(example.metadata["task"]["expected"])
    assert find_task("what is love ?") is None


def test_the_shipped_base_is_small_and_tells_its_recipe() -> None:
    assert sum(file.stat().st_size for file in BASE.glob("*.safetensors")) <= 8 * 2**20
    recipe = json.loads((BASE / "recipe.json").read_text())
    assert {name: recipe[name] for name in ("steps", "seed", "hidden_size")} == {
        name: getattr(Recipe(), name) for name in ("steps", "seed", "hidden_size")
    }
    tokenizer = json.loads((BASE / "tokenizer.json").read_text())
    assert tokenizer == json.loads(build_tokenizer().backend_tokenizer.to_str())


def test_pretraining_is_reproducible(tmp_path: Path) -> None:
    recipe = Recipe(hidden_size=16, layers=1, heads=2, intermediate_size=32, steps=4, tokens_per_step=512)
    losses: list[list[float]] = []
    for run in ("a", "b"):
        train_base(recipe, tmp_path / run)
        losses.append(json.loads((tmp_path / run / "recipe.json").read_text())["final_loss"])
    assert losses[0] == losses[1]
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("a", "b")]
    assert weights[0] == weights[1]
