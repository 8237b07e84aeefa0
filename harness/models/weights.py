"""Weights beside the policy's own, an embedder's or a reward model's: a local folder or a name on the hub, safetensors only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from harness.errors import DataError

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


class Weights(BaseModel):
    """A local folder, or a name on the hub with its revision."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = Field(min_length=1, description="a local folder with safetensors, or a name on the hub")
    revision: str | None = Field(None, description="of a name on the hub: a commit, since branches move and keys must not")

    @property
    def local(self) -> bool:
        return Path(self.model).expanduser().is_dir()

    def problems(self, field: str) -> Sequence[tuple[str, str]]:
        """What is wrong, before anything is loaded: (field, fix)."""
        if self.local:
            folder = Path(self.model).expanduser()
            if not any(folder.rglob("*.safetensors")):
                return [(f"{field}.model", self.no_safetensors())]
        elif not _HUB_NAME.fullmatch(self.model):
            return [(f"{field}.model", "no such folder, and no name on the hub: those are written owner/name")]
        elif self.revision is None:
            return [(f"{field}.revision", "no such folder; for a name on the hub give a commit as `revision`")]
        return ()

    def no_safetensors(self) -> str:
        """What to do about a folder without safetensors."""
        return "it holds no *.safetensors, and other weight formats are not read: convert them first (docs/backends.md)"

    @cached_property
    def weights(self) -> str:
        """What tells these weights from others: a hash of a folder's files, or a hub name and revision."""
        if not self.local:
            return f"{self.model}@{self.revision}"
        from harness.models.checkpoint import checkpoint_hash

        folder = Path(self.model).expanduser()
        inner = sorted({file.parent for file in folder.rglob("*") if file.is_file()})
        return " ".join(checkpoint_hash(part) for part in inner)

    def folder(self) -> Path:
        """The files, fetched from the hub first if need be; never pickles.

        Raises:
            DataError: the hub cannot be reached or has no such model; or it has no safetensors.
        """
        if self.local:
            return Path(self.model).expanduser()
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            found = snapshot_download(
                self.model, revision=self.revision, allow_patterns=["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
            )
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise DataError(f"{self.model} at {self.revision} cannot be fetched from the hub: {error}") from error
        if not any(Path(found).rglob("*.safetensors")):
            raise DataError(f"{self.model}: {self.no_safetensors()}")
        return Path(found)
