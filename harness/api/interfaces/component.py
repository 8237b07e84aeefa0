"""The base class of everything that a plugin registers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True)
class Paper:
    """The paper that a component or a method comes from.

    Attributes:
        arxiv: its number, such as 2305.18290.
        equations: those that are implemented.
    """

    title: str
    arxiv: str = ""
    equations: str = ""


class Component(BaseModel):
    """Common ground of everything a plugin registers.

    `name` is how configs call it. `version` goes into the key of every artifact it makes: raise it when the same fields
    give other results. `paper` is None where there is none to cite.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str]
    version: ClassVar[int] = 1
    paper: ClassVar[Paper | None] = None

    @classmethod
    def takes_reward(cls, fields: Mapping[str, Any]) -> bool:
        """Return whether the config's `reward` is meant for its field `reward` with these fields, where they have none."""
        return False

    def problems(self) -> Sequence[tuple[str, str]]:
        """Return problems of fields that only a look at the machine can tell: (field, fix). Cheap; called while planning."""
        return ()

    def absent(self) -> Collection[str]:
        """Return the fields of `problems` whose files are only not on this machine yet: a plan names them and goes on."""
        return ()

    def fingerprint(self) -> str:
        """Return what decides the results beside the fields, such as a hash of files read or an engine's version.

        Called while planning; part of every key that the component is in, unless empty.
        """
        return ""
