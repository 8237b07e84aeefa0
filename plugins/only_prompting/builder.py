"""Only-prompting's data: two requests for the same prompt (§3.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from harness import BuildTask, DataBuilder, Group, Paper, Prompt, Response
from harness_plugins.only_prompting.cleaning import without_announcements

PAPER = Paper("Just say what you want: only-prompting self-rewarding online preference optimization", "2409.17534", "§3.3")

CHOSEN_PREFIX = "Please produce a top-notch response that merits a perfect score of 10 out of 10."
REJECTED_PREFIX = "Please produce a good response that merits a perfect score of {score} out of 10."

_SIDES = {(True, False): "the chosen side", (False, True): "the rejected side", (True, True): "both sides"}


class OnlyPrompting(DataBuilder):
    """Chosen: sampled under a prefix that asks for 10 out of 10. Rejected: under one that asks for `rejected_score`.

    The training pair uses the prompt without a prefix. A response that announces its own score is redundant information (§4.3):
    its pair is dropped, or with `clean: strip` the announcement is cut off. Pairs with an empty side or equal sides are dropped
    too. All are counted.
    """

    name: ClassVar[str] = "only_prompting"
    version: ClassVar[int] = 2
    paper: ClassVar[Paper | None] = PAPER

    rejected_score: int = Field(3, ge=1, le=9, description="s, the score asked of the rejected response")
    chosen_prefix: str = Field(CHOSEN_PREFIX, min_length=1, description="goes before the prompt of the chosen response")
    rejected_prefix: str = Field(REJECTED_PREFIX, min_length=1, description="the same for the rejected; {score} becomes s")
    temperature: float = Field(1.0, gt=0, description="of both samples")
    clean: Literal["drop", "strip"] = Field(
        "drop",
        description="where a response announces its own score: drop the pair, as the paper does, or strip the announcement",
    )

    def responses_per_prompt(self) -> int:
        return 2  # one of each prefix

    def build(self, task: BuildTask) -> Iterable[Group]:
        chosen = task.sample(1, prefix=self.chosen_prefix, temperature=self.temperature)
        prefix = self.rejected_prefix.replace("{score}", str(self.rejected_score))
        rejected = task.sample(1, prefix=prefix, temperature=self.temperature)
        for example, (best,), (worse,) in zip(task.examples, chosen, rejected, strict=True):
            good, bad = cleaned(best, example.prompt), cleaned(worse, example.prompt)
            announced = (good is not best, bad is not worse)
            if self.clean == "drop" and any(announced):
                task.count(f"{_SIDES[announced]} announced a score")
            elif not good.text or not bad.text:
                task.count("nothing left on one side")
            elif good.text == bad.text:
                task.count("equal sides")
            else:
                stripped = {"chosen_stripped": float(announced[0]), "rejected_stripped": float(announced[1])}
                yield Group(example.prompt, good, (bad,), stripped if self.clean == "strip" else {})


def cleaned(response: Response, prompt: Prompt) -> Response:
    """Return the response without what it says of its own score; the response itself where it says nothing of the kind."""
    text = without_announcements(response.text, prompt.text)
    return response if text == response.text else replace(response, text=text, ids=None)
