"""The note beside a model that is kept as its difference from another one: what that is, and the files it stands for.

`harness.models.delta` makes and reads the differences. This is apart from it, since whoever looks at a checkpoint folder asks
for the note, and numbers are not needed for that.
"""

from __future__ import annotations

import json
import math
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from harness.errors import DataError

NOTE = "delta.json"
OWN_ADAPTER = "../adapter"  # of the training that made the delta; beside the model, as of every training with adapters


class Base(BaseModel):
    """The model that a delta is added to.

    Attributes:
        model: a stage's key, or `checkpoint:<hash>`.
        place: where a checkpoint lies: a folder of this machine, or `owner/name@commit` on the hub; None of a stage's model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    place: str | None = None


class WeightsFile(BaseModel):
    """A safetensors file that the delta stands for.

    Attributes:
        header: its header, as it was: names, types, shapes and places of its tensors.
        sha256: of the whole file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    header: str
    sha256: str

    @cached_property
    def tensors(self) -> dict[str, TensorPlace]:
        """Its tensors by name, in the order in which they lie in the file."""
        entries = {name: entry for name, entry in json.loads(self.header).items() if name != "__metadata__"}
        places = {name: TensorPlace.model_validate(entry) for name, entry in entries.items()}
        return dict(sorted(places.items(), key=lambda item: item[1].data_offsets))


class TensorPlace(BaseModel):
    """A tensor as a safetensors header describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]

    @property
    def count(self) -> int:
        return math.prod(self.shape)


class DeltaNote(BaseModel):
    """`delta.json`.

    Attributes:
        adapters: folders of low-rank adapters that are added to the base in this order, before the difference; from the note's.
        files: by name, those that the delta stands for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    base: Base
    adapters: tuple[Annotated[str, StringConstraints(pattern=r"^(\.\./adapter|adapter-[0-9]+)$")], ...] = ()
    files: dict[str, WeightsFile]

    def text(self) -> str:
        """Return it as JSON, as it was before there were adapters where it has none."""
        return self.model_dump_json(exclude=None if self.adapters else {"adapters"})


def is_delta(folder: Path) -> bool:
    """Return whether a checkpoint folder holds the difference from another model in place of weights."""
    return (folder / NOTE).is_file()


def read_note(folder: Path) -> DeltaNote:
    """Read a folder's `delta.json`.

    Raises:
        DataError: it cannot be read.
    """
    from harness.store.reading import read_plain

    try:
        return DeltaNote.model_validate_json(read_plain(folder / NOTE))
    except (OSError, ValidationError, ValueError) as error:
        raise DataError(f"{folder / NOTE} cannot be read ({error}): delete the artifact and run again") from error


def stands_for(folder: Path, name: str) -> dict[str, str]:
    """Return the files that a delta stands for, as paths in an artifact that has it as folder `name`, with their checksums."""
    return {f"{name}/{file}": described.sha256 for file, described in read_note(folder).files.items()}
