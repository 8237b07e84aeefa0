"""Anthropic's HH-RLHF in its own format: two dialogues a line that differ in the assistant's last words.

`{"chosen": "\\n\\nHuman: …\\n\\nAssistant: …", "rejected": "\\n\\nHuman: …\\n\\nAssistant: …"}`, plain or gzipped.

Splits. Rows go to `heldout`, `tuning` and training by a hash of the whole prompt, folded as decontamination folds it: a hash of
the first turn alone would put all dialogues that open with "Hi" on one side. HH-RLHF holds many dialogues twice, cut at
different turns, and those cuts may fall on different sides. The `source` stage then leaves out the training rows that hold an
evaluated answer, or whose answer an evaluated prompt goes on from, and counts them as `continued`. By default `sft` and
`train` are the same rows, so that a small file is not cut in half. Self-Contrast (arXiv 2404.00604, section 3.1) does alike:
on HH-RLHF it fine-tunes on the chosen responses of 160k dialogues and trains preferences on 16k of them; here the budget
takes the part. So the starting model has seen every `train` target, and only `heldout` and `tuning` are new to it.
`sft_share` makes the two disjoint.

Text. One space after `Human:` and `Assistant:` belongs to the format. Otherwise `kept_text` says what of a turn is kept.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from harness import DataError, Dataset, Example, Message, Paper, Prompt, Source, fold, fold_spacing, read_json_rows

_MARKER = re.compile(r"\n\n(Human|Assistant):")
_INDENTED_BY_ONE = re.compile(r"\n \S")
_BLANK_LINES = re.compile(r"\A(?:[^\S\n]*\n)+")
_FIX = "pass Anthropic's file, plain or gzipped, with `--set source.path=FILE`"


@dataclass(frozen=True)
class Dialogue:
    """One line's pair: the turns that both share, and the two last words."""

    messages: tuple[Message, ...]
    chosen: str
    rejected: str

    @property
    def identity(self) -> tuple[str, ...]:
        """Equal for two rows that ask the same and rank the same two responses, in either order."""
        return (
            *(fold_spacing(message.content) for message in self.messages),
            *sorted(map(fold_spacing, (self.chosen, self.rejected))),
        )


class HHRLHF(Source):
    """Human preferences between two continuations of a dialogue, from a file in HH-RLHF's format."""

    name: ClassVar[str] = "hh_rlhf"
    version: ClassVar[int] = 2
    paper: ClassVar[Paper | None] = Paper(
        title="Training a Helpful and Harmless Assistant with Reinforcement Learning from Human Feedback", arxiv="2204.05862"
    )
    provides: ClassVar[frozenset[Literal["target", "ranked", "gold", "benchmarks"]]] = frozenset({"target", "ranked"})

    path: str = Field("", description="the file: JSON lines or an array, plain or gzipped, `chosen` and `rejected` in each row")
    heldout_share: float = Field(0.2, gt=0, lt=1, description="share of dialogues kept for evaluation")
    tuning_share: float = Field(0.05, ge=0, lt=1, description="share of dialogues kept for choosing hyper-parameters")
    sft_share: float | None = Field(
        None, gt=0, lt=1, description="share of dialogues for SFT alone; unset, SFT and preference training share theirs"
    )
    max_characters: int = Field(
        4000, ge=20, description="a row whose longer dialogue has more characters is dropped whole, never cut"
    )
    seed: int = Field(0, ge=0, description="decides which dialogues are held out")

    @model_validator(mode="after")
    def _something_is_left(self) -> HHRLHF:
        if self.heldout_share + self.tuning_share + (self.sft_share or 0.0) >= 1:
            raise ValueError("heldout_share + tuning_share + sft_share must be below 1, or nothing is left to train on")
        return self

    def load(self) -> Dataset:
        """Every usable row, in the file's order within its split; `dropped` says why others are not."""
        splits: dict[Literal["sft", "train", "tuning", "heldout"], list[Example]]
        splits = {"sft": [], "train": [], "tuning": [], "heldout": []}
        dropped: Counter[str] = Counter()
        seen: set[tuple[str, ...]] = set()
        for line, chosen, rejected in _rows(self._file()):
            pair = split_pair(chosen, rejected)
            if isinstance(pair, str):
                dropped[pair] += 1
            elif max(len(chosen), len(rejected)) > self.max_characters:
                dropped[f"longer than {self.max_characters} characters"] += 1
            elif pair.identity in seen:
                dropped["duplicate"] += 1
            else:
                seen.add(pair.identity)
                splits[self._split_of(pair)].append(_example(line, pair))
        if self.sft_share is None:
            splits["sft"] = splits["train"]
        if not splits["train"]:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())) or "the file is empty"
            raise DataError(f"{self.path}: no row is left to train on ({reasons}); {_FIX}")
        return Dataset({name: tuple(rows) for name, rows in splits.items()}, dict(sorted(dropped.items())))

    def fingerprint(self) -> str:
        """SHA-256 of the file as it lies on disk."""
        with self._file().open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def problems(self) -> Sequence[tuple[str, str]]:
        file = Path(self.path).expanduser()
        if not self.path:
            return [("path", f"it is not set: {_FIX}")]
        if not file.is_file():
            return [("path", f"{'a folder' if file.is_dir() else 'no such file'}; {_FIX}")]
        return ()

    def _file(self) -> Path:
        for field, fix in self.problems():
            raise DataError(f"source.{field} = {self.path!r}: {fix}")
        return Path(self.path).expanduser()

    def _split_of(self, pair: Dialogue) -> Literal["sft", "train", "tuning", "heldout"]:
        place = place_of(self.seed, pair.messages)
        if place < self.heldout_share:
            return "heldout"
        if place < self.heldout_share + self.tuning_share:
            return "tuning"
        return "sft" if place < self.heldout_share + self.tuning_share + (self.sft_share or 0.0) else "train"


def place_of(seed: int, messages: Sequence[Message]) -> float:
    """Return a number in [0, 1) that the seed and the whole prompt decide; one for all prompts that fold alike."""
    return number_of("\n".join([str(seed), *(f"{message.role}\t{fold(message.content)}" for message in messages)]))


def number_of(text: str) -> float:
    """Return a number in [0, 1) that the text decides."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64


def _rows(file: Path) -> Iterator[tuple[int, str, str]]:
    """(number from 1, chosen dialogue, rejected dialogue) of each row."""
    for where, number, row in read_json_rows(file):
        if isinstance(row, ValueError):
            raise DataError(f"{where}: {row}") from row
        if not isinstance(row, dict):
            raise DataError(f"{where}: a {type(row).__name__}, not an object with `chosen` and `rejected`")
        for key in ("chosen", "rejected"):
            if not isinstance(row.get(key), str):
                problem = "is not a text" if key in row else "is missing"
                raise DataError(f"{where}: `{key}` {problem}; found: {', '.join(sorted(row)) or 'no keys'}")
        yield number, row["chosen"], row["rejected"]


def split_pair(chosen: str, rejected: str) -> Dialogue | str:
    """The pair split before the assistant's last turn, or the reason why it cannot be used."""
    first, second = turns(chosen), turns(rejected)
    if first is None or second is None:
        return "malformed turn order"
    if first[:-1] != second[:-1]:
        return "prompts differ"
    if not first[-1].content or not second[-1].content:
        return "empty response"
    if not all(message.content for message in first):
        return "empty turn"
    if first[-1] == second[-1]:
        return "identical pair"
    return Dialogue(tuple(first[:-1]), first[-1].content, second[-1].content)


def turns(dialogue: str) -> list[Message] | None:
    """The turns' text; None unless human and assistant take turns, the human first and the assistant last."""
    before, *parts = _MARKER.split(dialogue if dialogue.startswith("\n\n") else "\n\n" + dialogue)
    speakers, texts = parts[0::2], parts[1::2]
    if before.strip() or not speakers or speakers != ["Human", "Assistant"] * (len(speakers) // 2):
        return None
    return [
        Message("user" if speaker == "Human" else "assistant", kept_text(text.removeprefix(" ")))
        for speaker, text in zip(speakers, texts, strict=True)
    ]


def kept_text(text: str) -> str:
    """Return a turn's text without blank lines before it and white space after it; its indentation stays.

    A single space before it is the separator of prompt-completion formats, and goes too, unless another line is indented by
    one space as well, as lists are.
    """
    text = _BLANK_LINES.sub("", text).rstrip()
    separator = text[:1] == " " and not text[1:2].isspace() and not _INDENTED_BY_ONE.search(text)
    return text[1:] if separator else text


def _example(line: int, pair: Dialogue) -> Example:
    return Example(
        prompt=Prompt(f"hh-{line}", pair.messages),
        target=pair.chosen,
        ranked=(pair.chosen, pair.rejected),
        metadata={"line": line},
    )
