"""Weights beside the policy's own, an embedder's or a reward model's: safetensors only.

They lie in a local folder, in the cache of `harness fetch`, or on the hub.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from harness.errors import DataError
from harness.models.fetched import CATALOGUE, fetched

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


class Weights(BaseModel):
    """A local folder, a name of `harness fetch`, or a name on the hub with its revision."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = Field(
        min_length=1, description="a local folder with safetensors, a name of `harness fetch`, or one on the hub"
    )
    revision: str | None = Field(None, description="of a name on the hub: a commit, since branches move and keys must not")

    fetched_kind: ClassVar[str] = ""  # of what `harness fetch` gets, the kind that fits

    @property
    def local(self) -> Path | None:
        """The folder, if `model` names one or something that was fetched; None for a name on the hub.

        Raises:
            DataError: a name of `harness fetch` that was not fetched, or is of another kind.
        """
        folder = Path(self.model).expanduser()
        return folder if folder.is_dir() else fetched(self.model, self.fetched_kind)

    def problems(self, field: str) -> Sequence[tuple[str, str]]:
        """Return what is wrong, before anything is loaded: (field, fix)."""
        try:
            folder = self.local
        except DataError as error:
            return [(f"{field}.model", str(error))]
        if folder is not None:
            if not any(folder.rglob("*.safetensors")):
                return [(f"{field}.model", self.no_safetensors())]
        elif not _HUB_NAME.fullmatch(self.model):
            return [
                (f"{field}.model", f"no such folder, {self._not_fetched()}and no name on the hub: those are written owner/name")
            ]
        elif self.revision is None:
            return [(f"{field}.revision", "no such folder; for a name on the hub give a commit as `revision`")]
        return ()

    def _not_fetched(self) -> str:
        names = [name for name, item in CATALOGUE.items() if item.kind == self.fetched_kind]
        return f"none of `harness fetch` ({', '.join(names)}), " if names else ""

    def no_safetensors(self) -> str:
        """Return what to do about a folder without safetensors."""
        return "it holds no *.safetensors, and other weight formats are not read: convert them first (docs/backends.md)"

    @cached_property
    def weights(self) -> str:
        """Return the identity of these weights: a hash of a folder's files, or a hub name and revision."""
        folder = self.local
        if folder is None:
            return f"{self.model}@{self.revision}"
        from harness.models.checkpoint import checkpoint_hash

        inner = sorted({file.parent for file in folder.rglob("*") if file.is_file()})
        return " ".join(checkpoint_hash(part) for part in inner)

    def folder(self) -> Path:
        """The files, fetched from the hub first if need be; never pickles.

        Raises:
            DataError: the hub cannot be reached or has no such model; or it has no safetensors.
        """
        if (folder := self.local) is not None:
            return folder
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            folder = snapshot_download(
                self.model, revision=self.revision, allow_patterns=["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
            )
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise DataError(f"{self.model} at {self.revision} cannot be fetched from the hub: {error}") from error
        if not any(Path(folder).rglob("*.safetensors")):
            raise DataError(f"{self.model}: {self.no_safetensors()}")
        return Path(folder)
