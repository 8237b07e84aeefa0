"""A mixture of other sources by weight."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from harness import DataError, Dataset, Example, PluginError, Response, Source, source_named

SplitName = Literal["sft", "train", "tuning", "heldout"]
SPLITS: tuple[SplitName, ...] = ("sft", "train", "tuning", "heldout")
PLACE = "mixed_from"  # in an example's metadata: the place of its source in the mixture
TWICE = "prompt of another source of the mixture"


class MixedSource(BaseModel):
    """One source of a mixture: its name, its own fields, and its weight."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = Field(description="a source's name, as `harness plugins list` shows it; its own fields stand beside it")
    weight: float = Field(
        gt=0, le=1_000_000, allow_inf_nan=False, description="its share of the examples, against the other weights"
    )

    @property
    def fields(self) -> dict[str, Any]:
        """The source's own fields."""
        return dict(self.model_extra or {})


class Mix(Source):
    """Several sources in one, by weight: each split holds their examples in these proportions, and so does its beginning."""

    name: ClassVar[str] = "mix"
    provides: ClassVar[frozenset[Literal["target", "ranked", "gold", "benchmarks"]]] = frozenset({"target", "ranked", "gold"})

    sources: tuple[MixedSource, ...] = Field(
        description="the sources, each with `name`, `weight` and its own fields; weights need not add up to 1"
    )

    @field_validator("sources")
    @classmethod
    def _are_sources(cls, sources: tuple[MixedSource, ...]) -> tuple[MixedSource, ...]:
        if len(sources) < 2:
            raise ValueError("a mixture needs two sources or more: write a single one as the source itself")
        for index, mixed in enumerate(sources):
            try:
                source_named(mixed.name, mixed.fields)
            except PluginError as error:
                raise ValueError(f"item {index}: {error}") from error
            except ValidationError as error:
                first = error.errors()[0]
                field = ".".join(str(part) for part in first["loc"])
                raise ValueError(f"item {index}: {mixed.name}.{field} = {first['input']!r}: {first['msg']}") from error
        return sources

    @cached_property
    def parts(self) -> tuple[Source, ...]:
        """The sources themselves, in the mixture's order."""
        return tuple(source_named(mixed.name, mixed.fields) for mixed in self.sources)

    @property
    def shares(self) -> tuple[float, ...]:
        """The weights, divided by their sum."""
        total = sum(mixed.weight for mixed in self.sources)
        return tuple(mixed.weight / total for mixed in self.sources)

    def offers(self) -> frozenset[str]:
        """Return what all its sources provide."""
        return frozenset.intersection(*(part.offers() for part in self.parts)) - {"benchmarks"}

    def problems(self) -> Sequence[tuple[str, str]]:
        """Return the problems of its sources' files."""
        return [(f"sources.{index}.{field}", fix) for index, part in enumerate(self.parts) for field, fix in part.problems()]

    def fingerprint(self) -> str:
        """Return a hash of the sources' versions, all their fields and their files."""
        described = [[part.name, part.version, part.model_dump(mode="json"), part.fingerprint()] for part in self.parts]
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def pinned(self) -> Self:
        """Return the mixture of pinned sources; one that is pinned already stays as it is written."""
        pinned = [part.pinned() for part in self.parts]
        if all(one == part for one, part in zip(pinned, self.parts, strict=True)):
            return self
        sources = [
            {"name": mixed.name, "weight": mixed.weight, **one.model_dump(mode="json")}
            for mixed, one in zip(self.sources, pinned, strict=True)
        ]
        return type(self)(sources=sources)

    def sizes(self) -> Mapping[SplitName, int]:
        """Return the most examples of each split whose size all sources know."""
        known = [part.sizes() for part in self.parts]
        common = [split for split in SPLITS if all(split in sizes for sizes in known)]
        return {split: _most([sizes[split] for sizes in known], self.shares) for split in common}

    def load(self) -> Dataset:
        """Return each split's examples, mixed. It ends where a source has no more, so that the proportions hold throughout.

        A prompt that several sources have is the first one's. A source without examples for a split takes no part in it.

        Raises:
            DataError: a source has nothing to train on.
        """
        loaded, dropped = [part.load() for part in self.parts], Counter[str]()
        for index, (mixed, dataset) in enumerate(zip(self.sources, loaded, strict=True)):
            dropped.update({f"{mixed.name} ({index}): {reason}": count for reason, count in dataset.dropped.items()})
            if not dataset["train"]:
                raise DataError(f"source mix, item {index}: {mixed.name} has nothing to train on: leave it out")
        splits: dict[SplitName, tuple[Example, ...]] = {}
        for split in SPLITS:
            rows, seen = list[list[Example]](), dict[Any, int]()
            for index, dataset in enumerate(loaded):
                first = [example for example in dataset[split] if seen.setdefault(example.prompt.messages, index) == index]
                dropped[TWICE] += len(dataset[split]) - len(first)
                rows.append([_marked(example, index) for example in first])
            splits[split] = tuple(_mixed(rows, self.shares))
        return Dataset(splits, {reason: count for reason, count in dropped.items() if count})

    def gold(self, example: Example, response: Response) -> Mapping[str, float]:
        """Return the marks by the source that the example is from."""
        own = {name: value for name, value in example.metadata.items() if name != PLACE}
        return self.parts[example.metadata[PLACE]].gold(replace(example, metadata=own), response)


def _marked(example: Example, index: int) -> Example:
    """Return an example that names its source; ids of different sources are made different."""
    prompt = replace(example.prompt, id=f"{index}:{example.prompt.id}")
    return replace(example, prompt=prompt, metadata={**example.metadata, PLACE: index})


def _most(counts: Sequence[int], shares: Sequence[float]) -> int:
    """Return how many examples a mixture of so many of each source has; those without any take no part."""
    return len(_order(counts, shares))


def _mixed(rows: Sequence[Sequence[Example]], shares: Sequence[float]) -> list[Example]:
    taken = [iter(examples) for examples in rows]
    return [next(taken[index]) for index in _order([len(examples) for examples in rows], shares)]


def _order(counts: Sequence[int], shares: Sequence[float]) -> list[int]:
    """Return the source of each place: always the one that is furthest behind its share, until that one has no more."""
    present = [index for index, count in enumerate(counts) if count]
    total = sum(shares[index] for index in present)
    order, taken = list[int](), Counter[int]()
    while present:
        index = max(present, key=lambda one: shares[one] / total * (len(order) + 1) - taken[one])
        if taken[index] == counts[index]:
            break
        taken[index] += 1
        order.append(index)
    return order
