"""Only-prompting's pairs, and what its cleaning finds: announced scores, and nothing else."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from harness import Example, Prompt, Response
from harness.sandbox.annotators import ANNOTATORS, answer
from harness.sandbox.tasks import FAMILIES, draw_task
from harness_plugins.only_prompting.builder import CHOSEN_PREFIX, REJECTED_PREFIX, OnlyPrompting, cleaned
from harness_plugins.only_prompting.cleaning import without_announcements

LABELLED = yaml.safe_load(Path(__file__).with_name("announcements.yaml").read_text())
PAPERS = "Okay, here is a 10-score answer: Paris."


@dataclass
class ScriptedTask:
    """A `BuildTask` whose samples are given by prefix."""

    by_prefix: dict[str, list[str]]
    counted: dict[str, int] = field(default_factory=dict)

    @property
    def examples(self) -> list[Example]:
        return [Example(Prompt.of(str(place), "capital?")) for place in range(len(self.by_prefix[CHOSEN_PREFIX]))]

    def sample(self, n, *, prefix="", temperature=1.0, top_p=1.0, policy="current"):
        assert n == 1
        return [[Response(text)] for text in self.by_prefix[prefix]]

    def count(self, reason, examples=1):
        self.counted[reason] = self.counted.get(reason, 0) + examples


def task(chosen: list[str], rejected: list[str], score: int = 3) -> ScriptedTask:
    return ScriptedTask({CHOSEN_PREFIX: chosen, REJECTED_PREFIX.replace("{score}", str(score)): rejected})


def test_a_pair_is_asked_for_twice_and_trained_without_the_prefix() -> None:
    scripted = task(["well said", "same", "fine"], ["so so", "same", ""], score=5)
    (group,) = OnlyPrompting(rejected_score=5).build(scripted)
    assert (group.prompt.text, group.chosen.text, group.rejected[0].text) == ("capital?", "well said", "so so")
    assert dict(group.info) == {}
    assert scripted.counted == {"equal sides": 1, "nothing left on one side": 1}


def test_a_pair_with_an_announced_score_is_dropped_and_counted_by_side() -> None:
    scripted = task([PAPERS, "fine", PAPERS, "Paris."], ["Lyon.", "Lyon. Score: 3/10", "3/10 answer: Lyon.", "Lyon."])
    (group,) = OnlyPrompting().build(scripted)
    assert (group.chosen.text, group.rejected[0].text) == ("Paris.", "Lyon.")
    sides = ("the chosen side", "the rejected side", "both sides")
    assert scripted.counted == {f"{side} announced a score": 1 for side in sides}


def test_strip_keeps_the_rest_and_notes_which_side_was_cut() -> None:
    scripted = task([PAPERS, "Paris.", PAPERS], ["Lyon.", "Here is a 3/10 answer: Lyon.", "Score: 3/10"])
    groups = list(OnlyPrompting(clean="strip").build(scripted))
    assert [(group.chosen.text, group.rejected[0].text) for group in groups] == [("Paris.", "Lyon.")] * 2
    assert [(group.info["chosen_stripped"], group.info["rejected_stripped"]) for group in groups] == [(1, 0), (0, 1)]
    assert scripted.counted == {"nothing left on one side": 1}


def test_stripped_text_is_tokenized_again_and_other_text_keeps_its_ids() -> None:
    prompt, sampled = Prompt.of("x", "capital?"), Response(PAPERS, True, 9, (7, 3))
    assert (cleaned(sampled, prompt).ids, cleaned(sampled, prompt).tokens) == (None, 9)
    plain = Response("Paris.", True, 2, (7, 3))
    assert cleaned(plain, prompt) is plain


def test_an_announced_score_goes_and_its_answer_stays() -> None:
    given = {text: (without_announcements(text), rest) for text, rest in LABELLED["announced"]}
    missed = {text for text, (kept, _) in given.items() if kept == text}
    assert {text for text, (kept, rest) in given.items() if kept != rest} == missed, "what is cut is cut at the right place"
    assert missed == {
        "Response:\n\n10/10\n\nParis.",
        "Title: 10/10 Response\n\nParis.",
        "Paris.\n\nConfidence: 10/10",
        "Paris.\n\nThank you for the opportunity to merit a perfect score!",
        "Paris.\n\nI would rate it a 10 out of 10.",
    }


def test_an_answer_that_announces_nothing_stays() -> None:
    plain = [*LABELLED["plain"], *LABELLED["later_plain"]]
    assert [text for text in plain if without_announcements(text) != text] == []
    assert len(plain) == 201


@pytest.mark.parametrize(("prompt", "text"), LABELLED["asked"])
def test_a_rating_that_the_prompt_asks_for_stays(prompt: str, text: str) -> None:
    assert without_announcements(text, prompt) == text
    assert without_announcements(text) != text or text == "10/10", "the same rating is an announcement elsewhere"


def test_the_rates_of_leaks_and_damage_are_those_on_the_plugins_page() -> None:
    plain = [*LABELLED["plain"], *LABELLED["later_plain"], *(text for _, text in LABELLED["asked"])]
    leaks = [text for text, _ in LABELLED["announced"] if without_announcements(text) == text]
    later = [text for text, _ in LABELLED["later"] if without_announcements(text) == text]
    page = (Path(__file__).parents[2] / "plugins" / "only_prompting" / "README.md").read_text()
    assert f"{len(leaks)} of {len(LABELLED['announced'])}" in page
    assert f"{len(later)} of {len(LABELLED['later'])}" in page
    assert f"none of {len(plain)}" in page
    assert len(LABELLED["announced"]) + len(plain) >= 200


def test_no_answer_of_the_sandbox_is_taken_for_an_announcement() -> None:
    rng = random.Random(0)
    for _ in range(1000):
        text = answer(draw_task(rng, rng.choice(list(FAMILIES))), rng.choice(ANNOTATORS), rng)
        assert without_announcements(text) == text


@pytest.mark.parametrize("piece", ["here is a ", "10/10 ", "this answer merits a ", "9 ", " ", "sure! ", "(((**", "a", "\n"])
def test_long_odd_texts_are_read_in_time_proportional_to_their_length(piece: str) -> None:
    """Runs of blanks or digits make unbounded patterns go over them again and again: 2,000 blanks once took 42 s."""
    assert len(without_announcements(f"a{piece * 20_000}b")) <= 20_000 * len(piece) + 2
