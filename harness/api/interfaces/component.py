"""What every component is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from harness.api.types import Paper


class Component(BaseModel):
    """Common ground of everything a plugin registers.

    `name` is how configs call it. `version` goes into the key of every artifact it makes: raise it when the same fields
    give other results. `paper` is None where there is none to cite.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str]
    version: ClassVar[int] = 1
    paper: ClassVar[Paper | None] = None

    def problems(self) -> Sequence[tuple[str, str]]:
        """What is wrong with fields that only a look at the machine can tell: (field, fix). Cheap; called while planning."""
        return ()

    def fingerprint(self) -> str:
        """What else decides the results beside the fields: a hash of files read, an engine's version. Called while planning;
        part of every key that the component is in, unless empty."""
        return ""
