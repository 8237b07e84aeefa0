"""Questions of the sandbox: eight families, each asking for a list of items in a stated format.

Every family is easy to know (a lookup, a copy, a small sum) so that what separates two answers is mostly what their author
chose to do. A question's *identity* (family, parameters, format; not its wording) decides by hash whether it belongs to
training, tuning or held-out, so no held-out question occurs in any training text under another wording.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.sandbox.language import CATEGORIES, COUNT_WORDS, FORMATS, OBJECTS, OPPOSITES, RECIPES

HELDOUT_SHARE, TUNING_SHARE = 0.12, 0.06


@dataclass(frozen=True)
class Task:
    """One question and how to mark an answer to it.

    Attributes:
        question: the user turn, lower-case words separated by spaces.
        family: one of `FAMILIES`.
        format: the list format the question asks for, a key of `language.FORMATS`.
        count: how many items the question asks for.
        expected: the right items in order; for unordered families every right item (at least `count` of them).
        ordered: whether item i of an answer must equal `expected[i]`.
        distractors: items a mistaken answer may use.
    """

    question: str
    family: str
    format: str
    count: int
    expected: tuple[str, ...]
    ordered: bool
    distractors: tuple[str, ...]
    identity: str

    def as_dict(self) -> Mapping[str, object]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Task:
        return cls(**{**fields, "expected": tuple(fields["expected"]), "distractors": tuple(fields["distractors"])})

    @property
    def split(self) -> str:
        """`heldout`, `tuning` or `train`: decided by the identity alone."""
        return split_of(self.identity)

    @property
    def nowhere_else(self) -> bool:
        """Whether the same question, its exclusions in another order, is in the same split: no twin is trained on."""
        family, *parameters = self.identity.split("|")
        twins = [self.identity]
        if family == "name":
            category, count, without, style = parameters
            swapped = " or ".join(reversed(without.split(" or ")))
            twins.append("|".join((family, category, count, swapped, style)))
        return all(split_of(identity) == self.split for identity in twins)


def split_of(identity: str) -> str:
    """`heldout`, `tuning` or `train`, by hash."""
    draw = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4], "big") / 2**32
    if draw < HELDOUT_SHARE:
        return "heldout"
    return "tuning" if draw < HELDOUT_SHARE + TUNING_SHARE else "train"


@dataclass(frozen=True)
class _Draft:
    """A family's draw before wording and format are added."""

    wordings: tuple[str, ...]
    parameters: str
    expected: tuple[str, ...]
    count: int
    ordered: bool
    distractors: tuple[str, ...]


def _join(items: list[str]) -> str:
    return " , ".join(items)


def _numbers(rng: random.Random, count: int) -> list[int]:
    return rng.sample(range(1, 21), count)


def _add(rng: random.Random) -> _Draft:
    step, numbers = rng.randint(1, 5), _numbers(rng, rng.randint(3, 4))
    given = _join([str(number) for number in numbers])
    return _Draft(
        (f"add {step} to each of these numbers : {given} .", f"what do you get when you add {step} to each of : {given} ?"),
        f"{step}|{given}",
        tuple(str(number + step) for number in numbers),
        len(numbers),
        True,
        tuple(str(number) for number in range(1, 26)),
    )


def _sort(rng: random.Random) -> _Draft:
    numbers, descending = _numbers(rng, rng.randint(3, 5)), rng.random() < 0.5
    given = _join([str(number) for number in numbers])
    direction = "from high to low" if descending else "from low to high"
    return _Draft(
        (f"sort these numbers {direction} : {given} .", f"put the numbers {given} in order {direction} ."),
        f"{direction}|{given}",
        tuple(str(number) for number in sorted(numbers, reverse=descending)),
        len(numbers),
        True,
        tuple(str(number) for number in range(1, 21)),
    )


def _words(rng: random.Random, count: int) -> list[str]:
    return rng.sample([word for words in CATEGORIES.values() for word in words], count)


def _reverse(rng: random.Random) -> _Draft:
    words = _words(rng, rng.randint(3, 5))
    return _Draft(
        (f"reverse this list : {_join(words)} .", f"write these words from last to first : {_join(words)} ."),
        _join(words),
        tuple(reversed(words)),
        len(words),
        True,
        tuple(words),
    )


def _filter(rng: random.Random) -> _Draft:
    category = rng.choice(sorted(CATEGORIES))
    wanted = rng.sample(CATEGORIES[category], rng.randint(2, 4))
    others = [word for name, words in CATEGORIES.items() if name != category for word in words]
    shown = wanted + rng.sample(others, rng.randint(2, 3))
    rng.shuffle(shown)
    return _Draft(
        (f"which of these are {category} : {_join(shown)} ?", f"pick all the {category} from : {_join(shown)} ."),
        f"{category}|{_join(shown)}",
        tuple(wanted),
        len(wanted),
        False,
        tuple(shown),
    )


def _name(rng: random.Random) -> _Draft:
    category, count = rng.choice(sorted(CATEGORIES)), rng.randint(2, 5)
    banned = rng.sample(CATEGORIES[category], rng.randint(1, 2))
    number, without = COUNT_WORDS[count], " or ".join(banned)
    return _Draft(
        (f"name {number} {category} but not {without} .", f"tell me {number} {category} other than {without} ."),
        f"{category}|{count}|{without}",
        tuple(word for word in CATEGORIES[category] if word not in banned),
        count,
        False,
        tuple(banned) + tuple(word for name, words in CATEGORIES.items() if name != category for word in words),
    )


def _steps(rng: random.Random) -> _Draft:
    dish, count = rng.choice(sorted(RECIPES)), rng.randint(2, 5)
    number = COUNT_WORDS[count]
    return _Draft(
        (f"give the first {number} steps for making {dish} .", f"how do i make {dish} ? give me the first {number} steps ."),
        f"{dish}|{count}",
        RECIPES[dish][:count],
        count,
        True,
        tuple(step for steps in RECIPES.values() for step in steps),
    )


def _describe(rng: random.Random) -> _Draft:
    thing, count = rng.choice(sorted(OBJECTS)), rng.randint(2, 5)
    number = COUNT_WORDS[count]
    return _Draft(
        (f"describe a {thing} in {number} points .", f"tell me {number} things about a {thing} ."),
        f"{thing}|{count}",
        OBJECTS[thing],
        count,
        False,
        tuple({fact for facts in OBJECTS.values() for fact in facts if fact not in OBJECTS[thing]}),
    )


def _opposite(rng: random.Random) -> _Draft:
    words = rng.sample(sorted(OPPOSITES), rng.randint(2, 4))
    return _Draft(
        (f"give the opposite of each word : {_join(words)} .", f"what are the opposites of {_join(words)} ?"),
        _join(words),
        tuple(OPPOSITES[word] for word in words),
        len(words),
        True,
        tuple(sorted(OPPOSITES)),
    )


FAMILIES: dict[str, Callable[[random.Random], _Draft]] = {
    "add": _add,
    "sort": _sort,
    "reverse": _reverse,
    "filter": _filter,
    "name": _name,
    "steps": _steps,
    "describe": _describe,
    "opposite": _opposite,
}


def draw_task(rng: random.Random, family: str | None = None) -> Task:
    """One question at random; of `family` if given. Any split: the caller filters on `Task.split`."""
    family = family or rng.choice(tuple(FAMILIES))
    draft = FAMILIES[family](rng)
    style = rng.choice(tuple(FORMATS))
    wording, request = rng.choice(draft.wordings), rng.choice(FORMATS[style])
    return Task(
        question=f"{wording} answer {request} .",
        family=family,
        format=style,
        count=draft.count,
        expected=draft.expected,
        ordered=draft.ordered,
        distractors=tuple(sorted(draft.distractors)),
        identity=f"{family}|{draft.parameters}|{style}",
    )


def find_task(question: str, draws: int = 200_000) -> Task | None:
    """The task that a question's text stands for, found by drawing its family again; None if it is no question."""
    wanted = " ".join(question.split())
    for family in FAMILIES:
        rng = random.Random(f"find {family}")
        probe = {draw_task(rng, family).question.split()[0] for _ in range(20)}
        if wanted.split()[:1] and wanted.split()[0] not in probe:
            continue
        for _ in range(draws // len(FAMILIES)):
            task = draw_task(rng, family)
            if task.question == wanted:
                return task
    return None
