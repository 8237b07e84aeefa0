"""The interface of objectives: the losses that rows train with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

from harness.api.interfaces.component import Component
from harness.api.types import GroupLogps, Loss, Prompt


class Objective(Component):
    """A loss over groups, pure tensors in and out.

    `needs_reference` asks for the reference policy's log-probabilities; `needs_rejected` says that a group without
    negatives cannot be trained on; `needs_mismatched` asks for responses scored under prompts that they do not answer
    (`mismatched` is then no name for a view); `ranks_rejected` says that a group's negatives are a ranking, best first, whose
    order counts; `group_mean` says over what `Loss.per_group` is averaged.
    """

    needs_reference: ClassVar[bool] = True
    needs_rejected: ClassVar[bool] = True
    needs_mismatched: ClassVar[bool] = False
    ranks_rejected: ClassVar[bool] = False
    group_mean: ClassVar[Literal["groups", "tokens"]] = "groups"

    def loss(self, batch: GroupLogps) -> Loss:
        """The loss of one batch; see `Loss` for shapes and how it is averaged."""
        raise NotImplementedError

    def views(self) -> Mapping[str, Callable[[Prompt], Prompt]]:
        """Other prompts under which the same responses are scored: name -> how to change the prompt."""
        return {}
