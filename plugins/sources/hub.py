"""Data sets of the Hugging Face hub, pinned to a commit, and the layouts of four that papers use."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field

from harness import DataError, Paper, hub_commit, hub_snapshot
from harness_plugins.sources.arrow_json import check_csv, check_json
from harness_plugins.sources.formats import FormatName
from harness_plugins.sources.tabular import Row, SplitName, Tabular

_FILES = ("*.parquet", "*.json", "*.jsonl", "*.json.gz", "*.jsonl.gz", "*.csv", "*.arrow", "README.md")


class Hub(Tabular):
    """Any data set of the hub, or a local copy of its repository, in a known layout or with a column map."""

    name: ClassVar[str] = "hub"

    dataset: str = Field("", description="owner/name on the hub, or a local folder with the repository's files")
    revision: str | None = Field(None, description="a branch, tag or commit; planning pins it to the commit it stands for")
    config: str | None = Field(None, description="the data set's configuration (subset), where it has several")
    folder: str | None = Field(None, description="a folder of the repository to read alone, e.g. harmless-base")
    split: str = Field("train", description="the data set's own split to train on")
    splits: Mapping[SplitName, str] = Field({}, description="own splits for others of ours, e.g. {heldout: test_prefs}")

    def pinned(self) -> Self:
        """The same with the revision as a commit."""
        return self if self._local else self.model_copy(update={"revision": hub_commit(self.dataset, self.revision, "dataset")})

    def problems(self) -> Sequence[tuple[str, str]]:
        if not self.dataset:
            return [("dataset", "it is not set: name a data set as owner/name, or a local folder")]
        if not self._local and self.dataset.count("/") != 1:
            return [("dataset", "it is neither a folder nor owner/name")]
        return ()

    def fingerprint(self) -> str:
        """The commit, or a hash of a local copy's files."""
        if not self._local:
            return hub_commit(self.dataset, self.revision, "dataset")
        digest = hashlib.sha256()
        for file in sorted(path for path in self._root().rglob("*") if path.is_file()):
            with file.open("rb") as stream:
                digest.update(
                    f"{file.relative_to(self._root())} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode()
                )
        return digest.hexdigest()

    def place(self) -> str:
        return f"data set {self.dataset}, split {self.split!r}"

    def pools(self) -> Mapping[SplitName, Iterator[Row]]:
        own: dict[SplitName, str] = {**self.splits, "train": self.split}
        return {split: self._rows(name) for split, name in own.items()}

    @property
    def _local(self) -> bool:
        return Path(self.dataset).expanduser().is_dir()

    def _root(self) -> Path:
        if self._local:
            return Path(self.dataset).expanduser()
        return hub_snapshot(self.dataset, hub_commit(self.dataset, self.revision, "dataset"), _FILES, "dataset")

    def _rows(self, split: str) -> Iterator[Row]:
        from datasets import load_dataset

        for file in sorted(file for file in self._root().rglob("*.json*") if file.is_file()):
            check_json(file)
        for file in sorted(file for file in self._root().rglob("*.csv*") if file.is_file()):
            check_csv(file)
        number = 0
        try:
            for number, row in enumerate(load_dataset(str(self._root()), self.config, data_dir=self.folder, split=split), 1):
                yield f"{self.dataset}, split {split!r}, row {number}", number, row
        except Exception as error:  # whatever the reader of a file's format raises
            cause = error.__cause__ or error
            empty = "no row in it" if isinstance(cause, StopIteration) else type(cause).__name__
            problem = (str(cause).splitlines() or [empty])[0]
            where = f"split {split!r}{f', after row {number}' if number else ''}"
            raise DataError(f"data set {self.dataset}, {where}: it cannot be read: {problem}") from error


class UltraFeedback(Hub):
    """UltraFeedback, binarised: 61 thousand preference pairs over instructions."""

    name: ClassVar[str] = "ultrafeedback"
    paper: ClassVar[Paper | None] = Paper(
        title="UltraFeedback: Boosting Language Models with High-quality Feedback", arxiv="2310.01377"
    )

    dataset: str = Field("HuggingFaceH4/ultrafeedback_binarized", description="owner/name, or a local copy of the repository")
    format: FormatName = Field("ultrafeedback", description="the rows' layout")
    split: str = Field("train_prefs", description="the data set's own split to train on")
    splits: Mapping[SplitName, str] = Field({"heldout": "test_prefs"}, description="own splits for others of ours")


class UltraChat(Hub):
    """UltraChat-200k: dialogues without preferences; the last answer is the target."""

    name: ClassVar[str] = "ultrachat"
    provides: ClassVar[frozenset[Any]] = frozenset({"target"})
    paper: ClassVar[Paper | None] = Paper(
        title="Enhancing Chat Language Models by Scaling High-quality Instructional Conversations", arxiv="2305.14233"
    )

    dataset: str = Field("HuggingFaceH4/ultrachat_200k", description="owner/name, or a local copy of the repository")
    format: FormatName = Field("ultrachat", description="the rows' layout")
    split: str = Field("train_sft", description="the data set's own split to train on")
    splits: Mapping[SplitName, str] = Field({"heldout": "test_sft"}, description="own splits for others of ours")


class Nectar(Hub):
    """Nectar: seven answers to each prompt, ranked by GPT-4; the best is the target, and its model is noted as its `writer`."""

    name: ClassVar[str] = "nectar"
    version: ClassVar[int] = 3  # 3: the writer

    dataset: str = Field("berkeley-nest/Nectar", description="owner/name, or a local copy of the repository")
    format: FormatName = Field("nectar", description="the rows' layout")
