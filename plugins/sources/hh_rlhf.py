"""Anthropic's HH-RLHF in its own format: two dialogues a line that differ in the assistant's last words.

`{"chosen": "\\n\\nHuman: …\\n\\nAssistant: …", "rejected": "\\n\\nHuman: …\\n\\nAssistant: …"}`, plain or gzipped.

Splits. Rows go to `heldout`, `tuning` and training by a hash of the normalised first human turn. That is stricter than the
prompt: HH-RLHF holds many dialogues twice, cut at different turns, and a held-out answer would else stand in a training
prompt. By default `sft` and `train` are the same rows, so that a small file is not cut in half. Self-Contrast (arXiv
2404.00604, section 3.1) does alike: on HH-RLHF it fine-tunes on the chosen responses of 160k dialogues and trains
preferences on 16k of them; here the budget takes the part. So the starting model has seen every `train` target, and only
`heldout` and `tuning` are new to it. `sft_share` makes the two disjoint.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from harness import DataError, Dataset, Example, Message, Paper, Prompt, Source

_MARKER = re.compile(r"\n\n(Human|Assistant):")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_GZIP = b"\x1f\x8b"
LONGEST_LINE = 32_000_000  # bytes, unpacked; a gzipped line without an end must not fill the memory
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
            *(normalised(message.content) for message in self.messages),
            *sorted(map(normalised, (self.chosen, self.rejected))),
        )


class HHRLHF(Source):
    """Human preferences between two continuations of a dialogue, from a file in HH-RLHF's format."""

    name: ClassVar[str] = "hh_rlhf"
    paper: ClassVar[Paper | None] = Paper(
        title="Training a Helpful and Harmless Assistant with Reinforcement Learning from Human Feedback", arxiv="2204.05862"
    )
    provides: ClassVar[frozenset[Literal["target", "ranked", "gold", "benchmarks"]]] = frozenset({"target", "ranked"})

    path: str = Field("", description="the file: JSONL or gzipped JSONL, `chosen` and `rejected` in each line")
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
        """By the dialogue's opening, so that no dialogue, however long, is in two splits."""
        opening = f"{self.seed}\n{normalised(pair.messages[0].content)}"
        place = int.from_bytes(hashlib.sha256(opening.encode()).digest()[:8]) / 2**64
        if place < self.heldout_share:
            return "heldout"
        if place < self.heldout_share + self.tuning_share:
            return "tuning"
        return "sft" if place < self.heldout_share + self.tuning_share + (self.sft_share or 0.0) else "train"


def _rows(file: Path) -> Iterator[tuple[int, str, str]]:
    """(line number from 1, chosen dialogue, rejected dialogue); blank lines are skipped."""
    for number, line in lines(file):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise DataError(f"{file}, line {number}: a {type(row).__name__}, not an object with `chosen` and `rejected`")
        for key in ("chosen", "rejected"):
            if not isinstance(row.get(key), str):
                problem = "is not a text" if key in row else "is missing"
                raise DataError(f"{file}, line {number}: `{key}` {problem}; found: {', '.join(sorted(row)) or 'no keys'}")
            if _SURROGATE.search(row[key]):
                raise DataError(f"{file}, line {number}: `{key}` holds half a surrogate pair, which is no text")
        yield number, row["chosen"], row["rejected"]


def lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers; compression is told by the first bytes, not by the name."""
    with file.open("rb") as stream:
        compressed = stream.read(2) == _GZIP
    number = 0
    try:
        with gzip.open(file) if compressed else file.open("rb") as stream:
            for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE + 1), b""), 1):
                if len(line) > LONGEST_LINE:
                    raise DataError(f"{file}, line {number}: it is longer than {LONGEST_LINE:,} bytes: is it one row per line?")
                if line.strip():
                    yield number, line
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}, after line {number}: cannot be read ({error}); is the download complete?") from error


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
    """The turns, stripped; None unless human and assistant take turns, the human first and the assistant last."""
    before, *parts = _MARKER.split(dialogue if dialogue.startswith("\n\n") else "\n\n" + dialogue)
    speakers, texts = parts[0::2], parts[1::2]
    if before.strip() or not speakers or speakers != ["Human", "Assistant"] * (len(speakers) // 2):
        return None
    return [
        Message("user" if speaker == "Human" else "assistant", text.strip())
        for speaker, text in zip(speakers, texts, strict=True)
    ]


def normalised(text: str) -> str:
    """Compatibility forms, case and white space do not tell two texts apart."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _example(line: int, pair: Dialogue) -> Example:
    return Example(
        prompt=Prompt(f"hh-{line}", pair.messages),
        target=pair.chosen,
        ranked=(pair.chosen, pair.rejected),
        metadata={"line": line},
    )
