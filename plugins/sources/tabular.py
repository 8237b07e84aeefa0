"""The base of sources of rows: a layout, a column map, splits, and one error that names the broken rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from harness import DataError, Dataset, Example, Prompt, Source, fold_spacing
from harness_plugins.sources.formats import READERS, FormatName, Record, Turn, UnusableError, desirable, mapped
from harness_plugins.sources.hh_rlhf import number_of, place_of

SplitName = Literal["sft", "train", "tuning", "heldout"]
Row = tuple[str, int, Any]  # where it stands, as "file, line 3"; its number from 1; what was read, or the error
SPLITS: tuple[SplitName, ...] = ("sft", "train", "tuning", "heldout")
SHOWN = 20  # broken rows named in the error, of all that are counted


class Tabular(Source):
    """Rows in a layout, cut into splits. Subclasses say where rows come from."""

    provides: ClassVar[frozenset[Literal["target", "ranked", "gold", "benchmarks"]]] = frozenset({"target", "ranked"})

    version: ClassVar[int] = 2

    format: FormatName = Field("standard", description="the rows' layout; `standard` is documented in docs/models-and-data.md")
    columns: Mapping[str, str] = Field(
        {},
        description="our name: the data set's, e.g. {prompt: instruction}; dots lead into objects; `reference` is the right "
        "answer for verifiers",
    )
    unpaired: Literal["refuse", "desirable"] = Field(
        "refuse",
        description="rows with TRL's `label` (true: desirable): refuse them, or read the desirable ones as targets "
        "and drop the others",
    )
    turn: Turn = Field("last", description="of a dialogue given as messages: which assistant turn is the target")
    heldout_share: float = Field(0.1, ge=0, lt=1, description="share of dialogues held out, where `splits` names no own ones")
    tuning_share: float = Field(0.0, ge=0, lt=1, description="the same for the tuning split")
    sft_share: float | None = Field(
        None, gt=0, lt=1, description="share of dialogues for SFT alone; unset, SFT and preference training share theirs"
    )
    turns: Mapping[SplitName, int] = Field(
        {},
        exclude_if=lambda turns: not turns,  # keys of configs without it stay
        description="most user turns of a split's prompts, e.g. {heldout: 1}: single-turn dialogues; others are dropped",
    )
    most: Mapping[SplitName, int] = Field({}, description="most examples of a split, drawn by the seed, e.g. {train: 16000}")
    max_characters: int | None = Field(
        None, ge=20, description="a row is dropped whole if its prompt and longest response have more characters together"
    )
    seed: int = Field(0, ge=0, description="decides which dialogues are held out and which are drawn")

    @model_validator(mode="after")
    def _something_is_left(self) -> Tabular:
        if self.heldout_share + self.tuning_share + (self.sft_share or 0.0) >= 1:
            raise ValueError("heldout_share + tuning_share + sft_share must be below 1, or nothing is left to train on")
        if any(count < 1 for count in self.most.values()):
            raise ValueError("a split's `most` should be at least 1")
        if any(count < 1 for count in self.turns.values()):
            raise ValueError("a split's `turns` should be at least 1: a prompt ends with a user turn")
        return self

    def pools(self) -> Mapping[SplitName, Iterator[Row]]:
        """The rows of every split that the source itself has; `train` is among them."""
        raise NotImplementedError

    def place(self) -> str:
        """The name that errors about all rows give: the file or the data set."""
        return f"source {self.name}"

    def sizes(self) -> Mapping[SplitName, int]:
        return dict(self.most)

    def offers(self) -> frozenset[str]:
        return self.provides | ({"reference"} if "reference" in self.columns else frozenset())

    def load(self) -> Dataset:
        """Every usable row, in the source's order within its split; `dropped` says why others are not.

        Raises:
            DataError: rows that are not in the layout, all of them counted and the first named; or nothing to train on.
        """
        reading = _Reading(self)
        pools = {split: reading.examples(split, rows) for split, rows in self.pools().items()}
        reading.finish()
        splits: dict[SplitName, list[Example]] = {split: [] for split in SPLITS}
        for split, examples in pools.items():
            for example in examples:
                splits[self._split_of(example, frozenset(pools)) if split == "train" else split].append(example)
        if "sft" not in pools and self.sft_share is None:
            splits["sft"] = splits["train"]
        if not splits["train"]:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(reading.dropped.items())) or "it is empty"
            fix = f"give rows in the layout {self.format!r}, or set `source.format` to theirs"
            raise DataError(f"{self.place()}: no row is left to train on ({reasons}); {fix}")
        for split, most in self.turns.items():
            short = [example for example in splits[split] if _user_turns(example) <= most]
            reading.dropped[f"more than {most} user turns ({split})"] += len(splits[split]) - len(short)
            splits[split] = short
        if not splits["train"]:
            raise DataError(
                f"{self.place()}: no row of `train` has at most {self.turns['train']} user turns: raise source.turns"
            )
        drawn = {split: tuple(self._drawn(split, rows)) for split, rows in splits.items()}
        return Dataset(drawn, dict(sorted(reading.dropped.items())))

    def _split_of(self, example: Example, own: frozenset[SplitName]) -> SplitName:
        """By the whole prompt. Cuts of one dialogue that fall on different sides are left out by the `source` stage."""
        place = place_of(self.seed, example.prompt.messages)
        shares: tuple[tuple[SplitName, float], ...]
        shares = (("heldout", self.heldout_share), ("tuning", self.tuning_share), ("sft", self.sft_share or 0.0))
        for split, share in shares:
            if split not in own:
                if place < share:
                    return split
                place -= share
        return "train"

    def _drawn(self, split: SplitName, examples: Sequence[Example]) -> list[Example]:
        count = self.most.get(split)
        if count is None or len(examples) <= count:
            return list(examples)
        order = sorted(examples, key=lambda example: number_of(f"{self.seed}\n{split}\n{example.prompt.id}"))
        chosen = {example.prompt.id for example in order[:count]}
        return [example for example in examples if example.prompt.id in chosen]


def _user_turns(example: Example) -> int:
    return sum(message.role == "user" for message in example.prompt.messages)


class _Reading:
    """One pass over a source's rows: examples out, reasons counted, broken rows remembered."""

    def __init__(self, source: Tabular) -> None:
        self.source = source
        self.dropped: Counter[str] = Counter()
        self.broken = 0
        self.shown: list[str] = []
        self.seen: set[tuple[str, ...]] = set()

    def examples(self, split: SplitName, rows: Iterator[Row]) -> list[Example]:
        found = []
        for where, number, row in rows:
            try:
                if isinstance(row, ValueError):
                    raise row
                if not isinstance(row, Mapping):
                    raise ValueError(f"a {type(row).__name__}, not an object")
                columns = desirable(mapped(row, self.source.columns), self.source.unpaired == "desirable")
                record = READERS[self.source.format](columns, self.source.turn)
                found.append(self._example(split, number, record, self._reference(columns)))
            except UnusableError as reason:
                self.dropped[str(reason)] += 1
            except ValueError as error:
                self.broken += 1
                if len(self.shown) < SHOWN:
                    self.shown.append(f"{where}: {error}")
        return found

    def _example(self, split: SplitName, number: int, record: Record, reference: Mapping[str, str]) -> Example:
        responses = [text for text in (record.target, *record.ranked) if text is not None]
        if not responses or not all(responses):
            raise UnusableError("empty response")
        if len(record.ranked) > 1 and len(set(record.ranked)) == 1:
            raise UnusableError("identical pair")
        asked = [message.content for message in record.messages]
        limit = self.source.max_characters
        if limit is not None and sum(map(len, asked)) + max(map(len, responses)) > limit:
            raise UnusableError(f"longer than {limit} characters")
        identity = (*map(fold_spacing, asked), "", *sorted(map(fold_spacing, responses)))
        if identity in self.seen:
            raise UnusableError("duplicate")
        self.seen.add(identity)
        prompt = Prompt(f"{split}-{number}", record.messages)
        writer = {} if record.writer is None else {"writer": record.writer}
        return Example(prompt, record.target, record.ranked, {"row": number, **writer, **reference})

    def _reference(self, columns: Mapping[str, Any]) -> dict[str, str]:
        """Return the row's reference answer for verifiers, where `columns` names one; numbers as text."""
        if "reference" not in self.source.columns:
            return {}
        value = columns["reference"]
        if value is None or isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
            raise ValueError(f"`reference` should be text or a number, and is {value!r}")
        return {"reference": str(value)}

    def finish(self) -> None:
        if self.broken:
            more = f"\n  … and {self.broken - SHOWN} more" if self.broken > SHOWN else ""
            count = "1 row is" if self.broken == 1 else f"{self.broken} rows are"
            listed = "".join(f"\n  - {problem}" for problem in self.shown)
            raise DataError(f"{count} not in the layout {self.source.format!r}:{listed}{more}")
