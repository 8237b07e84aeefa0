"""The rows of a source and the groups that a method trains on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.api.types.dialogue import Prompt, Response

SplitName = Literal["sft", "train", "tuning", "heldout"]


@dataclass(frozen=True)
class Example:
    """One row of a source.

    Attributes:
        prompt: the question.
        target: the SFT target, where the source has one.
        ranked: responses from best to worst as the source labels them; two of them are a preference pair.
        metadata: anything its evaluators need, JSON-serialisable.
    """

    prompt: Prompt
    target: str | None = None
    ranked: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """A source's rows by split, and how many rows were dropped and why."""

    splits: Mapping[SplitName, tuple[Example, ...]]
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, split: SplitName) -> tuple[Example, ...]:
        return self.splits.get(split, ())


@dataclass(frozen=True)
class Group:
    """The unit of training: one prompt, one chosen response, m ≥ 0 rejected ones.

    Attributes:
        info: numbers about how the group was made, averaged into the build report (e.g. similarity of its negatives).
    """

    prompt: Prompt
    chosen: Response
    rejected: tuple[Response, ...] = ()
    info: Mapping[str, float] = field(default_factory=dict)
