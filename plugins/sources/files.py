"""Rows from files on this machine: JSON lines or a JSON array, and Parquet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from harness import DataError, read_json_rows, read_parquet_rows
from harness_plugins.sources.tabular import Row, SplitName, Tabular


class _Files(Tabular):
    """One file that is cut into splits, or own files for some of them."""

    path: str = Field("", description="the training file")
    splits: Mapping[SplitName, str] = Field({}, description="own files of other splits, e.g. {heldout: test.jsonl}")

    def files(self) -> dict[SplitName, Path]:
        return {split: Path(path).expanduser() for split, path in {**self.splits, "train": self.path}.items() if path}

    def place(self) -> str:
        return self.path

    def pools(self) -> Mapping[SplitName, Iterator[Row]]:
        for field, fix in self.problems():
            raise DataError(f"source.{field}: {fix}")
        return {split: self.rows(file) for split, file in self.files().items()}

    def rows(self, file: Path) -> Iterator[Row]:
        raise NotImplementedError

    def problems(self) -> Sequence[tuple[str, str]]:
        if not self.path:
            return [("path", "it is not set: name the training file with `--set source.path=FILE`")]
        return [
            ("path" if split == "train" else "splits", f"{file}: {'a folder' if file.is_dir() else 'no such file'}")
            for split, file in self.files().items()
            if not file.is_file()
        ]

    def fingerprint(self) -> str:
        """The SHA-256 of every file, by split."""
        digest = hashlib.sha256()
        for split, file in sorted(self.files().items()):
            with file.open("rb") as stream:
                digest.update(f"{split} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
        return digest.hexdigest()


class Jsonl(_Files):
    """Rows of a file of JSON lines or of one JSON array, plain or gzipped, in one of the known layouts or with a column map."""

    name: ClassVar[str] = "jsonl"

    def rows(self, file: Path) -> Iterator[Row]:
        yield from read_json_rows(file)


class Parquet(_Files):
    """Rows of a Parquet file, in one of the known layouts or with a column map."""

    name: ClassVar[str] = "parquet"

    def rows(self, file: Path) -> Iterator[Row]:
        for number, row in enumerate(read_parquet_rows(file), start=1):
            yield f"{file}, row {number}", number, row
